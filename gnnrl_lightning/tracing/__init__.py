"""Trace the channels of a network through its exported graph."""
