"""Output of a run: progress bars, logs, tables and figures."""
