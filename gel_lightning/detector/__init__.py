"""The packaged detector: a classifier of gels that needs no training, see README.md beside it."""
