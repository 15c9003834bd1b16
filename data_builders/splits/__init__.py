"""Splits by patient, strata, and leaks between splits."""
