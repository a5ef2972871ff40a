"""Client programs: the original's command line, and item changes."""
