"""The embedded profile: the whole platform as processes on this machine, without Docker."""
