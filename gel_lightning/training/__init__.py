"""Training, and what a run leaves."""
