"""Built sets written in, and read from, the formats of others."""
