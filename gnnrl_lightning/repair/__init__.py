"""Repairs of a pruned network without gradient steps."""
