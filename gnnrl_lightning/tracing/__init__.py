"""Follow every channel through a network's exported graph."""
