"""The one description of a trained version: its files, their hashes, and who may read them.

BUNDLES/20261124_041530_1a2b3c4d/
    manifest.json                 version, data set, sha256 and size of every other file
    user_tower/ item_tower/ ranker/   Paddle Serving's layout and signature.json
    vocabulary/*.txt              one value a line
    users.dat products.dat histories.dat aggregates.dat product_vectors.txt
    recall/*.npy                  the channels' tables (ecrs.recall.tables)
    ranking/item_statistics.npy quantiles.json   the ranker's tables (ecrs.rank.tables)
    golden.json                   inputs with the outputs seen at training
    metrics.json
BUNDLES/current -> 20261124_041530_1a2b3c4d
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from ecrs.domain.entities import ITEM_FIELDS
from ecrs.domain.files import parse_item
from ecrs.features.catalogue import Catalogue
from ecrs.features.encoding import Encoder

FORMAT = 4
MANIFEST = "manifest.json"
CURRENT = "current"
MODELS = ("user_tower", "item_tower", "ranker")
FILES = (
    *(f"{model}/{file}" for model in MODELS for file in ("inference.pdmodel", "inference.pdiparams")),
    *(f"{model}/{file}" for model in MODELS for file in ("serving_server_conf.prototxt", "signature.json")),
    "users.dat",
    "products.dat",
    "histories.dat",
    "aggregates.dat",
    *(f"recall/{table}.npy" for table in ("similar_items", "similar_scores", "popular", "curves")),
    "ranking/item_statistics.npy",
    "quantiles.json",
    "product_vectors.txt",
    "golden.json",
    "metrics.json",
)
"""Every bundle has these, and its vocabularies."""

TEXT = (".dat", ".txt")
"""Files whose lines are counted."""

T = TypeVar("T")

_VERSION = re.compile(r"\d{8}_\d{6}_[0-9a-f]{8}")


class BundleError(Exception):
    """The directory is no bundle that can be trusted; the text names the file and the fault."""


def new_version(content: bytes, now: datetime | None = None) -> str:
    """A version that sorts by time and differs by content; letters, digits and `_` only (Milvus)."""
    now = now or datetime.now(UTC)
    return f"{now:%Y%m%d_%H%M%S}_{hashlib.sha256(content).hexdigest()[:8]}"


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk. `open` checks it, so whoever holds one may trust its files."""

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> Self:
        """Open the bundle at `path`, following `current`.

        `verify` compares every file's sha256 with the manifest. Raises BundleError.
        """
        path = Path(path).resolve()
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BundleError(f"no bundle at {path}: {MANIFEST} is missing") from None
        except (OSError, ValueError, RecursionError) as error:
            raise BundleError(f"{path / MANIFEST}: not a manifest: {error}") from error
        bundle = cls.of(path, manifest)
        if verify:
            for name, entry in manifest["files"].items():
                _verify(path, name, entry)
        return bundle

    @classmethod
    def of(cls, path: Path, manifest: Any) -> Self:
        """The bundle that `manifest` speaks of, its files not looked at; BundleError if it is none."""
        where = path / MANIFEST
        if not isinstance(manifest, dict) or not isinstance(files := manifest.get("files"), dict):
            raise BundleError(f"{where}: not a manifest: it lists no files")
        if manifest.get("format") != FORMAT:
            raise BundleError(f"{where}: format {manifest.get('format')}, this code reads {FORMAT}")
        version, as_of = manifest.get("version"), manifest.get("as_of")
        if not isinstance(version, str) or not _VERSION.fullmatch(version):
            raise BundleError(f"{where}: {version!r} is no version")
        for name in FILES:
            if name not in files:
                raise BundleError(f"{where}: {name} is not listed")
        if not isinstance(as_of, int) or as_of < 0:
            raise BundleError(f"{where}: as_of {as_of!r} is no moment")
        for name, entry in files.items():
            if not _is_entry(name, entry):
                raise BundleError(f"{where}: {name} is listed without its sha256, bytes and lines")
        return cls(path, manifest)

    @property
    def version(self) -> str:
        return self.manifest["version"]

    @property
    def as_of(self) -> int:
        """Cutoff time of the histories, aggregates, item statistics and tables, Unix seconds."""
        return self.manifest["as_of"]

    @cached_property
    def catalogue(self) -> Catalogue:
        """BundleError for a line that is no product, a sku that is there twice, and no products at all."""
        skus: list[str] = []

        def ids() -> Iterator[int]:
            for item in self.records("products.dat", parse_item):
                skus.append(item.sku)
                yield from self.encoder.item_row(item)

        # One by one: a million items at a time are 260 MB that the process never gives back.
        table = np.fromiter(ids(), dtype=np.int64).reshape(-1, len(ITEM_FIELDS))
        catalogue = Catalogue.of(skus, table)
        path = self.path / "products.dat"
        if not skus:
            raise BundleError(f"{path}: no lines")
        if len(catalogue.row) < len(skus):
            twice = next(sku for row, sku in enumerate(skus) if catalogue.row[sku] != row)
            raise BundleError(f"{path}:{catalogue.row[twice] + 1}: sku {twice!r} is there twice")
        return catalogue

    @cached_property
    def encoder(self) -> Encoder:
        return Encoder.load(self.path / "vocabulary")

    @cached_property
    def golden(self) -> dict[str, Any]:
        """Per model, rows of `ids` and the `outputs` seen at training; `users` and `items` raw."""
        return json.loads((self.path / "golden.json").read_text(encoding="utf-8"))

    @cached_property
    def metrics(self) -> dict[str, Any]:
        return json.loads((self.path / "metrics.json").read_text(encoding="utf-8"))

    def lines(self, name: str) -> Iterator[str]:
        """The lines of a text file of the bundle, without their ends; BundleError if it is not UTF-8."""
        with open(self.path / name, encoding="utf-8") as file:
            try:
                for line in file:
                    yield line.rstrip("\n")
            except UnicodeDecodeError as error:
                raise BundleError(f"{self.path / name}: not UTF-8: {error.reason}") from error

    def records(self, name: str, parse: Callable[[str], T]) -> Iterator[T]:
        """The lines of a text file as `parse` reads them; BundleError names the line that it cannot."""
        for number, line in enumerate(self.lines(name), 1):
            try:
                yield parse(line)
            except ValueError as error:
                raise BundleError(f"{self.path / name}:{number}: {error}") from error

    def count(self, name: str) -> int:
        """Lines of a text file, as the manifest says."""
        return self.manifest["files"][name]["lines"]


