"""A model bundle: one trained version, its files and their hashes.

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
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import msgspec
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

NonNegative = Annotated[int, msgspec.Meta(ge=0)]


class BundleError(Exception):
    """The bundle, or one of its files, is missing or invalid; the text names the file and the fault."""


class FileEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file of a bundle; `lines` is set for those in TEXT."""

    sha256: str
    bytes: NonNegative
    lines: NonNegative | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """manifest.json: what a bundle is, and its files by path.

    `as_of`: cutoff time of everything computed from the log, Unix seconds. `data`: name, source, counts and
    split of the data set. `training`: the settings of the training. `dim`: width of the vectors.
    `temperature`: of the softmax that the towers were trained with. `grown_from`: the version that a bundle
    of another size was made from, for measurements.
    """

    format: int
    version: Annotated[str, msgspec.Meta(pattern=r"\A\d{8}_\d{6}_[0-9a-f]{8}\Z")]
    as_of: NonNegative
    data: dict[str, Any]
    training: dict[str, Any]
    dim: NonNegative
    temperature: Annotated[float, msgspec.Meta(gt=0)]
    history_length: NonNegative
    grown_from: str | None = None
    files: dict[str, FileEntry] = {}

    @classmethod
    def parse(cls, content: bytes, where: Path) -> Self:
        """Decode a manifest. Raises BundleError, with `where` and the field, unless it is complete."""
        try:
            if (found := _FORMAT.decode(content).format) != FORMAT:
                raise BundleError(f"{where}: format {found}, this code reads {FORMAT}")
            manifest = msgspec.json.decode(content, type=cls)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise BundleError(f"{where}: {error}") from error
        for name in FILES:
            if name not in manifest.files:
                raise BundleError(f"{where}: {name} is not listed")
        for name, entry in manifest.files.items():
            if Path(name).suffix in TEXT and entry.lines is None:
                raise BundleError(f"{where}: {name} is listed without its lines")
        return manifest


class _Format(msgspec.Struct):
    format: int


_FORMAT = msgspec.json.Decoder(_Format)
"""Reads the format of a manifest whose other fields may be those of another format."""


def new_version(content: bytes, now: datetime | None = None) -> str:
    """A version that sorts by time and differs by content; letters, digits and `_` only (Milvus)."""
    now = now or datetime.now(UTC)
    return f"{now:%Y%m%d_%H%M%S}_{hashlib.sha256(content).hexdigest()[:8]}"


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk, checked by `open`."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> Self:
        """Open the bundle at `path`, following `current`.

        `verify` compares every file's size and sha256 with the manifest. Raises BundleError.
        """
        path = Path(path).resolve()
        try:
            content = (path / MANIFEST).read_bytes()
        except FileNotFoundError:
            raise BundleError(f"no bundle at {path}: {MANIFEST} is missing") from None
        except OSError as error:
            raise BundleError(f"{path / MANIFEST}: {error.strerror}") from error
        bundle = cls(path, Manifest.parse(content, path / MANIFEST))
        if verify:
            for name, entry in bundle.manifest.files.items():
                _verify(path / name, entry)
        return bundle

    @property
    def version(self) -> str:
        return self.manifest.version

    @property
    def as_of(self) -> int:
        """Cutoff time of the histories, aggregates, item statistics and tables, Unix seconds."""
        return self.manifest.as_of

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
        """The number of lines of a text file."""
        return self.manifest.files[name].lines or 0


@contextmanager
def writing(bundles: Path, manifest: Manifest) -> Iterator[Path]:
    """A directory to fill with a bundle's files, at the end sealed, moved into place and made `current`.

    Nothing is visible under `bundles` before that, and nothing is left after an error. Raises BundleError if
    the files cannot be written. `manifest`: as for `seal`.
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
    """The text of an error for files that cannot be written to `directory`, with the bytes that are free."""
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    return f"{directory}: cannot be written: {reason}, {shutil.disk_usage(existing).free:,} bytes are free"


def make_current(bundles: Path, version: str) -> None:
    """Point `current` at a version, in one step."""
    link = bundles / f".{CURRENT}.new"
    link.unlink(missing_ok=True)
    link.symlink_to(version)
    link.replace(bundles / CURRENT)


def seal(directory: Path, manifest: Manifest) -> None:
    """Write `manifest` with the files that `directory` has now in place of its own."""
    (directory / MANIFEST).unlink(missing_ok=True)
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    files = {path.relative_to(directory).as_posix(): _entry(path) for path in paths}
    sealed = msgspec.structs.replace(manifest, files=files)
    with open(directory / MANIFEST, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(sealed, order="sorted"), indent=1))
        file.flush()
        os.fsync(file.fileno())


def _entry(path: Path) -> FileEntry:
    lines = None
    if path.suffix in TEXT:
        with open(path, "rb") as file:
            lines = sum(1 for _ in file)
    return FileEntry(_sha256(path), path.stat().st_size, lines)


def _verify(path: Path, entry: FileEntry) -> None:
    if not path.is_file():
        raise BundleError(f"{path} is missing")
    if path.stat().st_size != entry.bytes:
        raise BundleError(f"{path}: {path.stat().st_size} bytes, the manifest says {entry.bytes}")
    if _sha256(path) != entry.sha256:
        raise BundleError(f"{path}: its sha256 is not the manifest's: the file was changed or damaged")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
