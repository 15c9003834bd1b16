"""What a response answers, out of its text, and the rewards of short answers."""
