"""The figures of a comparison's report."""
