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
from ecrs.features.catalogue import NO_ID, Catalogue
from ecrs.features.encoding import ITEM_GROUPS
from ecrs.recall.blending import CandidateGenerator
from ecrs.recall.channels import PopularItems, SimilarItems, most_sold


def load_candidate_generator(bundle: Bundle, catalogue: Catalogue) -> CandidateGenerator:
    """Load the channels of a bundle. The large tables are memory-mapped, so that all processes share them."""
    directory = bundle.path / "recall"
    # As plain arrays on the mapped files: slices of numpy's memmap class would be memmap objects again.
    similar = [
        np.asarray(np.load(directory / f"similar_{name}.npy", mmap_mode="r")) for name in ("items", "scores")
    ]
    popular = popular_channel(catalogue, np.load(directory / "popular.npy"))
    return CandidateGenerator(catalogue, SimilarItems(*similar), popular, np.load(directory / "curves.npy"))


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
