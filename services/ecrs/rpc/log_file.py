"""A log file that rotates by size and by age."""

import os
import time
from pathlib import Path

from ecrs.rpc.line_writer import Descriptor, Output
from ecrs.rpc.settings import LogSettings

DAY_S = 86_400
STANDARD_OUTPUT, STANDARD_ERROR = 1, 2
"""File descriptors of this process."""


def log_output(settings: LogSettings) -> Output:
    """Return the output for this process's log: the file of `settings`, or standard output if it is not set.

    The first write to the file also points standard output and standard error to it, so that messages of the
    interpreter and of libraries are in the same file.
    """
    if settings.log_file is None:
        return Descriptor(STANDARD_OUTPUT)
    return LogFile(settings.log_file, settings, (STANDARD_OUTPUT, STANDARD_ERROR))


class LogFile:
    """Output to a file, which becomes FILE.1 once it is full or old, FILE.1 becomes FILE.2, and so on.

    The file is opened by the first write and again whenever it was removed or renamed. Each of `descriptors`
    is then pointed to it.
    """

    def __init__(self, path: Path, settings: LogSettings, descriptors: tuple[int, ...] = ()) -> None:
        self._path = path
        self._max_bytes = settings.log_file_bytes
        self._max_age_s = settings.log_file_days * DAY_S
        self._kept = settings.log_files_kept
        self._descriptors = descriptors
        self._opened: int | None = None

    def write(self, content: bytes | memoryview, /) -> int:
        """Append a first part of `content`, or all of it, and return its length. Raises OSError."""
        self._rotate_if_due(len(content))
        if self._opened is None or not self._is_current(self._opened):
            self._reopen()
        assert self._opened is not None
        return os.write(self._opened, content)

    def open(self) -> int:
        """Return a descriptor that appends to the file, readable by its owner only. Raises OSError."""
        self._rotate_if_due(0)
        return os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _rotate_if_due(self, added_bytes: int) -> None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return
        is_full = status.st_size + added_bytes > self._max_bytes
        # Periods are aligned to the epoch, so that a restart needs no record of when the file was begun.
        is_old = status.st_mtime // self._max_age_s != time.time() // self._max_age_s
        if status.st_size and (is_full or is_old):
            for number in range(self._kept, 0, -1):
                older, newer = self._numbered(number), self._numbered(number - 1)
                if newer.exists():
                    newer.replace(older)
            self._path.unlink(missing_ok=True)  # it is still there if no older file is kept

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def _reopen(self) -> None:
        opened = self.open()
        try:
            _end_line(opened)
        except OSError:
            os.close(opened)
            raise
        if self._opened is not None:
            os.close(self._opened)
        self._opened = opened
        for descriptor in self._descriptors:
            os.dup2(opened, descriptor)


def _end_line(descriptor: int) -> None:
    """End a last line of which a former process could only write a part."""
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        os.write(descriptor, b"\n")
