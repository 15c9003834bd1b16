"""Reward models and rewards judged."""
