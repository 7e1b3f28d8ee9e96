"""Training: learning-rate rules, the loop, checkpoints, and a run from start to record."""
