"""Faults: errors that a caller can act on.

A service that raises a `Fault` answers with `error {code, text}` under gRPC status OK, as the original system
does. The text is written for the caller and shows no internals.
"""

QUOTED_CHARS = 80


class Fault(Exception):
    """An error with a code and a text for the caller; raise one of the subclasses."""

    code = 502
    outcome = "error"

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.text = text
        if code is not None:
            self.code = code


def quoted(value: str) -> str:
    """A request's value for an error text: quoted, escaped, and cut to QUOTED_CHARS."""
    return (
        repr(value) if len(value) <= QUOTED_CHARS else f"{value[:QUOTED_CHARS]!r}… ({len(value)} characters)"
    )


class NotFound(Fault):
    """There is no such user or item. The original system answers 500, so that is the code."""

    code = 500
    outcome = "not_found"


class BadRequest(Fault):
    """The request is invalid; the text names the field."""

    code = 400
    outcome = "bad_request"


class Unavailable(Fault):
    """A dependency is away or refuses the call; trying again may help."""

    code = 503
    outcome = "unavailable"


class DeadlineExceeded(Fault):
    """The deadline passed before the answer was there."""

    code = 504
    outcome = "deadline_exceeded"


class MalformedData(Fault):
    """A stored record, or the reply of a dependency, cannot be read. Trying again does not help."""

    code = 502
    outcome = "malformed_data"
