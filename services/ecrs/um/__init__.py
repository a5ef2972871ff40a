"""um: the user model: a user's profile and history by id."""
