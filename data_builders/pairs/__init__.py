"""Preference pairs: hallucinations, noised lesions, clinical relevance."""
