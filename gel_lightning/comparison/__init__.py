"""Comparing models: a grid of fits, their statistics and the report."""
