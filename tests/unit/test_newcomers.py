"""Newcomers among the candidates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecrs.recall.channels import Interest, Popular
from ecrs.recall.domain import Candidates
from ecrs.recall.newcomers import best_newcomers, with_newcomers
from ecrs.recall.vectors import NO_NEIGHBOURS, Neighbours
from ecrs.sources import Sources

FOOD, TOYS, NAMELESS = range(3)
POPULAR = Popular(np.array([0.5, 0.5]), np.array([FOOD, TOYS]), np.array([0.5, 0.5, 0.0]), np.arange(2))
EATS = Interest(np.array([0]), np.array([200.0]), np.array([0.0]))
NOTHING = Interest(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
IN_FOOD, IN_TOYS, IN_UNKNOWN = 2, 3, 1
"""Vocabulary ids of the categories."""


def neighbours(*found: tuple[str, float, int]) -> Neighbours:
    skus, distance, new_in = zip(*found, strict=True)
    return Neighbours(list(skus), np.array(distance, dtype=np.float32), np.array(new_in))


def merged_as(skus: list[str], score: list[float]) -> Candidates:
    return Candidates(skus, np.array(score), Sources.silent(len(skus), ["again", "vector"]))


def test_a_user_gets_the_newcomers_of_the_categories_that_the_user_likes() -> None:
    near = neighbours(
        ("toy", 1.0, IN_TOYS),
        ("nameless", 1.0, IN_UNKNOWN),
        ("bread", 1.02, IN_FOOD),
        ("cake", 1.01, IN_FOOD),
    )
    found = best_newcomers(near, EATS, POPULAR, 3)
    assert found.skus == ["cake", "bread", "toy"]
    assert found.sources.positions.tolist() == [[1], [2], [3]]
    assert (np.diff(found.score) >= 0).all()


def test_a_new_user_gets_the_nearest() -> None:
    near = neighbours(("toy", 1.0, IN_TOYS), ("bread", 1.1, IN_FOOD))
    assert best_newcomers(near, NOTHING, POPULAR, 2).skus == ["toy", "bread"]


def test_a_category_that_no_product_of_the_bundle_has_is_taken() -> None:
    assert best_newcomers(neighbours(("new", 1.0, 99)), EATS, POPULAR, 2).skus == ["new"]
    assert len(best_newcomers(NO_NEIGHBOURS, EATS, POPULAR, 2)) == 0


@given(
    st.permutations(range(30)),
    st.lists(st.integers(0, 45), max_size=5, unique=True),
    st.integers(20, 40),
)
def test_all_newcomers_are_among_the_candidates_and_nothing_is_twice(
    order: list[int], new: list[int], n: int
) -> None:
    merged = merged_as([str(sku) for sku in order], [place / 100 for place in range(30)]).best(n)
    newcomers = Candidates.alone("new", [str(sku) for sku in new], np.full(len(new), 9.0))
    found = with_newcomers(merged, newcomers, n)
    assert len(set(found.skus)) == len(found) == min(n, len({*merged.skus, *newcomers.skus}))
    assert set(newcomers.skus) <= set(found.skus)
    assert found.score.tolist() == sorted(found.score)
    assert len(found) == len(found.score) == len(found.sources)
    late = set(newcomers.skus) - set(merged.skus[: n - len(new)])
    said = found.sources.proposed()
    assert {sku for sku, of in zip(found.skus, said, strict=True) if of} == late
    if not new:
        assert found.skus == merged.skus


@pytest.mark.parametrize("n", [1, 19])
def test_without_room_the_merged_stay_as_they_are(n: int) -> None:
    found = with_newcomers(merged_as(["a"], [0.1]), Candidates.alone("new", [], np.zeros(0)), n)
    assert (found.skus, found.score.tolist()) == (["a"], [0.1])
