"""Scores of candidates on the search split."""
