"""Faults: errors that a caller can act on.

A service that raises a `Fault` answers with `error {code, text}` under gRPC status OK, as the original system
does. The text is written for the caller and reveals no internals.
"""

QUOTED_CHARS = 80
"""Longest value of a request that an error text quotes in full."""


class Fault(Exception):
    """An error with a code and a text for the caller; raise one of the subclasses.

    `code` goes into the reply; `outcome` labels metrics and spans.
    """

    code = 502
    outcome = "error"

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.text = text
        if code is not None:
            self.code = code


def quoted(value: str) -> str:
    """Return a value of a request for an error text: quoted, escaped, and cut to QUOTED_CHARS."""
    return (
        repr(value) if len(value) <= QUOTED_CHARS else f"{value[:QUOTED_CHARS]!r}… ({len(value)} characters)"
    )


class NotFound(Fault):
    """The user or item does not exist. The code is 500 because the original system answers 500."""

    code = 500
    outcome = "not_found"


class BadRequest(Fault):
    """The request is invalid; the text names the field."""

    code = 400
    outcome = "bad_request"


class Forbidden(Fault):
    """The caller is not allowed to call the method."""

    code = 403
    outcome = "forbidden"


class Unavailable(Fault):
    """A dependency cannot be reached or refuses the call; a retry may succeed."""

    code = 503
    outcome = "unavailable"


class DeadlineExceeded(Fault):
    """The deadline passed before the answer arrived."""

    code = 504
    outcome = "deadline_exceeded"


class MalformedData(Fault):
    """A stored record or the reply of a dependency cannot be parsed. A retry does not help."""

    code = 502
    outcome = "malformed_data"
