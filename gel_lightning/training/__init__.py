"""Training, and the files of a run."""
