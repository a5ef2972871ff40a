"""The files of a bundle on disk: which there are, their sizes and hashes, and JSON in them."""

import hashlib
import json
import os
from pathlib import Path
from typing import TypeVar

import msgspec

from ecrs.bundle.errors import BundleError
from ecrs.bundle.manifest import MANIFEST, TEXT, FileEntry, Manifest
from ecrs.bundle.trust import SIGNATURE

T = TypeVar("T")

CHUNK_BYTES = 1 << 18
MAX_DEPTH = 4
"""Most directories inside one another that are searched for files."""


def check_files(directory: Path, manifest: Manifest) -> None:
    """Raise BundleError unless `directory` contains the listed files, each as listed, and nothing else."""
    try:
        found = _files(directory)
        for name, entry in manifest.files.items():
            path = directory / name
            if name not in found:
                raise BundleError(f"{path} is missing")
            if (size := path.stat().st_size) != entry.bytes:
                raise BundleError(f"{path}: {size} bytes, the manifest lists {entry.bytes}")
            actual = file_entry(path)
            if actual.sha256 != entry.sha256:
                raise BundleError(
                    f"{path}: its sha256 differs from the manifest: the file was changed or damaged"
                )
            if actual.lines != entry.lines:
                raise BundleError(f"{path}: {actual.lines} lines, the manifest lists {entry.lines}")
    except OSError as error:
        raise BundleError(f"{error.filename or directory}: {error.strerror}") from error
    if extra := found - manifest.files.keys():
        raise BundleError(f"{directory / min(extra)}: {MANIFEST} does not list it")


def list_files(directory: Path) -> dict[str, FileEntry]:
    """Return an entry for each file in a bundle's directory, except for the manifest and its signature."""
    return {name: file_entry(directory / name) for name in sorted(_files(directory))}


def _files(directory: Path, prefix: str = "") -> set[str]:
    """Return the paths of the files below a directory. Links and devices among them raise BundleError."""
    names: set[str] = set()
    with os.scandir(directory) as entries:
        for entry in entries:
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False) and name.count("/") < MAX_DEPTH:
                names |= _files(Path(entry.path), f"{name}/")
            elif entry.is_file(follow_symlinks=False):
                names.add(name)
            else:
                raise BundleError(f"{entry.path} is neither a file nor a directory of a bundle")
    return names if prefix else names - {MANIFEST, SIGNATURE}


def file_entry(path: Path) -> FileEntry:
    """Return what the manifest says about a file."""
    digest, size, lines, last = hashlib.sha256(), 0, 0, b"\n"
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            if path.suffix in TEXT:
                lines += chunk.count(b"\n")
                last = chunk[-1:]
    return FileEntry(digest.hexdigest(), size, lines + (last != b"\n") if path.suffix in TEXT else None)


def read_json(path: Path, kind: type[T]) -> T:
    """Read a JSON file with content of type `kind`. Raises BundleError if it is anything else."""
    try:
        return msgspec.convert(json.loads(path.read_bytes()), kind)
    except (OSError, ValueError, RecursionError, msgspec.ValidationError) as error:
        raise BundleError(f"{path}: {error}") from error
