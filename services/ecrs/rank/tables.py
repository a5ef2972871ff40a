"""Loads and saves the ranker's tables in a bundle.

quantiles.json                quantiles of the ranker's features (ecrs.features.quantiles)
ranking/item_statistics.npy   float32, (items, STATISTICS), rows of products.dat, NaN for items never sold
"""

from pathlib import Path

import numpy as np

from ecrs.bundle import Bundle
from ecrs.features.ranker_input import RankerInputBuilder
from ecrs.features.ranking import STATISTICS

ITEM_STATISTICS = "ranking/item_statistics.npy"


def load_ranker_inputs(bundle: Bundle) -> RankerInputBuilder:
    """Build the ranker's input builder with a bundle's tables.

    The statistics are memory-mapped, so that all processes share them. Raises BundleError if they do not have
    one row for each item of the catalogue, or if another table is malformed.
    """
    shape = (len(bundle.catalogue), len(STATISTICS))
    statistics = bundle.array(ITEM_STATISTICS, "float32", shape, mapped=True)
    return RankerInputBuilder(bundle.encoder, bundle.catalogue, bundle.quantiles, statistics)


def save_item_statistics(statistics: np.ndarray, bundle_dir: Path) -> None:
    """Write item statistics, float32, shape (items, STATISTICS), into the bundle at `bundle_dir`.

    The rows must be in the order of products.dat.
    """
    path = bundle_dir / ITEM_STATISTICS
    path.parent.mkdir()
    np.save(path, statistics)
