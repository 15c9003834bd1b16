"""Rows as trainers see them."""
