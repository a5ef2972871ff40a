"""The recall channels' tables in a bundle.

recall/
    similar_items.npy   int32, (products, neighbours), rows of products.dat, NO_ID fills up
    similar_scores.npy  float32, of the same shape, best first
    popular.npy         float64, (products,), share of the recent sales
    curves.npy          float32, (CHANNELS, DEPTH), how often a position of a channel is right
"""

from pathlib import Path

import numpy as np

from ecrs.bundle import Bundle
from ecrs.features.catalogue import NO_ID, Catalogue
from ecrs.features.encoding import ITEM_GROUPS
from ecrs.recall.blending import CandidateGenerator
from ecrs.recall.channels import PopularItems, SimilarItems, most_sold


def load_candidate_generator(bundle: Bundle, catalogue: Catalogue) -> CandidateGenerator:
    """The channels of a bundle; the large tables stay in the page cache, shared by all processes."""
    directory = bundle.path / "recall"
    # As plain arrays on the mapped files: numpy's memmap class makes each of its slices a memmap.
    similar = [
        np.asarray(np.load(directory / f"similar_{name}.npy", mmap_mode="r")) for name in ("items", "scores")
    ]
    popular = popular_channel(catalogue, np.load(directory / "popular.npy"))
    return CandidateGenerator(catalogue, SimilarItems(*similar), popular, np.load(directory / "curves.npy"))


def save_candidate_generator(generator: CandidateGenerator, directory: Path) -> None:
    directory.mkdir(parents=True)
    np.save(directory / "similar_items.npy", generator.similar.item)
    np.save(directory / "similar_scores.npy", generator.similar.score)
    np.save(directory / "popular.npy", generator.popular.share)
    np.save(directory / "curves.npy", generator.curves)


def popular_channel(catalogue: Catalogue, share: np.ndarray) -> PopularItems:
    """From each product's share of sales; products of no known category are one category, the last."""
    category = catalogue.groups[:-1, ITEM_GROUPS.index("category")]
    count = int(category.max(initial=NO_ID)) + 1
    category = np.where(category == NO_ID, count, category)
    return PopularItems(share, category, np.bincount(category, share, count + 1), most_sold(share))
