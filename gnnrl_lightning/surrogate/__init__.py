"""Estimates of a candidate's score without an evaluation."""
