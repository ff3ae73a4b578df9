"""Training: strategy, loop, checkpoints, callbacks."""
