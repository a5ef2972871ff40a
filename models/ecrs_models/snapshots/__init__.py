"""Snapshots: everything the platform knows at a cutoff time, computed from the log before it."""
