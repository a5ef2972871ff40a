"""The keys and values that a bundle has in the profile store."""

from collections.abc import Callable, Iterator

from ecrs.bundle import Bundle
from ecrs.domain.files import parse_history, parse_user
from ecrs.storage.records import (
    aggregates_key,
    dump_history,
    dump_user,
    history_key,
    item_key,
    user_key,
)

FILES = ("histories.dat", "aggregates.dat", "users.dat", "products.dat")
"""Files of a bundle that are loaded into the profile store. Each line is one record."""

Record = tuple[str, bytes | str]
"""A key and its value."""


def user_records(bundle: Bundle) -> Iterator[Record]:
    """Yield the records of all users: histories and aggregates, which need the most space, then profiles.

    Raises BundleError for a malformed line.
    """
    for user_id, history in bundle.records("histories.dat", parse_history):
        yield history_key(user_id, bundle.version), dump_history(history)
    for line in bundle.lines("aggregates.dat"):
        user_id, _, aggregates = line.partition(":")
        yield aggregates_key(user_id, bundle.version), aggregates
    for user in bundle.records("users.dat", parse_user):
        yield user_key(user.id), dump_user(user)


def keys(bundle: Bundle) -> Iterator[str]:
    """Yield all keys of the bundle: those of `user_records`, in the same order, then those of the items."""
    key_functions: tuple[Callable[[str], str], ...] = (
        lambda user_id: history_key(user_id, bundle.version),
        lambda user_id: aggregates_key(user_id, bundle.version),
        user_key,
        item_key,
    )
    for name, key_of in zip(FILES, key_functions, strict=True):
        for line in bundle.lines(name):
            yield key_of(line.partition(":")[0].strip())
