"""Training: learning-rate rules, the loop, checkpoints, and one run from start to record."""
