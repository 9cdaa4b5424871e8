"""`python -m gnnrl_lightning`."""

import warnings

# Lightning and torch-geometric do what newer PyTorch deprecates: nothing that a user could mend.
warnings.filterwarnings("ignore", ".isinstance.treespec, LeafSpec.. is deprecated", FutureWarning)
warnings.filterwarnings("ignore", ".torch.jit.script. is deprecated", FutureWarning)

from gnnrl_lightning.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
