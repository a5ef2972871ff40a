"""Bundles of any size for measurements: what is grown must be a bundle, and serve as one."""

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
async def test_a_bundle_of_another_size_serves(tiny: Bundle, tmp_path: Path, products: int) -> None:
    made = Bundle.open(grow(tiny, products, tmp_path))
    assert made.count("products.dat") == made.count("product_vectors.txt") == products
    skus = set(made.catalogue.skus)
    assert len(skus) == products
    async with open_model("inprocess", made, "user_tower") as tower:
        with FaissVectors.load(made) as vectors:
            retriever = Retriever(made, load_candidate_generator(made, made.catalogue), tower, vectors)
            await retriever.check()
            found = await retriever.candidates(golden_users(tiny)[0], 80, Deadline.after(5.0, default_s=5.0))
    assert not found.missing
    assert len(set(found.skus)) == 80
    assert set(found.skus) <= skus
    for name in ("item_tower", "ranker"):
        async with open_model("inprocess", made, name) as model:
            await check_golden(model, made.golden[name], 5.0)


def test_a_twin_is_near_its_original_and_shares_its_make(tiny: Bundle, tmp_path: Path) -> None:
    made = Bundle.open(grow(tiny, 600, tmp_path))
    items = [parse_item(line) for line in made.lines("products.dat")]
    assert items[:300] == [parse_item(line) for line in tiny.lines("products.dat")]
    assert [(item.brand, item.category) for item in items[300:]] == [
        (item.brand, item.category) for item in items[:300]
    ]
    encoder = made.encoder
    assert encoder.vocabularies["sku"].encode(items[300].sku) > len(tiny.encoder.vocabularies["sku"]) - 1
    statistics = load_ranker_inputs(made).statistics
    np.testing.assert_array_equal(statistics[300:], statistics[:300])
    share = np.load(made.path / "recall" / "popular.npy")
    assert share.sum() == pytest.approx(1.0)
    assert (np.load(made.path / "recall" / "similar_items.npy") >= 300).any()
