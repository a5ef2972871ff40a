"""Newcomers among the candidates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecrs.recall.channels import Interest, Popular
from ecrs.recall.domain import Candidate
from ecrs.recall.newcomers import best_newcomers, with_newcomers
from ecrs.recall.vectors import Neighbour

FOOD, TOYS, NAMELESS = range(3)
POPULAR = Popular(np.array([0.5, 0.5]), np.array([FOOD, TOYS]), np.array([0.5, 0.5, 0.0]), np.arange(2))
EATS = Interest(np.array([0]), np.array([200.0]), np.array([0.0]))
NOTHING = Interest(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
IN_FOOD, IN_TOYS, IN_UNKNOWN = 2, 3, 1
"""Vocabulary ids of the categories."""


def skus(candidates: list[Candidate]) -> list[str]:
    return [candidate.sku for candidate in candidates]


def test_a_user_gets_the_newcomers_of_the_categories_that_the_user_likes() -> None:
    near = [Neighbour("toy", 1.0, IN_TOYS), Neighbour("nameless", 1.0, IN_UNKNOWN)]
    near += [Neighbour("bread", 1.02, IN_FOOD), Neighbour("cake", 1.01, IN_FOOD)]
    found = best_newcomers(near, EATS, POPULAR, 3)
    assert skus(found) == ["cake", "bread", "toy"]
    assert [source.position for one in found for source in one.sources] == [1, 2, 3]
    assert [one.score for one in found] == sorted(one.score for one in found)


def test_a_new_user_gets_the_nearest() -> None:
    near = [Neighbour("toy", 1.0, IN_TOYS), Neighbour("bread", 1.1, IN_FOOD)]
    assert skus(best_newcomers(near, NOTHING, POPULAR, 2)) == ["toy", "bread"]


def test_a_category_that_no_product_of_the_bundle_has_is_taken() -> None:
    assert skus(best_newcomers([Neighbour("new", 1.0, 99)], EATS, POPULAR, 2)) == ["new"]
    assert best_newcomers([], EATS, POPULAR, 2) == []


@given(
    st.permutations(range(30)),
    st.lists(st.integers(0, 45), max_size=5, unique=True),
    st.integers(20, 40),
)
def test_all_newcomers_are_among_the_candidates_and_nothing_is_twice(
    order: list[int], new: list[int], n: int
) -> None:
    merged = [Candidate(str(sku), place / 100, ()) for place, sku in enumerate(order)][:n]
    newcomers = [Candidate(str(sku), 9.0, ()) for sku in new]
    found = with_newcomers(merged, newcomers, n)
    assert len(set(skus(found))) == len(found) == min(n, len({*skus(merged), *map(str, new)}))
    assert set(skus(newcomers)) <= set(skus(found))
    assert [one.score for one in found] == sorted(one.score for one in found)
    if not new:
        assert found == merged


@pytest.mark.parametrize("n", [1, 19])
def test_without_room_the_merged_stay_as_they_are(n: int) -> None:
    merged = [Candidate("a", 0.1, ())]
    assert with_newcomers(merged, [], n) == merged
