"""Recipes, read and checked before anything is loaded."""
