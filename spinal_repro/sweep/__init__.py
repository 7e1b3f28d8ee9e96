"""Sweeps: many runs at once, each in its own process."""
