"""All that a store holds, as a count and a hash: equal before and after, nothing was lost."""

import hashlib
from collections.abc import Iterable, Iterator

import redis

BATCH = 2000


def digest(rows: Iterable[tuple[str, bytes]]) -> tuple[int, str]:
    """How many rows, and a hash of them whatever their order."""
    hashed, count = hashlib.sha256(), 0
    for key, value in sorted(rows):
        hashed.update(f"{key}\n".encode() + value)
        count += 1
    return count, hashed.hexdigest()


def records(client: redis.Redis) -> Iterator[tuple[str, bytes]]:
    """Each key of Redis or Valkey with its value: strings as they are, sets in order."""
    keys = [key.decode() for key in client.scan_iter(count=BATCH)]
    for begin in range(0, len(keys), BATCH):
        some = keys[begin : begin + BATCH]
        for key, value in zip(some, client.mget(some), strict=True):
            yield key, b",".join(sorted(client.smembers(key))) if value is None else value
