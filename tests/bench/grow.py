"""Makes a bundle with any number of items from a trained one, to measure scale without more training.

python -m tests.bench.grow BUNDLE PRODUCTS BUNDLES: writes the bundle under BUNDLES and prints its directory.

A grown bundle begins with the original items. Each further item is a twin of one of these: it has the same
brand, shop, category and statistics, a randomly changed popularity and a vector near the original's. All
items are in the vocabulary, as after a training with them, so that models and tables have a realistic size;
histories stay as they are. In a shrunk bundle the items after the first PRODUCTS are removed, each of their
interactions is assigned to one of the remaining items, and models and vocabularies stay as they are.
"""

import argparse
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from msgspec import structs

from ecrs import bundle
from ecrs.bundle import Bundle, Manifest
from ecrs.domain.entities import ITEM_FIELDS, Item
from ecrs.domain.files import format_item, parse_item
from ecrs.features.catalogue import NO_ID
from ecrs.features.encoding import FIRST_KNOWN, Encoder, Vocabulary
from ecrs.rank.tables import ITEM_STATISTICS, save_item_statistics
from ecrs.serving.expected_models import expected_signature
from ecrs_models.evaluation.saved_model import SavedModel
from ecrs_models.export import bundle_writer
from ecrs_models.training.networks import new_networks
from ecrs_models.training.settings import TrainingSettings
from ecrs_models.training.warm_start import WarmStart

SEED = 1
SPREAD = 0.5
"""Standard deviation of the noise added to a twin's embedding, relative to that of the table's values."""


@dataclass(frozen=True)
class RowMapping:
    """How the rows of the old and the new bundle correspond.

    `original`, int64 (new items,): the old row that each new item is, or is a twin of. `new_row`, int64
    (old items,): the new row of each old item.
    """

    original: np.ndarray
    new_row: np.ndarray

    @classmethod
    def of(cls, before: int, products: int) -> "RowMapping":
        return cls(np.arange(products) % before, np.arange(before) % products)


