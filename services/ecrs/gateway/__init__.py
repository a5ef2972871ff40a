"""The gateway: the entry point for shops. Answers requests for recommendations with the other services."""
