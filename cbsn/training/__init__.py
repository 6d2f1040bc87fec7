"""The training step, the training loop, and the files that a run writes."""
