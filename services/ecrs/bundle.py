"""Model bundles. A bundle is one trained version: its models and tables, with a hash of each file.

BUNDLES/20261124_041530_1a2b3c4d/
    manifest.json                 version, data set, sha256 and size of every other file
    user_tower/ item_tower/ ranker/   Paddle Serving's layout and signature.json
    vocabulary/*.txt              one value per line
    users.dat products.dat histories.dat aggregates.dat product_vectors.txt
    recall/*.npy                  the retrieval channels' tables (ecrs.recall.tables)
    ranking/item_statistics.npy quantiles.json   the ranker's tables (ecrs.rank.tables)
    golden.json                   inputs and outputs of the models at training
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
"""Version of the layout of a bundle. Bundles of another format are refused."""

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
"""Files that every bundle must have, besides its vocabularies."""

TEXT = (".dat", ".txt")
"""Suffixes of the files whose lines the manifest counts."""

T = TypeVar("T")

NonNegative = Annotated[int, msgspec.Meta(ge=0)]


class BundleError(Exception):
    """A bundle or one of its files is missing or invalid, or cannot be written; the text names the file."""


class FileEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file of a bundle; `lines` is set if its suffix is in TEXT."""

    sha256: str
    bytes: NonNegative
    lines: NonNegative | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The content of manifest.json: the description of a bundle, and its files by path.

    `as_of`: cutoff time, in Unix seconds, of everything computed from the log. `data`: name, source, counts
    and split of the data set. `training`: the settings of the training. `dim`: dimension of the vectors.
    `temperature`: of the softmax that the towers were trained with. `grown_from`: for a bundle enlarged for
    benchmarks, the version that it was made from.
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
    def parse(cls, content: bytes, path: Path) -> Self:
        """Decode a manifest. Raises BundleError, naming `path` and the field, unless it is complete."""
        try:
            if (file_format := _FORMAT.decode(content).format) != FORMAT:
                raise BundleError(f"{path}: format {file_format}, this code reads {FORMAT}")
            manifest = msgspec.json.decode(content, type=cls)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise BundleError(f"{path}: {error}") from error
        for name in FILES:
            if name not in manifest.files:
                raise BundleError(f"{path}: {name} is not listed")
        for name, entry in manifest.files.items():
            if Path(name).suffix in TEXT and entry.lines is None:
                raise BundleError(f"{path}: {name} is listed without a line count")
        return manifest


class _Format(msgspec.Struct):
    format: int


_FORMAT = msgspec.json.Decoder(_Format)
"""Reads only the format, because the other fields depend on it."""


def new_version(content: bytes, now: datetime | None = None) -> str:
    """Return a version that sorts by time and differs by `content`.

    It consists of digits, letters and `_`, because Milvus allows nothing else in the name of a collection.
    """
    now = now or datetime.now(UTC)
    return f"{now:%Y%m%d_%H%M%S}_{hashlib.sha256(content).hexdigest()[:8]}"


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk; `open` checks and returns it."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True) -> Self:
        """Open the bundle at `path`, which may be the link `current`.

        With `verify`, compares the size and sha256 of every file with the manifest. Raises BundleError if the
        bundle is missing, damaged or of another format.
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
        """The bundle's version, such as 20261124_041530_1a2b3c4d."""
        return self.manifest.version

    @property
    def as_of(self) -> int:
        """Cutoff time of the histories, aggregates, item statistics and tables, in Unix seconds."""
        return self.manifest.as_of

    @cached_property
    def catalogue(self) -> Catalogue:
        """The items of `products.dat`.

        Raises BundleError for a line that is not an item, a sku that appears twice, and an empty file.
        """
        skus: list[str] = []

        def ids() -> Iterator[int]:
            for item in self.records("products.dat", parse_item):
                skus.append(item.sku)
                yield from self.encoder.item_row(item)

        # Encode items one by one: a million items at a time take 260 MB that the process never frees.
        table = np.fromiter(ids(), dtype=np.int64).reshape(-1, len(ITEM_FIELDS))
        catalogue = Catalogue.of(skus, table)
        path = self.path / "products.dat"
        if not skus:
            raise BundleError(f"{path}: no lines")
        if len(catalogue.row) < len(skus):
            duplicate = next(sku for row, sku in enumerate(skus) if catalogue.row[sku] != row)
            raise BundleError(f"{path}:{catalogue.row[duplicate] + 1}: sku {duplicate!r} appears twice")
        return catalogue

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder with the bundle's vocabularies."""
        return Encoder.load(self.path / "vocabulary")

    @cached_property
    def golden(self) -> dict[str, Any]:
        """golden.json: for each model, rows of `ids` and their `outputs` at training.

        `users`, `items` and `provenance` are the records from which `ids` were encoded, as of `now`.
        """
        return json.loads((self.path / "golden.json").read_text(encoding="utf-8"))

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """metrics.json: the results of the evaluation at export, or the reason that there are none."""
        return json.loads((self.path / "metrics.json").read_text(encoding="utf-8"))

    def lines(self, name: str) -> Iterator[str]:
        """Yield the lines of a text file, without their line ends. Raises BundleError if it is not UTF-8."""
        with open(self.path / name, encoding="utf-8") as file:
            try:
                for line in file:
                    yield line.rstrip("\n")
            except UnicodeDecodeError as error:
                raise BundleError(f"{self.path / name}: not UTF-8: {error.reason}") from error

    def records(self, name: str, parse: Callable[[str], T]) -> Iterator[T]:
        """Yield the lines of a text file, parsed. Raises BundleError naming the line that `parse` refuses."""
        for number, line in enumerate(self.lines(name), 1):
            try:
                yield parse(line)
            except ValueError as error:
                raise BundleError(f"{self.path / name}:{number}: {error}") from error

    def count(self, name: str) -> int:
        """Return the number of lines of a text file, according to the manifest."""
        return self.manifest.files[name].lines or 0


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
    """Write `manifest` into `directory`, its `files` replaced by the files that the directory contains."""
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
        raise BundleError(f"{path}: {path.stat().st_size} bytes, the manifest lists {entry.bytes}")
    if _sha256(path) != entry.sha256:
        raise BundleError(f"{path}: its sha256 differs from the manifest: the file was changed or damaged")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
