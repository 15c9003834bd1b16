"""Rows: sources, render, corrupt, splits, and the data sets built from them. Loads no torch."""
