"""Writes bundles: a draft becomes the current bundle in one step, once it is complete."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ecrs.bundle.errors import BundleError
from ecrs.bundle.files import list_files
from ecrs.bundle.manifest import MANIFEST, Manifest
from ecrs.bundle.opened import Bundle
from ecrs.bundle.trust import sign

CURRENT = "current"


@contextmanager
def writing(bundles: Path, manifest: Manifest) -> Iterator[Path]:
    """Yield a directory to fill with a bundle's files; on success, move it into place as `current`.

    When the context ends, the directory gets its manifest, is checked, renamed to the bundle's version, and
    `current` is pointed at it. Until then the bundle is not visible under `bundles`, and after an error
    nothing is left behind. Raises BundleError if the files cannot be written. `manifest`: as for `seal`.
    """
    with _write_errors(bundles):
        bundles.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=bundles))
    try:
        with _write_errors(bundles):
            yield draft
            seal(draft, manifest)
            Bundle.open(draft)
            draft.chmod(0o755)
            draft.rename(bundles / manifest.version)
            make_current(bundles, manifest.version)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


@contextmanager
def _write_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # numpy reports a full disk without errno: "15000 requested and 5088 written".
        raise BundleError(write_fault(directory, error.strerror or str(error))) from error


def write_fault(directory: Path, reason: str) -> str:
    """Return the error text for files that cannot be written to `directory`, with the free disk space."""
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    return f"{directory}: cannot be written: {reason}, {shutil.disk_usage(existing).free:,} bytes are free"


def make_current(bundles: Path, version: str) -> None:
    """Point the link `current` at `version`, atomically."""
    link = bundles / f".{CURRENT}.new"
    link.unlink(missing_ok=True)
    link.symlink_to(version)
    link.replace(bundles / CURRENT)


def seal(directory: Path, manifest: Manifest) -> None:
    """Write `manifest` into `directory`, its `files` replaced by the files that the directory contains.

    Signs it with this machine's key, see `ecrs.bundle.trust`.
    """
    sealed = msgspec.structs.replace(manifest, files=list_files(directory))
    content = msgspec.json.format(msgspec.json.encode(sealed, order="sorted"), indent=1)
    with open(directory / MANIFEST, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    sign(directory, content)
