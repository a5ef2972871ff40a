"""Evaluation results and their differences to baselines, slices of users and products, and gates."""

import numpy as np
import pytest

from ecrs.domain.clock import DAY_S
from ecrs_models.evaluation.bootstrap import Interval
from ecrs_models.evaluation.period import EvaluationPeriod
from ecrs_models.evaluation.results import BEST_POSSIBLE, OURS, RETRIEVAL, RankingResults
from ecrs_models.evaluation.slices import Gate, by_history, gates, history_names, new_products
from tests.unit.test_training import log_of


def period(*rows: tuple[int, int, int], users: int = 2, items: int = 6, start: int = 100) -> EvaluationPeriod:
    """Return a period that begins on day `start`; each row is (user, item, day)."""
    log = log_of(*((user, item, day * DAY_S) for user, item, day in rows), users=users)
    catalogue = np.zeros(items, dtype=bool)
    catalogue[log.item] = True
    return EvaluationPeriod(log, log, {}, catalogue, start * DAY_S)


def lists(**recommenders: dict[int, list[int]]) -> dict[str, dict[int, np.ndarray]]:
    return {
        name: {user: np.array(items) for user, items in lists.items()} for name, lists in recommenders.items()
    }


TRUTH = {0: np.array([1, 2]), 1: np.array([3])}


def test_means_and_differences_match_hand_computed_values() -> None:
    results = RankingResults(TRUTH, lists(popularity={0: [1, 9], 1: [3]}) | lists(ECRS={0: [1, 2], 1: [3]}))
    assert results.means()["popularity"]["recall@20"] == pytest.approx(0.75)
    assert results.means()[OURS]["recall@20"] == 1
    better = results.against()
    assert list(better) == ["popularity"]
    assert better["popularity"]["recall@20"].mean == pytest.approx(0.25)
    assert (better["popularity"]["recall@20"].low, better["popularity"]["recall@20"].high) == (0, 0.5)


def test_own_stages_and_best_possible_are_no_baselines() -> None:
    same = {0: [1], 1: [3]}
    named = {name: lists(x=same)["x"] for name in (OURS, RETRIEVAL, BEST_POSSIBLE)}
    assert RankingResults(TRUTH, named).against() == {}


def test_share_of_best_possible_is_a_ratio_of_means() -> None:
    best = lists(x={0: [1, 2], 1: [9]})["x"]
    ours = lists(x={0: [1], 1: [9]})["x"]
    results = RankingResults(TRUTH, {OURS: ours, BEST_POSSIBLE: best})
    assert results.reached()["recall@20"].mean == pytest.approx(0.5)
    assert RankingResults(TRUTH, {OURS: ours}).reached() == {}


def test_users_are_sliced_by_distinct_products() -> None:
    """User 0 bought 49 products, one of them twice; user 1 bought 50."""
    rows = [(0, item, 1) for item in range(49)] + [(0, 0, 2)] + [(1, item, 1) for item in range(50)]
    parts = by_history(RankingResults(TRUTH, {}), period(*rows, items=60))
    assert {name: list(part.truth) for name, part in parts.items()} == {"under 50": [0], "50 to 199": [1]}
    assert list(history_names()) == ["under 50", "50 to 199", "200 to 499", "500 and more"]


def test_new_products_were_first_sold_in_the_last_four_weeks() -> None:
    """Item 0 was sold earlier too, 1 on the first day of the four weeks, 2 on the day before, 5 never."""
    new = new_products(period((0, 0, 50), (0, 0, 90), (1, 1, 72), (1, 2, 71), start=100))
    assert np.flatnonzero(new).tolist() == [1]


def test_restricting_the_items_drops_users_without_any_of_them() -> None:
    results = RankingResults(TRUTH, lists(ECRS={0: [2, 1], 1: [3]}))
    restricted = results.wanting(np.isin(np.arange(6), [1]))
    assert {user: items.tolist() for user, items in restricted.truth.items()} == {0: [1]}
    assert restricted.means()[OURS]["ndcg@20"] == pytest.approx(1 / np.log2(3))


@pytest.mark.parametrize(
    ("low", "high", "passed"), [(-0.2, 0.1, True), (-0.2, -0.1, False), (-0.1, 0, True), (0.1, 0.2, True)]
)
def test_gate_fails_only_if_the_rival_is_significantly_better(low: float, high: float, passed: bool) -> None:
    gate = Gate("profile alone", "popularity", Interval((low + high) / 2, low, high))
    assert gate.passed is passed
    assert ("passed" if passed else "FAILED") in str(gate)


def test_gates_compare_each_kind_of_new_user_with_the_rival() -> None:
    better = RankingResults(TRUTH, lists(popularity={0: [9], 1: [9]}) | lists(ECRS={0: [1, 2], 1: [3]}))
    worse = RankingResults(TRUTH, lists(popularity={0: [1, 2], 1: [3]}) | lists(ECRS={0: [9], 1: [9]}))
    results = gates({"session": better, "profile": worse}, "popularity")
    assert [(gate.name, gate.passed) for gate in results] == [("session", True), ("profile", False)]
