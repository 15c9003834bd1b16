"""Killed at any moment, a run goes on to the same result."""
