"""Estimates of candidates' scores without evaluations."""
