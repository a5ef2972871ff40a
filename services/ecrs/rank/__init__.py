"""rank: scores of candidate products for a user."""
