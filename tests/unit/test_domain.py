"""The domain's entities, read from and written to file lines and wire messages."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecrs.contract.user_info_pb2 import Interaction as InteractionInfo
from ecrs.contract.user_info_pb2 import UserInfo
from ecrs.domain.actions import ActionType, Interaction
from ecrs.domain.entities import HISTORY_LENGTH, MAX_TIMESTAMP, Item, User
from ecrs.domain.files import format_history, format_item, format_user, parse_history, parse_item, parse_user
from ecrs.domain.provenance import ProvenanceTable
from ecrs.wire.messages import describes_user, from_item, from_user, to_item, to_user

values = st.text(
    st.characters(
        exclude_characters=":\r\n\x85\u2028\u2029", exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")
    ),
    min_size=1,
)
interactions = st.builds(
    Interaction, sku=values, ts=st.integers(0, MAX_TIMESTAMP), type=st.sampled_from(list(ActionType))
)
users = st.builds(
    User,
    id=values.filter(lambda value: value not in {"0", "-1"}),
    age=values, sex=values, city_level=values, province=values, city=values, county=values,
    history=st.lists(interactions, max_size=5).map(tuple),
)  # fmt: skip
items = st.builds(Item, sku=values, brand=values, shop=values, category=values)


def test_file_lines_of_the_original_parse() -> None:
    assert parse_user("1:5.0:1.0:5.0:20.0:176.0:1933.0\n") == User(
        "1", "5.0", "1.0", "5.0", "20.0", "176.0", "1933.0"
    )
    assert parse_item("1:3456:6980:70") == Item("1", "3456", "6980", "70")


def test_empty_value_becomes_unknown() -> None:
    assert parse_user("7::1.0:::3.0:").age == "-1"


@pytest.mark.parametrize(
    ("line", "reason"),
    [("1:2:3", "expected 4 fields"), ("1:2:3:4:5", "found 5"), (":2:3:4", "sku is empty"), ("", "found 1")],
)
def test_malformed_product_line_raises_with_reason(line: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_item(line)


@pytest.mark.parametrize("text", ["order", "ORDER", "2", " 2 "])
def test_action_type_parses_name_or_jdata_number(text: str) -> None:
    assert ActionType.parse(text) is ActionType.ORDER


@pytest.mark.parametrize("text", ["", "0", "6", "bought", "unknown", "2.0"])
def test_invalid_action_type_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="none of view"):
        ActionType.parse(text)


@given(users)
def test_user_survives_wire_round_trip(user: User) -> None:
    assert to_user(UserInfo.FromString(from_user(user).SerializeToString())) == user


@given(items)
def test_item_survives_wire_round_trip(item: Item) -> None:
    assert to_item(from_item(item)) == item


@given(users, items)
def test_user_and_item_lines_read_back_as_written(user: User, item: Item) -> None:
    assert parse_item(format_item(item)) == item
    assert parse_user(format_user(user)).id == user.id


@given(
    st.lists(
        st.builds(
            Interaction,
            sku=st.from_regex(r"[0-9a-z]+", fullmatch=True),
            ts=st.integers(0, MAX_TIMESTAMP),
            type=st.sampled_from(list(ActionType)),
        )
    ).map(tuple)
)
def test_history_line_reads_back_as_written(history: tuple[Interaction, ...]) -> None:
    assert parse_history(format_history("42", history)) == ("42", history)


@pytest.mark.parametrize("user_id", ["", "0", "-1"])
def test_placeholder_user_ids_become_empty(user_id: str) -> None:
    assert to_user(UserInfo(user_id=user_id, age="5.0")).id == ""


def test_long_history_keeps_newest_interactions() -> None:
    info = UserInfo(history=[InteractionInfo(sku_id=str(n)) for n in range(HISTORY_LENGTH + 9)])
    assert [i.sku for i in to_user(info).history] == [str(n) for n in range(HISTORY_LENGTH)]


def test_undefined_action_type_becomes_unknown() -> None:
    info = UserInfo.FromString(UserInfo(history=[InteractionInfo(sku_id="1")]).SerializeToString())
    info.history[0].type = 99
    assert to_user(info).history[0].type is ActionType.UNKNOWN


def test_profile_or_session_describes_a_user_but_an_id_does_not() -> None:
    assert describes_user(UserInfo(age="5.0"))
    assert describes_user(UserInfo(history=[InteractionInfo(sku_id="1")]))
    assert not describes_user(UserInfo(user_id="8888"))


def test_provenance_is_selected_by_channel_name() -> None:
    table = ProvenanceTable.of(
        [[("vector", 2, 0.5), ("cold_start", 1, 0.1)], [("repurchase", 1, 3.0)]],
        ["vector", "cold_start", "repurchase"],
    )
    selected = table.select(["repurchase", "similar", "vector"])
    assert selected.positions.tolist() == [[0, 0, 2], [1, 0, 0]]
    np.testing.assert_array_equal(selected.scores, np.float32([[np.nan, np.nan, 0.5], [3.0, np.nan, np.nan]]))
