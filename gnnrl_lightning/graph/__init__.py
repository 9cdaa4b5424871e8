"""The network as a computational graph: trace, channel groups, cost, budget, state."""
