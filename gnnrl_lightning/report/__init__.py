"""What a run shows: progress while it works, a table at the end."""
