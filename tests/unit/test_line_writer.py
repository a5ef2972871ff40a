"""The log's lines: written in order, dropped and counted when nothing can be written, never waited for."""

import fcntl
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecrs.rpc import line_writer
from ecrs.rpc.line_writer import QUEUE_FULL, WRITE_ERROR, Descriptor, LineWriter
from ecrs.rpc.log_file import DAY_S, LogFile
from ecrs.rpc.settings import LogSettings
from tests.eventually import eventually

LINE = b'{"event": "rpc"}\n'


class Disk:
    """An output that has space for a number of bytes."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.content = b""

    def write(self, content: bytes | memoryview, /) -> int:
        if not self.free:
            raise OSError(28, "No space left on device")
        part = bytes(content[: self.free])
        self.free -= len(part)
        self.content += part
        return len(part)


class Drops:
    """Counts the dropped lines of a writer, by reason."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.gaps: list[int] = []
        self._lock = threading.Lock()

    def count(self, reason: str, lines: int) -> None:
        with self._lock:
            self.counts[reason] += lines

    def writer(self, output: line_writer.Output) -> LineWriter:
        return LineWriter(output, self.count, self.gaps.append)


def test_all_lines_are_written_in_order_before_the_writer_is_closed() -> None:
    disk, drops = Disk(10**9), Drops()
    writer = drops.writer(disk)
    lines = [b"%d\n" % number for number in range(50_000)]
    for line in lines:
        writer.write(line)
    writer.close()
    assert disk.content == b"".join(lines)
    assert not drops.counts


@pytest.mark.parametrize("free", [0, 3, len(LINE), len(LINE) + 3, 2 * len(LINE)])
async def test_full_disk_loses_whole_lines_only_and_writing_resumes(free: int) -> None:
    disk, drops = Disk(free), Drops()
    writer = drops.writer(disk)
    for _ in range(5):
        writer.write(LINE)

    async def is_dropped() -> bool:
        return drops.counts[WRITE_ERROR] == 5 - free // len(LINE)

    await eventually(is_dropped)
    disk.free = 10**6
    writer.write(b"again\n")
    writer.close()
    assert disk.content.count(LINE) == free // len(LINE)
    assert disk.content.endswith(b"\nagain\n" if free else b"again\n")
    assert drops.gaps == [5 - free // len(LINE)]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The two ends of a pipe that holds 4 KiB."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    yield read, write
    os.close(write)


async def test_blocked_reader_holds_up_neither_the_caller_nor_the_end(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_writer, "MAX_QUEUED_BYTES", 100 * len(LINE))
    monkeypatch.setattr(line_writer, "CLOSE_LIMIT_S", 0.01)
    read, write = pipe
    drops = Drops()
    writer = drops.writer(Descriptor(write))
    written = 0
    while not drops.counts[QUEUE_FULL]:
        writer.write(LINE)
        written += 1
    writer.close()
    content = b""
    while content.count(b"\n") < written - drops.counts[QUEUE_FULL]:
        content += os.read(read, 4096)
    os.close(read)
    assert set(content.splitlines(keepends=True)) == {LINE}


def test_line_written_by_a_destructor_within_a_write_does_not_block() -> None:
    """The garbage collector can run at any allocation, and what it destroys can log."""
    disk = Disk(10**6)
    writer = LineWriter(disk)
    with writer._changed:  # as within `write`
        writer.write(b"destroyed\n")
    writer.close()
    assert disk.content == b"destroyed\n"


def settings(**values: int) -> LogSettings:
    return LogSettings(**{"log_file_bytes": 100_000, **values})


def sizes(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in directory.iterdir()}


def test_log_file_is_rotated_by_size_and_a_number_of_older_ones_is_kept(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "um.log", settings(log_files_kept=2))
    for number in range(7):
        file.write(b"%d" % number * 40_000)
    assert sizes(tmp_path) == {"um.log": 40_000, "um.log.1": 80_000, "um.log.2": 80_000}
    assert (tmp_path / "um.log").read_bytes()[:1] == b"6"
    assert (tmp_path / "um.log.2").read_bytes()[:1] == b"2"
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_log_file_without_older_ones_is_begun_again(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "um.log", settings(log_files_kept=0))
    for _ in range(4):
        file.write(bytes(60_000))
    assert sizes(tmp_path) == {"um.log": 60_000}


def test_log_file_of_a_former_week_is_rotated_also_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "um.log"
    LogFile(path, settings()).write(b"former\n")
    week_ago = path.stat().st_mtime - 7 * DAY_S
    os.utime(path, (week_ago, week_ago))
    LogFile(path, settings()).write(b"today\n")
    LogFile(path, settings()).write(b"later\n")
    assert path.read_bytes() == b"today\nlater\n"
    assert (tmp_path / "um.log.1").read_bytes() == b"former\n"


def test_line_that_a_killed_process_began_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "um.log"
    path.write_bytes(b'{"even')
    LogFile(path, settings()).write(LINE)
    assert path.read_bytes() == b'{"even\n' + LINE


def test_log_file_that_was_removed_is_created_again(tmp_path: Path) -> None:
    path = tmp_path / "um.log"
    file = LogFile(path, settings())
    file.write(b"one")
    path.unlink()
    file.write(b"two")
    assert path.read_bytes() == b"two"


def test_descriptors_follow_the_rotated_file(tmp_path: Path) -> None:
    stream = os.open(os.devnull, os.O_WRONLY)
    file = LogFile(tmp_path / "um.log", settings(), (stream,))
    file.write(bytes(90_000))
    os.write(stream, b"of a library\n")
    file.write(b"x" * 90_000)
    os.write(stream, b"Traceback\n")
    os.close(stream)
    assert (tmp_path / "um.log.1").read_bytes().endswith(b"\0of a library\n")
    assert re.fullmatch(rb"x+Traceback\n", (tmp_path / "um.log").read_bytes())
