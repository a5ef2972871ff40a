"""Loads and saves the tables of the retrieval channels in a bundle.

recall/
    similar_items.npy   int32, (items, neighbours), rows of products.dat, best first, padded with NO_ID
    similar_scores.npy  float32, the same shape
    popular.npy         float64, (items,), share of recent sales
    curves.npy          float32, (CHANNELS, DEPTH), position-precision curves
"""

from pathlib import Path

import numpy as np

from ecrs.bundle import Bundle
from ecrs.bundle.arrays import FINITE
from ecrs.features.catalogue import NO_ID, Catalogue
from ecrs.features.encoding import ITEM_GROUPS
from ecrs.features.ranking import CHANNELS
from ecrs.recall.blending import DEPTH, CandidateGenerator
from ecrs.recall.channels import PopularItems, SimilarItems, most_sold


def load_candidate_generator(bundle: Bundle, catalogue: Catalogue) -> CandidateGenerator:
    """Load the channels of a bundle. The large tables are memory-mapped, so that all processes share them.

    Raises BundleError for a table of another type or shape, and for values outside their range.
    """
    items = len(catalogue)
    neighbours = bundle.array(
        "recall/similar_items.npy", "int32", (items, None), values=(NO_ID, items - 1), mapped=True
    )
    scores = bundle.array(
        "recall/similar_scores.npy", "float32", neighbours.shape, values=FINITE, mapped=True
    )
    popular = popular_channel(catalogue, bundle.sales_shares())
    return CandidateGenerator(catalogue, SimilarItems(neighbours, scores), popular, load_curves(bundle))


def load_curves(bundle: Bundle) -> np.ndarray:
    """Load the position-precision curves: float32, shape (CHANNELS, DEPTH), from 0 to less than 1."""
    shape, below_one = (len(CHANNELS), DEPTH), float(np.nextafter(np.float32(1), np.float32(0)))
    return bundle.array("recall/curves.npy", "float32", shape, values=(0, below_one))


def save_candidate_generator(generator: CandidateGenerator, directory: Path) -> None:
    """Write the tables of `generator` into `directory`, which must not exist yet."""
    directory.mkdir(parents=True)
    np.save(directory / "similar_items.npy", generator.similar.item)
    np.save(directory / "similar_scores.npy", generator.similar.score)
    np.save(directory / "popular.npy", generator.popular.share)
    np.save(directory / "curves.npy", generator.curves)


def popular_channel(catalogue: Catalogue, share: np.ndarray) -> PopularItems:
    """Build the popular channel from each item's share of sales, float64, shape (items,).

    Items without a known category form a category of their own, the last one.
    """
    category = catalogue.groups[:-1, ITEM_GROUPS.index("category")]
    count = int(category.max(initial=NO_ID)) + 1
    category = np.where(category == NO_ID, count, category)
    return PopularItems(share, category, np.bincount(category, share, count + 1), most_sold(share))
