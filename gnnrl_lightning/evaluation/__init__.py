"""Scores of candidates on the holdout."""
