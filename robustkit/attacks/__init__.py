"""Built-in attacks: one family, one file."""
