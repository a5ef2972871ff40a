"""Disks that are really full: small tmpfs mounts, which require root."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

Disk = Callable[[int], Path]
"""Makes a directory on a new disk of the given size in KiB."""


@contextmanager
def small_disks(directory: Path) -> Iterator[Disk]:
    """Yield a function that mounts disks in `directory`; they are unmounted at the end."""
    mounted: list[Path] = []

    def mount(kib: int) -> Path:
        path = directory / f"disk-{len(mounted)}"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no small disk without root: {done.stderr.strip()}")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(disk: Path, *, leave: int) -> Path:
    """Write a file that leaves `leave` bytes free on the disk; return its path."""
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        with suppress(OSError):
            while True:
                file.write(bytes(4096))
        file.truncate(file.tell() - leave)
    return filler
