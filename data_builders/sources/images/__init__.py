"""Images with labels, boxes or reports."""
