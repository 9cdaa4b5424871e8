"""Scoring candidates: evaluator, journal, latency."""
