"""Facts into words, true or corrupted; written reports into facts."""
