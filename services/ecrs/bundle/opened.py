"""A bundle on disk, and what is read from it."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypedDict, TypeVar

import numpy as np

from ecrs.bundle.arrays import Range, Shape, read_array
from ecrs.bundle.errors import BundleError
from ecrs.bundle.files import check_files, read_json
from ecrs.bundle.manifest import MANIFEST, MAX_MANIFEST_BYTES, Manifest
from ecrs.bundle.trust import check_signature
from ecrs.domain.entities import ITEM_FIELDS
from ecrs.domain.files import parse_item
from ecrs.features.catalogue import Catalogue
from ecrs.features.encoding import VOCABULARIES, Encoder
from ecrs.features.quantiles import Quantiles

T = TypeVar("T")


class GoldenRows(TypedDict):
    """Inputs of a model, and the outputs of the trained network for them."""

    ids: list[list[int]]
    outputs: list[list[float]]


class Golden(TypedDict):
    """The content of golden.json.

    `users`, `items` and `provenance` are the records from which the models' `ids` were encoded, as of `now`.
    """

    now: int
    users: list[dict[str, Any]]
    items: list[dict[str, Any]]
    provenance: list[Any]
    user_tower: GoldenRows
    item_tower: GoldenRows
    ranker: GoldenRows


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk; `open` checks and returns it."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open the bundle at `path`, which may be the link `current`.

        Raises BundleError if the bundle is missing, damaged or of another format, if its directory contains
        anything that its manifest does not list, and UntrustedBundle unless a trusted key has signed it.
        """
        path = Path(os.path.realpath(path))
        manifest = path / MANIFEST
        try:
            with open(manifest, "rb") as file:
                content = file.read(MAX_MANIFEST_BYTES + 1)
        except FileNotFoundError:
            raise BundleError(f"no bundle at {path}: {MANIFEST} is missing") from None
        except OSError as error:
            raise BundleError(f"{manifest}: {error.strerror}") from error
        if len(content) > MAX_MANIFEST_BYTES:
            raise BundleError(f"{manifest}: more than {MAX_MANIFEST_BYTES} bytes")
        bundle = cls(path, Manifest.parse(content, manifest))
        check_signature(path, content)
        check_files(path, bundle.manifest)
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
        """The encoder with the bundle's vocabularies. Raises BundleError if one of them is malformed."""
        return self._encoder(VOCABULARIES)

    @cached_property
    def item_encoder(self) -> Encoder:
        """The encoder of items alone, which takes a fraction of the memory."""
        return self._encoder(ITEM_FIELDS)

    def cold_start_categories(self, skus: Sequence[str], categories: Iterable[str]) -> list[int]:
        """Return each item's category as the vector store holds it.

        That is its vocabulary id for a cold-start item, which the bundle does not have, and 0 for others.
        """
        encode, known = self.encoder.vocabularies["category"].encode, self.catalogue.row
        return [
            0 if sku in known else encode(category) for sku, category in zip(skus, categories, strict=True)
        ]

    def _encoder(self, names: Sequence[str]) -> Encoder:
        try:
            return Encoder.load(self.path / "vocabulary", names)
        except (OSError, ValueError) as error:
            raise BundleError(str(error)) from error

    @cached_property
    def quantiles(self) -> Quantiles:
        """The quantiles of the ranker's features. Raises BundleError if the file is malformed."""
        path = self.path / "quantiles.json"
        try:
            return Quantiles.of(read_json(path, dict[str, list[float]]))
        except ValueError as error:
            raise BundleError(f"{path}: {error}") from error

    @cached_property
    def golden(self) -> Golden:
        """golden.json. Raises BundleError if it is malformed."""
        return read_json(self.path / "golden.json", Golden)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """metrics.json: the results of the evaluation at export, or the reason that there are none."""
        return read_json(self.path / "metrics.json", dict[str, Any])

    def array(
        self, name: str, dtype: str, shape: Shape, *, values: Range | None = None, mapped: bool = False
    ) -> np.ndarray:
        """Read a table of numbers, see `read_array`. Raises BundleError if it is not as expected."""
        return read_array(self.path / name, dtype, shape, values=values, mapped=mapped)

    def sales_shares(self) -> np.ndarray:
        """Read each item's share of recent sales: float64, shape (items,), from 0 to 1."""
        return self.array("recall/popular.npy", "float64", (self.count("products.dat"),), values=(0, 1))

    def lines(self, name: str) -> Iterator[str]:
        """Yield the lines of a text file, without their line ends. Raises BundleError if it is not UTF-8."""
        try:
            with open(self.path / name, encoding="utf-8") as file:
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
