"""From widths to a smaller network: which channels stay, surgery, statistics."""
