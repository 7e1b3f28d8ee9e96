"""The two commands. Importing them imports neither torch nor pandas."""
