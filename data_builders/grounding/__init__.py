"""Questions about places: boxes, volumes, sequences."""
