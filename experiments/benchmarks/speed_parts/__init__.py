"""Parts of speed.py: each measures one aspect in its own process and returns the figures."""
