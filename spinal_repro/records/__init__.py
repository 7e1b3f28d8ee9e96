"""Records of finished runs: writing, reading, checking and comparing them."""
