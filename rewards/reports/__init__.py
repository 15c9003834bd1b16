"""Rewards and metrics of written reports."""
