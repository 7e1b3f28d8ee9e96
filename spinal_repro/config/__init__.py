"""The configuration of a run: its schema, and composing it from YAML."""
