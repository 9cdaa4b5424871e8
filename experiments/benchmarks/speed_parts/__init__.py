"""Parts of speed.py: each measures one thing in a process of its own and returns its figures."""
