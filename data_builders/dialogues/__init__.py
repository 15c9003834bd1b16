"""Dialogues along a rule set's paths, and the errors of a weak annotator."""
