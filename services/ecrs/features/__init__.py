"""The encoding of users and items, and the ranker's features: the same code for training and serving."""
