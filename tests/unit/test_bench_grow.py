"""Bundles that are resized for benchmarks stay valid and can be served."""

from pathlib import Path

import numpy as np
import pytest

from ecrs.bundle import Bundle
from ecrs.domain.files import parse_item
from ecrs.rank.tables import load_ranker_inputs
from ecrs.recall.retriever import Retriever
from ecrs.recall.tables import load_candidate_generator
from ecrs.rpc.deadlines import Deadline
from ecrs.serving.models import open_model
from ecrs.serving.served_model import check_golden
from ecrs.storage.faiss_vectors import FaissVectors
from tests.bench.grow import grow
from tests.golden import golden_users


@pytest.mark.parametrize("products", [100, 1000])
async def test_bundle_of_another_size_can_be_served(tiny: Bundle, tmp_path: Path, products: int) -> None:
    grown = Bundle.open(grow(tiny, products, tmp_path))
    assert grown.count("products.dat") == grown.count("product_vectors.txt") == products
    skus = set(grown.catalogue.skus)
    assert len(skus) == products
    async with open_model("inprocess", grown, "user_tower") as tower:
        with FaissVectors.load(grown) as vectors:
            retriever = Retriever(grown, load_candidate_generator(grown, grown.catalogue), tower, vectors)
            await retriever.check()
            candidates = await retriever.candidates(
                golden_users(tiny)[0], 80, Deadline.after(5.0, default_s=5.0)
            )
    assert not candidates.missing
    assert len(set(candidates.skus)) == 80
    assert set(candidates.skus) <= skus
    for name in ("item_tower", "ranker"):
        async with open_model("inprocess", grown, name) as model:
            await check_golden(model, grown.golden[name], 5.0)


def test_added_items_share_attributes_and_statistics_of_existing_ones(tiny: Bundle, tmp_path: Path) -> None:
    grown = Bundle.open(grow(tiny, 600, tmp_path))
    items = [parse_item(line) for line in grown.lines("products.dat")]
    assert items[:300] == [parse_item(line) for line in tiny.lines("products.dat")]
    assert [(item.brand, item.category) for item in items[300:]] == [
        (item.brand, item.category) for item in items[:300]
    ]
    encoder = grown.encoder
    assert encoder.vocabularies["sku"].encode(items[300].sku) > len(tiny.encoder.vocabularies["sku"]) - 1
    statistics = load_ranker_inputs(grown).statistics
    np.testing.assert_array_equal(statistics[300:], statistics[:300])
    share = np.load(grown.path / "recall" / "popular.npy")
    assert share.sum() == pytest.approx(1.0)
    assert (np.load(grown.path / "recall" / "similar_items.npy") >= 300).any()
