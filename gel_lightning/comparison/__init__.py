"""The comparison of models: the grid of runs."""
