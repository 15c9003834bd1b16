"""Training on dialogues, turn by turn."""
