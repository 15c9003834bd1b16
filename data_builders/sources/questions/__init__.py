"""Questions and answers about images."""
