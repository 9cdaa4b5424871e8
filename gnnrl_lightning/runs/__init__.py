"""Runs: their folders, and the check, lock and sharing of what these hold."""
