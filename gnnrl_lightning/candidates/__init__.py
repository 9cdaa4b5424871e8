"""Candidates: pruned and repaired networks from widths."""
