"""Models: a backbone and a head."""
