"""The main job, and what it is made of."""
