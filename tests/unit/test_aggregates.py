"""User-item aggregates, computed from a whole log and updated action by action."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ecrs.domain.actions import ActionType, Interaction
from ecrs.domain.aggregates import AGGREGATE_COLUMNS, LONG_S, MAX_PRODUCTS, SHORT_S, Aggregates
from ecrs.domain.clock import DAY_S
from ecrs.storage.records import dump_aggregates, load_aggregates
from ecrs.wire.messages import from_aggregates, to_aggregates
from ecrs_models.data.log import Log
from ecrs_models.snapshots.aggregates import aggregate_by_user


def row(aggregates: Aggregates, sku: str) -> dict[str, float]:
    return dict(zip(AGGREGATE_COLUMNS, aggregates.numbers[aggregates.skus.index(sku)].tolist(), strict=True))


def test_purchases_decay_exponentially_to_the_last_one() -> None:
    aggregates = Aggregates().plus(
        [Interaction("a", 0 * DAY_S + 1), Interaction("a", 1), Interaction("a", 30 * DAY_S + 1)]
    )
    assert row(aggregates, "a") == pytest.approx({
        "orders": 2, "first_order": 1, "last_order": 30 * DAY_S + 1,
        "short": 1 + np.exp(-1), "long": 1 + np.exp(-0.25),
        "engagements": 0, "last_engagement": 0, "engagement": 0,
    })  # fmt: skip


def test_other_actions_are_weighted_engagements() -> None:
    aggregates = Aggregates().plus(
        [Interaction("a", 5, ActionType.VIEW), Interaction("a", 5, ActionType.CART)]
    )
    assert row(aggregates, "a") == pytest.approx(
        dict.fromkeys(AGGREGATE_COLUMNS, 0) | {"engagements": 2, "last_engagement": 5, "engagement": 1.2}
    )


def test_out_of_order_action_keeps_the_last_time() -> None:
    aggregates = Aggregates().plus([Interaction("a", 100)]).plus([Interaction("a", 50)])
    assert row(aggregates, "a")["last_order"] == 100


def test_only_the_newest_products_are_kept() -> None:
    aggregates = Aggregates().plus(Interaction(str(ts), ts) for ts in range(1, MAX_PRODUCTS + 11))
    assert len(aggregates) == MAX_PRODUCTS
    assert aggregates.skus[0] == str(MAX_PRODUCTS + 10)
    assert "10" not in aggregates.skus


ACTIONS = st.tuples(
    st.integers(0, 2), st.integers(0, 4), st.integers(1, 400 * DAY_S), st.sampled_from([1, 2, 3, 4, 5])
)


@given(st.lists(ACTIONS, min_size=1, max_size=40))
@example([(0, 0, 1, int(ActionType.VIEW))])  # a log without orders
def test_aggregates_of_a_log_equal_updates_by_action(
    actions: list[tuple[int, int, int, int]],
) -> None:
    user, item, ts, kind = (np.array(column) for column in zip(*actions, strict=True))
    log = Log.of(user.astype(np.int32), item.astype(np.int32), ts, kind.astype(np.int8), 3)
    table = aggregate_by_user(log, items=5)
    for number in range(3):
        own = [Interaction(str(i), t, ActionType(k)) for u, i, t, k in actions if u == number]
        aggregates = Aggregates().plus(own)
        items, numbers = table.of(number)
        assert dict(zip(items.tolist(), numbers.tolist(), strict=True)) == {
            int(sku): pytest.approx(values)
            for sku, values in zip(aggregates.skus, aggregates.numbers.tolist(), strict=True)
        }


@given(st.lists(ACTIONS, max_size=20))
def test_aggregates_survive_store_and_wire_exactly(
    actions: list[tuple[int, int, int, int]],
) -> None:
    aggregates = Aggregates().plus(Interaction(str(i), t, ActionType(k)) for _, i, t, k in actions)
    assert to_aggregates(from_aggregates(aggregates)) == aggregates
    assert load_aggregates("any", dump_aggregates(aggregates)) == aggregates


def test_decay_time_scales_are_30_and_120_days() -> None:
    assert (SHORT_S, LONG_S) == (30 * DAY_S, 120 * DAY_S)
