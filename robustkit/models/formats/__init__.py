"""What a model may be written in: one format, one file."""
