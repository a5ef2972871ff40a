"""What can be wrong with somebody's data; nothing is imported, so that every role can catch it."""


class DataError(Exception):
    """The data cannot be used; the text says which file, where and why."""
