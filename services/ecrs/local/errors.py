"""The error of an embedded platform that cannot start."""


class StartError(Exception):
    """The platform cannot start here; the text says why and what to do."""
