"""gateway: the shop's entry: recommendations for a user."""
