"""Everything in a store as a count and a hash, to compare before and after."""

import hashlib
from collections.abc import Iterable, Iterator

import redis

BATCH = 2000


def digest(rows: Iterable[tuple[str, bytes]]) -> tuple[int, str]:
    """The number of rows, and a hash of them that does not depend on their order."""
    hashed, count = hashlib.sha256(), 0
    for key, value in sorted(rows):
        hashed.update(f"{key}\n".encode() + value)
        count += 1
    return count, hashed.hexdigest()


def records(client: redis.Redis) -> Iterator[tuple[str, bytes]]:
    """Each key of Redis or Valkey with its value: strings as they are, members of sets and hashes sorted."""
    keys = [key.decode() for key in client.scan_iter(count=BATCH)]
    for begin in range(0, len(keys), BATCH):
        some = keys[begin : begin + BATCH]
        for key, value in zip(some, client.mget(some), strict=True):
            yield key, b",".join(sorted(_members(client, key))) if value is None else value


def _members(client: redis.Redis, key: str) -> Iterable[bytes]:
    if client.type(key) == b"set":
        return client.smembers(key)
    return (name + b"=" + value for name, value in client.hgetall(key).items())
