"""The report of a comparison: one HTML page that stands alone, and its figures."""
