"""Client programs: the original system's command line, and the commands that change items."""
