"""A data spec into a built set: rows, card, gallery."""
