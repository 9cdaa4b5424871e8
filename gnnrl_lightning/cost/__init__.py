"""Costs of a network at any widths, and budgets for them."""
