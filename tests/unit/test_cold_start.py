"""Cold-start items among the candidates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecrs.domain.provenance import ProvenanceTable
from ecrs.recall.candidates import RetrievedCandidates
from ecrs.recall.channels import Interest, PopularItems
from ecrs.recall.cold_start import best_cold_start_items, with_cold_start_items
from ecrs.storage.vectors import NO_NEIGHBOURS, Neighbours

FOOD, TOYS, NO_CATEGORY = range(3)
POPULAR = PopularItems(np.array([0.5, 0.5]), np.array([FOOD, TOYS]), np.array([0.5, 0.5, 0.0]), np.arange(2))
FOOD_BUYER = Interest(np.array([0]), np.array([200.0]), np.array([0.0]))
NO_INTEREST = Interest(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
IN_FOOD, IN_TOYS, IN_UNKNOWN = 2, 3, 1
"""Vocabulary ids of the categories; 1 is out of vocabulary."""
TEMPERATURE = 0.07


def neighbours(*results: tuple[str, float, int]) -> Neighbours:
    skus, distance, cold_start_category = zip(*results, strict=True)
    return Neighbours(list(skus), np.array(distance, dtype=np.float32), np.array(cold_start_category))


def blended_candidates(skus: list[str], score: list[float]) -> RetrievedCandidates:
    return RetrievedCandidates(
        skus, np.array(score), ProvenanceTable.empty(len(skus), ["repurchase", "vector"])
    )


def test_cold_start_items_are_ordered_by_category_affinity() -> None:
    near = neighbours(
        ("toy", 1.0, IN_TOYS),
        ("uncategorised", 1.0, IN_UNKNOWN),
        ("bread", 1.02, IN_FOOD),
        ("cake", 1.01, IN_FOOD),
    )
    selected = best_cold_start_items(near, FOOD_BUYER, POPULAR, TEMPERATURE, 3)
    assert selected.skus == ["cake", "bread", "toy"]
    assert selected.provenance.positions.tolist() == [[1], [2], [3]]
    assert (np.diff(selected.score) >= 0).all()


def test_new_user_gets_nearest_cold_start_items() -> None:
    near = neighbours(("toy", 1.0, IN_TOYS), ("bread", 1.1, IN_FOOD))
    assert best_cold_start_items(near, NO_INTEREST, POPULAR, TEMPERATURE, 2).skus == ["toy", "bread"]


def test_category_missing_from_bundle_is_accepted() -> None:
    assert best_cold_start_items(neighbours(("new", 1.0, 99)), FOOD_BUYER, POPULAR, TEMPERATURE, 2).skus == [
        "new"
    ]
    assert len(best_cold_start_items(NO_NEIGHBOURS, FOOD_BUYER, POPULAR, TEMPERATURE, 2)) == 0


@given(
    st.permutations(range(30)),
    st.lists(st.integers(0, 45), max_size=5, unique=True),
    st.integers(20, 40),
)
def test_all_cold_start_items_are_candidates_without_duplicates(
    order: list[int], new: list[int], n: int
) -> None:
    blended = blended_candidates(
        [str(sku) for sku in order], [position / 100 for position in range(30)]
    ).first(n)
    cold_start = RetrievedCandidates.alone("cold_start", [str(sku) for sku in new], np.full(len(new), 9.0))
    selected = with_cold_start_items(blended, cold_start, n)
    assert len(set(selected.skus)) == len(selected) == min(n, len({*blended.skus, *cold_start.skus}))
    assert set(cold_start.skus) <= set(selected.skus)
    assert selected.score.tolist() == sorted(selected.score)
    assert len(selected) == len(selected.score) == len(selected.provenance)
    added = set(cold_start.skus) - set(blended.skus[: n - len(new)])
    entries = selected.provenance.entries()
    assert {sku for sku, channels in zip(selected.skus, entries, strict=True) if channels} == added
    if not new:
        assert selected.skus == blended.skus


@pytest.mark.parametrize("n", [1, 19])
def test_without_cold_start_items_candidates_stay_unchanged(n: int) -> None:
    selected = with_cold_start_items(
        blended_candidates(["a"], [0.1]), RetrievedCandidates.alone("cold_start", [], np.zeros(0)), n
    )
    assert (selected.skus, selected.score.tolist()) == (["a"], [0.1])
