"""Boxes: their geometry, the units that they are written in, and the rewards that match them."""
