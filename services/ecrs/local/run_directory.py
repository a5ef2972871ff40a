"""The run directory of an embedded platform, which holds its data, logs and process ids."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ecrs.local.errors import StartError

_OTHERS = 0o077
"""Permissions of the group and of all other users."""


@contextmanager
def locked_run_directory(run_dir: Path) -> Iterator[Path]:
    """Create the run directory, make it private to this user, and lock it; yields its absolute path.

    Files that this process creates meanwhile are private, too. The kernel releases the lock however this
    process ends. Raises StartError.
    """
    with reporting_errors(run_dir):
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        run_dir = run_dir.resolve()
        if (owner := run_dir.stat().st_uid) != os.geteuid():
            raise StartError(f"run directory {run_dir}: it belongs to another user (uid {owner})")
        _make_private(run_dir)
        lock = os.open(run_dir / "lock", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(f"the platform is already running (run directory {run_dir})") from None
        umask = os.umask(_OTHERS)
        try:
            yield run_dir
        finally:
            os.umask(umask)
    finally:
        os.close(lock)


@contextmanager
def reporting_errors(run_dir: Path) -> Iterator[None]:
    """Raise StartError, with the file and the reason, for an OSError of the block."""
    try:
        yield
    except OSError as error:
        path = error.filename or run_dir
        raise StartError(f"the run directory cannot be used: {path}: {error.strerror}") from error


def write_private(path: Path, content: str) -> None:
    """Replace a file atomically by one that only its owner can read."""
    draft = path.with_name(f".{path.name}")
    with open(draft, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(content)
    draft.replace(path)


def _make_private(run_dir: Path) -> None:
    """Take all permissions of other users from the directory and everything in it."""
    _remove_permissions(run_dir)
    for directory, directories, files in os.walk(run_dir):
        for name in (*directories, *files):
            _remove_permissions(Path(directory, name))


def _remove_permissions(path: Path) -> None:
    mode = path.lstat().st_mode
    if mode & _OTHERS and not path.is_symlink():
        path.chmod(mode & 0o7777 & ~_OTHERS)
