"""What can go wrong in a way a caller can act on.

A `Fault` raised by a service becomes `error {code, text}` of its reply, under gRPC OK: the
contract of the original system. Its text is written for the caller and carries no internals.
"""

QUOTED_CHARS = 80


class Fault(Exception):
    code = 500
    outcome = "error"

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.text = text
        if code is not None:
            self.code = code


def quoted(value: str) -> str:
    """A value of a request as a fault's text shows it: between quotes, escaped, and no longer than a line."""
    return (
        repr(value) if len(value) <= QUOTED_CHARS else f"{value[:QUOTED_CHARS]!r}… ({len(value)} characters)"
    )


class NotFound(Fault):
    """No such user or product. The original answers 500, so that is its code."""

    outcome = "not_found"


class BadRequest(Fault):
    code = 400
    outcome = "bad_request"


class Unavailable(Fault):
    """A part this answer needs is away or refuses; trying again may help."""

    code = 503
    outcome = "unavailable"


class OutOfTime(Fault):
    """The time left was too short for what was asked."""

    code = 504
    outcome = "out_of_time"
