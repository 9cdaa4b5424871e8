"""Cut channels out of a network, and test that this is exact."""
