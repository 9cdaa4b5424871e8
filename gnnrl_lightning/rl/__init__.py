"""The agent: states, encoders, policies, environments and learners."""
