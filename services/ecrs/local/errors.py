"""Why the embedded platform cannot start."""


class StartError(Exception):
    """The platform cannot start here; the text says why and what to do."""
