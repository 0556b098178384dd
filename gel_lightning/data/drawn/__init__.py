"""Pictures drawn from a seed, in the layout of the real data set, so that everything runs without a network."""
