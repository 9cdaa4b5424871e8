"""Ways to choose widths other than the agent."""
