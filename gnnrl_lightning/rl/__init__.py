"""The RL agent: states, encoders, policies, environments and learners."""
