"""Preference pairs that others released."""
