"""Newcomers among the candidates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecrs.domain.provenance import ProvenanceTable
from ecrs.recall.candidates import RetrievedCandidates
from ecrs.recall.channels import Interest, PopularItems
from ecrs.recall.cold_start import best_cold_start_items, with_cold_start_items
from ecrs.storage.vectors import NO_NEIGHBOURS, Neighbours

FOOD, TOYS, NAMELESS = range(3)
POPULAR = PopularItems(np.array([0.5, 0.5]), np.array([FOOD, TOYS]), np.array([0.5, 0.5, 0.0]), np.arange(2))
EATS = Interest(np.array([0]), np.array([200.0]), np.array([0.0]))
NOTHING = Interest(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
IN_FOOD, IN_TOYS, IN_UNKNOWN = 2, 3, 1
"""Vocabulary ids of the categories."""
TEMPERATURE = 0.07


def neighbours(*found: tuple[str, float, int]) -> Neighbours:
    skus, distance, cold_start_category = zip(*found, strict=True)
    return Neighbours(list(skus), np.array(distance, dtype=np.float32), np.array(cold_start_category))


def merged_as(skus: list[str], score: list[float]) -> RetrievedCandidates:
    return RetrievedCandidates(
        skus, np.array(score), ProvenanceTable.empty(len(skus), ["repurchase", "vector"])
    )


def test_a_user_gets_the_newcomers_of_the_categories_that_the_user_likes() -> None:
    near = neighbours(
        ("toy", 1.0, IN_TOYS),
        ("nameless", 1.0, IN_UNKNOWN),
        ("bread", 1.02, IN_FOOD),
        ("cake", 1.01, IN_FOOD),
    )
    found = best_cold_start_items(near, EATS, POPULAR, TEMPERATURE, 3)
    assert found.skus == ["cake", "bread", "toy"]
    assert found.provenance.positions.tolist() == [[1], [2], [3]]
    assert (np.diff(found.score) >= 0).all()


def test_a_new_user_gets_the_nearest() -> None:
    near = neighbours(("toy", 1.0, IN_TOYS), ("bread", 1.1, IN_FOOD))
    assert best_cold_start_items(near, NOTHING, POPULAR, TEMPERATURE, 2).skus == ["toy", "bread"]


def test_a_category_that_no_product_of_the_bundle_has_is_taken() -> None:
    assert best_cold_start_items(neighbours(("new", 1.0, 99)), EATS, POPULAR, TEMPERATURE, 2).skus == ["new"]
    assert len(best_cold_start_items(NO_NEIGHBOURS, EATS, POPULAR, TEMPERATURE, 2)) == 0


@given(
    st.permutations(range(30)),
    st.lists(st.integers(0, 45), max_size=5, unique=True),
    st.integers(20, 40),
)
def test_all_newcomers_are_among_the_candidates_and_nothing_is_twice(
    order: list[int], new: list[int], n: int
) -> None:
    merged = merged_as([str(sku) for sku in order], [place / 100 for place in range(30)]).first(n)
    newcomers = RetrievedCandidates.alone("cold_start", [str(sku) for sku in new], np.full(len(new), 9.0))
    found = with_cold_start_items(merged, newcomers, n)
    assert len(set(found.skus)) == len(found) == min(n, len({*merged.skus, *newcomers.skus}))
    assert set(newcomers.skus) <= set(found.skus)
    assert found.score.tolist() == sorted(found.score)
    assert len(found) == len(found.score) == len(found.provenance)
    late = set(newcomers.skus) - set(merged.skus[: n - len(new)])
    said = found.provenance.entries()
    assert {sku for sku, of in zip(found.skus, said, strict=True) if of} == late
    if not new:
        assert found.skus == merged.skus


@pytest.mark.parametrize("n", [1, 19])
def test_without_room_the_merged_stay_as_they_are(n: int) -> None:
    found = with_cold_start_items(
        merged_as(["a"], [0.1]), RetrievedCandidates.alone("cold_start", [], np.zeros(0)), n
    )
    assert (found.skus, found.score.tolist()) == (["a"], [0.1])
