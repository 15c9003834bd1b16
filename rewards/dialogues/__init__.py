"""Rewards and metrics of dialogues along a rule set."""
