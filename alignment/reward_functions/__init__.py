"""Rewards as trl calls them."""
