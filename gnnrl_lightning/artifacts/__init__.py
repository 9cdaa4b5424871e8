"""The artifact: a folder with a pruned network, in the formats that were asked for, and its recipe."""
