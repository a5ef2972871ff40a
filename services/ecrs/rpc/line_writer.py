"""Writes lines on a thread of their own, so that a full disk or a slow reader holds nobody up."""

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

MAX_QUEUED_BYTES = 2_000_000
"""Bound of the queue: some 10,000 lines of a call, or twenty seconds of a busy service."""
BATCH_BYTES = 64_000
"""Lines are joined to about this size for one write."""
PAUSE_S = 0.02
"""Pause after a write. A busy service so wakes the thread 50 times per second, not once per line."""
CLOSE_LIMIT_S = 1.0
"""Longest time that `close` waits for the queued lines to be written."""

QUEUE_FULL, WRITE_ERROR = "queue_full", "write_error"
"""Why a line was dropped."""


class Output(Protocol):
    """Receives bytes."""

    def write(self, content: bytes | memoryview, /) -> int:
        """Write a first part of `content`, or all of it, and return its length. Raises OSError."""


class Descriptor:
    """Output to an open file descriptor, such as standard output."""

    def __init__(self, number: int) -> None:
        self._number = number

    def write(self, content: bytes | memoryview, /) -> int:
        """Write to the descriptor; blocks while its reader is slow."""
        return os.write(self._number, content)


class LineWriter:
    """A bounded queue of lines, and the thread that writes them to an output.

    A line is dropped if the queue is full or the output fails. `on_drop` is called with the reason and the
    number of lines, on any thread; `on_resume` with the number dropped, when lines are written again.
    """

    def __init__(
        self,
        output: Output,
        on_drop: Callable[[str, int], None] = lambda reason, lines: None,
        on_resume: Callable[[int], None] = lambda lines: None,
    ) -> None:
        self._output = output
        self._on_drop = on_drop
        self._on_resume = on_resume
        # Its lock is reentrant: the garbage collector can run in `write` and make a destructor write a line.
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._queued_bytes = 0
        self._dropped = 0  # since the last line that was written
        self._ends_within_line = False  # the last write failed after a part of a line
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lines", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        r"""Queue a line, which ends with b"\n". Never blocks and never raises."""
        with self._changed:
            if self._queued_bytes + len(line) <= MAX_QUEUED_BYTES:
                self._lines.append(line)
                self._queued_bytes += len(line)
                self._changed.notify()
                return
        self._drop(QUEUE_FULL, 1)

    def close(self) -> None:
        """Write the queued lines, for CLOSE_LIMIT_S at most, and end the thread."""
        with self._changed:
            self._closing.set()
            self._changed.notify()
        self._thread.join(CLOSE_LIMIT_S)

    def _run(self) -> None:
        while batch := self._next_batch():
            self._write(batch)
            self._closing.wait(PAUSE_S)

    def _next_batch(self) -> bytes:
        """Wait for lines and return some of them, joined; nothing once the writer closes."""
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._closing.is_set())
            batch = bytearray()
            while self._lines and len(batch) < BATCH_BYTES:
                batch += self._lines.popleft()
            self._queued_bytes -= len(batch)
            return bytes(batch)

    def _write(self, batch: bytes) -> None:
        rest = memoryview(batch)
        try:
            if self._ends_within_line:
                self._output.write(b"\n")
                self._ends_within_line = False
            while rest:
                rest = rest[self._output.write(rest) :]
        except OSError:
            written = len(batch) - len(rest)
            self._ends_within_line |= written > 0 and batch[written - 1 : written] != b"\n"
            self._drop(WRITE_ERROR, bytes(rest).count(b"\n"))
            return
        with self._changed:
            dropped, self._dropped = self._dropped, 0
        if dropped:
            self._on_resume(dropped)

    def _drop(self, reason: str, lines: int) -> None:
        with self._changed:
            self._dropped += lines
        self._on_drop(reason, lines)
