"""Remove channels from a network, and test that the result is exact."""
