"""Preference pairs out of a model's own errors."""
