"""Fast inference and timing."""