def grow(base: Bundle, products: int, bundles: Path) -> Path:
    """Write `base` with `products` items under `bundles`, make it current there and return its directory."""
    rng = np.random.default_rng(SEED)
    items = [parse_item(line) for line in base.lines("products.dat")]
    mapping = RowMapping.of(len(items), products)
    grown = [_twin(items[row], number // len(items)) for number, row in enumerate(mapping.original.tolist())]
    version = bundle.new_version(f"{base.version} {products}".encode())
    manifest = structs.replace(base.manifest, version=version, grown_from=base.version)
    with bundle.writing(bundles, manifest) as draft:
        encoder = _encoder(base, grown)
        _save_models(base, encoder, manifest, rng, draft)
        encoder.save(draft / "vocabulary")
        for name in ("users.dat", "quantiles.json", "golden.json", "metrics.json"):
            shutil.copyfile(base.path / name, draft / name)
        _write(draft / "products.dat", map(format_item, grown))
        skus = {item.sku: grown[row].sku for item, row in zip(items, mapping.new_row.tolist(), strict=True)}
        _write(draft / "histories.dat", (_history(line, skus) for line in base.lines("histories.dat")))
        _write(draft / "aggregates.dat", (_aggregates(line, skus) for line in base.lines("aggregates.dat")))
        _save_tables(base, mapping, rng, draft / "recall")
        save_item_statistics(np.load(base.path / ITEM_STATISTICS)[mapping.original], draft)
        ids = encoder.item_table({name: [getattr(item, name) for item in grown] for name in ITEM_FIELDS})
        vectors = SavedModel(draft / "item_tower")(ids)
        bundle_writer.write_vectors([item.sku for item in grown], vectors, draft / "product_vectors.txt")
    return bundles / version


def _twin(item: Item, number: int) -> Item:
    return Item(f"{item.sku}-{number}", item.brand, item.shop, item.category) if number else item


def _encoder(base: Bundle, grown: list[Item]) -> Encoder:
    """Return the bundle's encoder with the twins' skus appended, so that no existing id changes."""
    known = base.encoder.vocabularies["sku"].ids
    twins = [item.sku for item in grown[base.count("products.dat") :]]
    sku = Vocabulary(known | {twin: number for number, twin in enumerate(twins, len(known) + FIRST_KNOWN)})
    return Encoder(base.encoder.vocabularies | {"sku": sku})


def _save_models(
    base: Bundle, encoder: Encoder, manifest: Manifest, rng: np.random.Generator, directory: Path
) -> None:
    """Save the models with rows for the twins in their embedding tables.

    In the sku table that both towers share, a twin's embedding is near its original's. In the ranker, twins
    have the weights of unknown skus.
    """
    start = WarmStart.of(base)
    two_tower, ranker = new_networks(encoder, TrainingSettings.read(base.manifest.training))
    start.load_into("two_tower", two_tower, encoder)
    start.load_into("ranker", ranker, encoder)
    table = two_tower.item_tower.sku.weight
    rows = table.numpy()
    known = len(base.encoder.vocabularies["sku"])
    originals = encoder.vocabularies["sku"].encode_all(
        sku.rpartition("-")[0] for sku in list(encoder.vocabularies["sku"].ids)[known - FIRST_KNOWN :]
    )
    noise = rng.normal(scale=SPREAD * rows[FIRST_KNOWN:known].std(), size=(len(originals), rows.shape[1]))
    rows[known:] = rows[originals] + noise
    table.set_value(rows)
    for name, network in (
        ("user_tower", two_tower.user_tower),
        ("item_tower", two_tower.item_tower),
        ("ranker", ranker),
    ):
        bundle_writer.save_model(network, expected_signature(name, manifest, encoder), directory / name)
        bundle_writer.check_golden_rows(SavedModel(directory / name), base.golden[name])


def _save_tables(base: Bundle, mapping: RowMapping, rng: np.random.Generator, directory: Path) -> None:
    directory.mkdir()
    products, before = len(mapping.original), len(mapping.new_row)
    tables = ("similar_items", "similar_scores", "popular")
    items, scores, share = (np.load(base.path / "recall" / f"{name}.npy") for name in tables)
    similar = np.where(items == NO_ID, NO_ID, mapping.new_row[items])[mapping.original]
    # Replace each neighbour by a random one of its twins, so that twins occur as neighbours too.
    twin = similar + before * rng.integers(-(-products // before), size=similar.shape)
    similar = np.where((similar == NO_ID) | (twin >= products), similar, twin)
    np.save(directory / "similar_items.npy", similar.astype(items.dtype))
    np.save(directory / "similar_scores.npy", scores[mapping.original])
    popularity = (
        np.bincount(mapping.new_row, share, products) if products < before else share[mapping.original]
    )
    popularity *= rng.uniform(0.5, 1.5, products)
    np.save(directory / "popular.npy", popularity / popularity.sum())
    shutil.copyfile(base.path / "recall" / "curves.npy", directory / "curves.npy")


def _history(line: str, skus: dict[str, str]) -> str:
    user_id, _, rest = line.partition(":")
    interactions = (part.split(",", 1) for part in rest.split(";") if part)
    return f"{user_id}:" + ";".join(f"{skus[sku]},{details}" for sku, details in interactions)


def _aggregates(line: str, skus: dict[str, str]) -> str:
    user_id, _, text = line.partition(":")
    columns = json.loads(text)
    columns["sku_ids"] = [skus[sku] for sku in columns["sku_ids"]]
    # If two items became one, keep the aggregates of the first.
    rows = sorted({sku: row for row, sku in reversed(list(enumerate(columns["sku_ids"])))}.values())
    columns = {name: [values[row] for row in rows] for name, values in columns.items()}
    return f"{user_id}:" + orjson.dumps(columns).decode()


def _write(path: Path, lines: Iterable[str]) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.grow")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("products", type=int)
    parser.add_argument("bundles", type=Path)
    arguments = parser.parse_args()
    print(grow(Bundle.open(arguments.bundle), arguments.products, arguments.bundles))


if __name__ == "__main__":
    main()
