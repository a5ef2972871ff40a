"""The ranker's tables in a bundle.

quantiles.json                of the ranker's features (ecrs.features.quantiles)
ranking/item_statistics.npy   float32, (items, STATISTICS), rows of products.dat, NaN for items never sold
"""

from pathlib import Path

import numpy as np

from ecrs.bundle import Bundle, BundleError
from ecrs.features.quantiles import Quantiles
from ecrs.features.ranker_input import RankerInputBuilder
from ecrs.features.ranking import STATISTICS

ITEM_STATISTICS = "ranking/item_statistics.npy"


def load_ranker_inputs(bundle: Bundle) -> RankerInputBuilder:
    """The builder of the ranker's input with a bundle's tables.

    The statistics stay in the page cache, shared by all processes. Raises BundleError if they are not a row
    for each item of the catalogue.
    """
    path = bundle.path / ITEM_STATISTICS
    # As a plain array on the mapped file: numpy's memmap class makes each of its slices a memmap.
    statistics = np.asarray(np.load(path, mmap_mode="r"))
    expected = (len(bundle.catalogue), len(STATISTICS))
    if statistics.shape != expected:
        raise BundleError(f"{path}: shape {statistics.shape}, expected {expected}")
    quantiles = Quantiles.load(bundle.path / "quantiles.json")
    return RankerInputBuilder(bundle.encoder, bundle.catalogue, quantiles, statistics)


def save_item_statistics(statistics: np.ndarray, bundle_dir: Path) -> None:
    """Write the statistics of all items, in the order of products.dat, into the bundle at `bundle_dir`."""
    path = bundle_dir / ITEM_STATISTICS
    path.parent.mkdir()
    np.save(path, statistics)
