"""Which settings are best: the search space, and Ray Tune over it."""
