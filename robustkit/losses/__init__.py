"""Built-in losses, always per point."""
