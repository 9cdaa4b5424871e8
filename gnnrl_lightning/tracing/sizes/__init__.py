"""Sizes in the network's own code and modules: which follow the channels when it is pruned, and which are constants."""
