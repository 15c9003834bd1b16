"""Drawn by clinalign: phantoms."""
