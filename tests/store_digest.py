"""A digest of all records in a store, to compare its content before and after."""

import hashlib
from collections.abc import Iterable, Iterator

import redis

BATCH = 2000


def digest(rows: Iterable[tuple[str, bytes]]) -> tuple[int, str]:
    """Return the number of rows and a hash of them that does not depend on their order."""
    hashed, count = hashlib.sha256(), 0
    for key, value in sorted(rows):
        hashed.update(f"{key}\n".encode() + value)
        count += 1
    return count, hashed.hexdigest()


def records(client: redis.Redis) -> Iterator[tuple[str, bytes]]:
    """Yield each key of Redis or Valkey with its value; members of a collection are sorted and joined."""
    keys = [key.decode() for key in client.scan_iter(count=BATCH)]
    for begin in range(0, len(keys), BATCH):
        batch = keys[begin : begin + BATCH]
        for key, value in zip(batch, client.mget(batch), strict=True):
            yield key, b",".join(sorted(_members(client, key))) if value is None else value


def _members(client: redis.Redis, key: str) -> Iterable[bytes]:
    match client.type(key):
        case b"set":
            return client.smembers(key)
        case b"stream":
            return (name + repr(sorted(fields.items())).encode() for name, fields in client.xrange(key))
        case _:
            return (name + b"=" + value for name, value in client.hgetall(key).items())
