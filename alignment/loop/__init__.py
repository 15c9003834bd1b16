"""The whole loop, and its comparisons."""
