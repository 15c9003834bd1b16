"""What a model was made of, and what of that may leave the house."""
