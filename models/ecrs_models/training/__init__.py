"""Training of a bundle's models: the two-tower model for retrieval and the ranker."""
