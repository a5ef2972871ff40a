"""The prepared data set: its files, the log of actions in memory, and the split into periods."""
