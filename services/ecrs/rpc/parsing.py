"""Parsing of requests that may be too long or not a message at all."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

Deserializer = Callable[[bytes], Any]


@dataclass(frozen=True, slots=True)
class TooLong:
    """Takes the place of a request that was not parsed because it is too long; `size` in bytes."""

    size: int


def bounded_parser(parse: Deserializer, max_bytes: int) -> Deserializer:
    """Return `parse`, made to return TooLong for too many bytes, and None for bytes that it cannot parse."""

    def parse_within_limit(content: bytes) -> Any:
        if len(content) > max_bytes:
            return TooLong(len(content))
        try:
            return parse(content)
        except DecodeError:
            return None

    return parse_within_limit
