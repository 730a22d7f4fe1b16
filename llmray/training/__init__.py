"""A plain PyTorch loop, and Ray Train around it."""
