"""Training of the dense and of pruned networks."""
