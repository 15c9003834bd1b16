"""A checkpoint judged on held-out rows."""
