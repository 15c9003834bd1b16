"""Responses made to cheat a reward, and honest answers to hold against them."""
