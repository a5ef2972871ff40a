"""TODO snapshots."""
