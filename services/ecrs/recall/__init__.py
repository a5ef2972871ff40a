"""recall: candidate products for a user."""
