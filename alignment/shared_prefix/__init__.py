"""One prompt with several answers in one forward pass."""
