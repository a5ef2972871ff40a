"""The service rank: scores candidate items for a user with the ranking model."""
