"""The description of a bundle: manifest.json, and the files that a bundle has."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Self, TypedDict

import msgspec

from ecrs.bundle.errors import BundleError
from ecrs.domain.entities import MAX_TIMESTAMP
from ecrs.features.encoding import VOCABULARIES

FORMAT = 5
"""Version of the layout of a bundle. Bundles of another format are refused."""

MANIFEST = "manifest.json"
MODELS = ("user_tower", "item_tower", "ranker")
FILES = (
    *(f"{model}/{file}" for model in MODELS for file in ("inference.pdmodel", "inference.pdiparams")),
    *(f"{model}/{file}" for model in MODELS for file in ("serving_server_conf.prototxt", "signature.json")),
    "users.dat",
    "products.dat",
    "histories.dat",
    "aggregates.dat",
    *(f"vocabulary/{name}.txt" for name in VOCABULARIES),
    *(f"recall/{table}.npy" for table in ("similar_items", "similar_scores", "popular", "curves")),
    "ranking/item_statistics.npy",
    "quantiles.json",
    "product_vectors.txt",
    "golden.json",
    "metrics.json",
)
"""Files that every bundle must have."""

TEXT = (".dat", ".txt")
"""Suffixes of the files whose lines the manifest counts."""

MAX_MANIFEST_BYTES = 1 << 20
MAX_FILE_BYTES = 1 << 36
MAX_BYTES = {".json": 1 << 24, ".pdmodel": 1 << 20, ".prototxt": 1 << 12}
"""Largest sizes of files by suffix, and of the others. Files of these suffixes are read as a whole; they do
not grow with the shop, and a hundredth of these sizes is usual."""

NonNegative = Annotated[int, msgspec.Meta(ge=0)]
Text = Annotated[str, msgspec.Meta(max_length=1000)]
FileName = Annotated[str, msgspec.Meta(max_length=200, pattern=r"\A\w[\w.-]*(/\w[\w.-]*)*\Z")]
"""A path inside the bundle. No part of it begins with a dot."""


class FileEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file of a bundle; `lines` is set if its suffix is in TEXT."""

    sha256: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    bytes: Annotated[int, msgspec.Meta(ge=0, le=MAX_FILE_BYTES)]
    lines: NonNegative | None = None


class DataAbout(TypedDict):
    """The data set that a bundle was made from."""

    name: Text
    source: Text
    counts: dict[Text, NonNegative]
    split: dict[Text, int]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The content of manifest.json: the description of a bundle, and its files by path.

    `as_of`: cutoff time, in Unix seconds, of everything computed from the log. `data`: name, source, counts
    and split of the data set. `training`: the settings of the training. `dim`: dimension of the vectors.
    `temperature`: of the softmax that the towers were trained with. `grown_from`: for a bundle enlarged for
    benchmarks, the version that it was made from.
    """

    format: int
    version: Annotated[str, msgspec.Meta(pattern=r"\A\d{8}_\d{6}_[0-9a-f]{8}\Z")]
    as_of: Annotated[int, msgspec.Meta(ge=0, le=MAX_TIMESTAMP)]
    data: DataAbout
    training: dict[str, Any]
    dim: Annotated[int, msgspec.Meta(ge=1, le=4096)]
    temperature: Annotated[float, msgspec.Meta(gt=0)]
    history_length: NonNegative
    grown_from: str | None = None
    files: dict[FileName, FileEntry] = {}

    @classmethod
    def parse(cls, content: bytes, path: Path) -> Self:
        """Decode a manifest. Raises BundleError, naming `path` and the field, unless it is complete."""
        try:
            if (file_format := _FORMAT.decode(content).format) != FORMAT:
                raise BundleError(f"{path}: format {file_format}, this code reads {FORMAT}")
            manifest = msgspec.json.decode(content, type=cls)
            json.loads(content, object_pairs_hook=_distinct)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise BundleError(f"{path}: {error}") from error
        for name in FILES:
            if name not in manifest.files:
                raise BundleError(f"{path}: {name} is not listed")
        for name, entry in manifest.files.items():
            suffix = Path(name).suffix
            if suffix in TEXT and entry.lines is None:
                raise BundleError(f"{path}: {name} is listed without a line count")
            if entry.bytes > (limit := MAX_BYTES.get(suffix, MAX_FILE_BYTES)):
                raise BundleError(f"{path}: {name} has {entry.bytes} bytes, the limit is {limit}")
        return manifest


class _Format(msgspec.Struct):
    format: int


_FORMAT = msgspec.json.Decoder(_Format)
"""Reads only the format, because the other fields depend on it."""


def _distinct(pairs: list[tuple[str, Any]]) -> None:
    """Raise ValueError if a JSON object has a key twice, of which decoders silently take the last."""
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise ValueError(f"{key!r} appears twice")
        seen.add(key)


def new_version(content: bytes, now: datetime | None = None) -> str:
    """Return a version that sorts by time and differs by `content`.

    It consists of digits, letters and `_`, because Milvus allows nothing else in the name of a collection.
    """
    now = now or datetime.now(UTC)
    return f"{now:%Y%m%d_%H%M%S}_{hashlib.sha256(content).hexdigest()[:8]}"
