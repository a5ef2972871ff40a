"""The embedded profile: runs the whole platform as processes on this machine, without Docker."""
