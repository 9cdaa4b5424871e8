"""From widths to a pruned, repaired network."""
