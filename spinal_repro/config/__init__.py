"""The configuration of a run: schema, validation and composition from YAML."""
