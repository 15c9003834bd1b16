"""A checkpoint released with its evidence."""
