"""Hyperparameter search by validation accuracy; no trial uses the test set."""
