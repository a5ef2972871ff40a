"""A data set of a small shop, and a bundle trained on it in seconds, for all tests.

60 users, 300 products, about 4,000 actions in 100 days. Each user mostly orders products of one
category, and some of them repeatedly. User "8888" and the products "99654" and "12048" exist;
user "1" is `1:5.0:1.0:5.0:20.0:176.0:1933.0` and product "1" is `1:3456:6980:70`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from msgspec import structs

from ecrs.bundle import MANIFEST, Bundle, Manifest, seal
from ecrs.domain.actions import ActionType
from ecrs.domain.clock import DAY_S
from ecrs.domain.entities import ITEM_FIELDS
from ecrs_models.data.dataset import (
    ACTION_SCHEMA,
    ACTIONS,
    PRODUCTS,
    USER_COLUMNS,
    USERS,
    Dataset,
    write_about,
    write_table,
)
from ecrs_models.data.split import Split

if TYPE_CHECKING:
    from ecrs_models.training.settings import TrainingSettings

FIRST_DAY = 1_700_006_400
DAYS = 100
CATEGORIES = 10


def tiny_data(directory: Path, seed: int = 7) -> Path:
    """Write the data set to `directory`, which must not exist yet; return `directory`."""
    rng = np.random.default_rng(seed)
    user_ids = ["1", "8888", *(str(number) for number in range(100, 158))]
    skus = ["1", "99654", "12048", *(str(number) for number in range(2000, 2297))]
    users = [("1", "5.0", "1.0", "5.0", "20.0", "176.0", "1933.0")]
    for number, user in enumerate(user_ids[1:]):
        values = (1 + number % 6, number % 2, 1 + number % 5, 1 + number % 30, 1 + number % 9, number % 7)
        users.append((user, *(f"{value}.0" for value in values)))
    users[2] = ("100", *["-1"] * 6)
    items = [("1", "3456", "6980", "70")]
    for number, sku in enumerate(skus[1:], 1):
        items.append((sku, str(10 + number % 17), str(500 + number % 23), str(70 + number % CATEGORIES)))

    rows = []
    for user, user_id in enumerate(user_ids):
        preferred = np.flatnonzero(np.arange(len(skus)) % CATEGORIES == user % CATEGORIES)
        favourites = rng.choice(preferred, 5, replace=False)
        for _ in range(rng.integers(8, 24)):
            ts = FIRST_DAY + int(rng.integers(DAYS * DAY_S))
            chosen = [*rng.choice(favourites, 2), rng.choice(preferred), rng.integers(len(skus))]
            for item in chosen[: rng.integers(2, 5)]:
                kind = ActionType.ORDER if rng.random() < 0.7 else ActionType.VIEW
                rows.append((user_id, skus[item], ts, int(kind)))
    rows += [("8888", sku, FIRST_DAY + day * DAY_S, 2) for day, sku in enumerate(["99654", "12048", "1"])]
    rows += [("1", "1", FIRST_DAY + day * DAY_S, 2) for day in range(60)]  # more than a history holds
    actions = pl.DataFrame(rows, ACTION_SCHEMA, orient="row").sort("ts", maintain_order=True)

    directory.mkdir(parents=True)
    write_table(pl.DataFrame(users, USER_COLUMNS, orient="row"), directory / USERS)
    write_table(pl.DataFrame(items, ITEM_FIELDS, orient="row"), directory / PRODUCTS)
    actions.write_parquet(directory / ACTIONS)
    counts = {"users": len(users), "products": len(items), "actions": actions.height}
    split = Split.suggest(FIRST_DAY, FIRST_DAY + DAYS * DAY_S - 1)
    write_about(directory, name="tiny", source="tests/tiny.py", split=split, counts=counts)
    return directory


def tiny_bundle(tmp_path: Path, *, seed: int = 1) -> Path:
    """Train on `tiny_data` and export; return the bundle's directory, `tmp_path/bundles/VERSION`."""
    from ecrs_models.export import bundle_writer  # paddle takes a second to import
    from ecrs_models.training import pipeline

    data = Dataset.load(tiny_data(tmp_path / "data"))
    pipeline.train(data, tmp_path / "train", tiny_settings(data, seed))
    version = bundle_writer.export(pipeline.load(tmp_path / "train"), data, tmp_path / "bundles")
    return tmp_path / "bundles" / version


def resealed(path: Path) -> Bundle:
    """Update and sign the manifest of the bundle at `path` for its present files, and open the bundle."""
    seal(path, Manifest.parse((path / MANIFEST).read_bytes(), path / MANIFEST))
    return Bundle.open(path)


def as_version(bundle: Bundle, version: str = "20991231_000000_ffffffff", **changed: Any) -> Bundle:
    """Return the bundle with the same files, but another version and the `changed` fields in its manifest."""
    return Bundle(bundle.path, structs.replace(bundle.manifest, version=version, **changed))


def tiny_settings(data: Dataset, seed: int = 1, **changed: Any) -> "TrainingSettings":
    """Return settings with small batches, so that a thousand rows make several steps."""
    from ecrs_models.training.settings import TrainingSettings

    small = {"tower_batch": 256, "ranker_batch": 256, **changed}
    return TrainingSettings(until=data.split.test_from, window_s=data.split.window_s, seed=seed, **small)
