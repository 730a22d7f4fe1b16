"""Learning: plain PyTorch steps, checkpoints that survive, and the Ray Train run around them."""
