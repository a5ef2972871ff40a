"""TODO generated."""
