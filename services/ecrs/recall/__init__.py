"""The service recall: generates candidate items for a user from several retrieval channels."""
