"""The published cells, and the regression of Table I."""
