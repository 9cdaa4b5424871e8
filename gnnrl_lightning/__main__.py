"""`python -m gnnrl_lightning`."""

from gnnrl_lightning.cli import main

if __name__ == "__main__":
    main()
