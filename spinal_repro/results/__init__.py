"""Results: pure functions of records. Nothing here imports torch."""
