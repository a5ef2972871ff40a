"""The service um (user model): looks up a user's profile, history and aggregates by id."""
