"""Search methods other than the RL agent."""