@contextmanager
def writing(bundles: Path, version: str, about: dict[str, Any]) -> Iterator[Path]:
    """A directory to fill with a bundle's files; sealed, moved into place and made `current` at the end.

    Nothing is visible under `bundles` until everything is there; after an error nothing is left. BundleError
    where the disk does not take it.
    `about` goes into the manifest (data set, dimensions, settings).
    """
    bundles.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=bundles))
    try:
        yield draft
        seal(draft, version, about)
        Bundle.open(draft)
        draft.chmod(0o755)
        draft.rename(bundles / version)
    except OSError as error:
        # numpy's words for a full disk are "15000 requested and 5088 written".
        free = shutil.disk_usage(bundles).free
        shutil.rmtree(draft, ignore_errors=True)
        why = f"{error.strerror or error}, {free:,} bytes are free"
        raise BundleError(f"{bundles}: the bundle cannot be written: {why}") from error
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    make_current(bundles, version)


def make_current(bundles: Path, version: str) -> None:
    """Point `current` at a version, in one step."""
    link = bundles / f".{CURRENT}.new"
    link.unlink(missing_ok=True)
    link.symlink_to(version)
    link.replace(bundles / CURRENT)


def seal(directory: Path, version: str, about: dict[str, Any]) -> None:
    """Write the manifest of the files that are there."""
    files = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            entry: dict[str, Any] = {"sha256": _sha256(path), "bytes": path.stat().st_size}
            if path.suffix in TEXT:
                with open(path, "rb") as file:
                    entry["lines"] = sum(1 for _ in file)
            files[path.relative_to(directory).as_posix()] = entry
    manifest = {"format": FORMAT, "version": version, **about, "files": files}
    text = json.dumps(manifest, indent=1, sort_keys=True)
    with open(directory / MANIFEST, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _is_entry(name: str, entry: Any) -> bool:
    """Whether the manifest says of a file what is asked of it."""
    if not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str):
        return False
    numbers = ("bytes", "lines") if Path(name).suffix in TEXT else ("bytes",)
    return all(isinstance(entry.get(number), int) and entry[number] >= 0 for number in numbers)


def _verify(root: Path, name: str, entry: dict[str, Any]) -> None:
    path = root / name
    if not path.is_file():
        raise BundleError(f"{path} is missing")
    if path.stat().st_size != entry["bytes"]:
        raise BundleError(f"{path}: {path.stat().st_size} bytes, the manifest says {entry['bytes']}")
    if _sha256(path) != entry["sha256"]:
        raise BundleError(f"{path}: its sha256 is not the manifest's: the file was changed or damaged")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
