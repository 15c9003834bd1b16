"""Phantoms: pictures drawn from facts."""
