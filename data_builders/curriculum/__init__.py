"""A curriculum of instructions from tables and specialist reports."""
