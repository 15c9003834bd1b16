"""Rewards attacked before they are trusted."""
