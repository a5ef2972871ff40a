"""The service cm (content model): looks up item records by id, and changes items at run time."""
