"""Side by side with stock trl."""
