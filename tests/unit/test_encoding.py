"""The encoding of users and items into ids."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ecrs.bundle import Bundle
from ecrs.domain.actions import Interaction
from ecrs.domain.entities import HISTORY_LENGTH, ITEM_FIELDS, PROFILE_FIELDS, Item, User
from ecrs.features.encoding import OUT_OF_VOCABULARY, PADDING, Encoder, Vocabulary, canonical

USERS = [
    User("7", "5.0", "1.0", "3.0", "11.0", "120.0", "741.0"),
    User("8", "2.0", "0.0", "-1", "", "4", "5"),
]
ITEMS = [Item("1", "3456", "6980", "70"), Item("2", "9", "6980", "71")]

ENCODE_GOLDEN = """
import sys
from pathlib import Path
from ecrs.bundle import Bundle
from tests.golden import golden_items, golden_ranker_ids, golden_users
bundle = Bundle.open(Path(sys.argv[1]))
encoder = bundle.encoder
print(encoder.users(golden_users(bundle)).tolist(), encoder.items(golden_items(bundle)).tolist())
print(golden_ranker_ids(bundle))
"""


@pytest.mark.parametrize(
    ("value", "expected"),
    [("5.0", "5"), ("5", "5"), (" 5 ", "5"), ("-1.0", "-1"), ("", "-1"), ("5.50", "5.50"), ("a.0", "a.0")],
)
def test_canonical_value_has_one_spelling(value: str, expected: str) -> None:
    assert canonical(value) == expected


def test_encoding_does_not_depend_on_the_process(tiny: Bundle) -> None:
    def encode(hash_seed: str) -> str:
        command = [sys.executable, "-c", ENCODE_GOLDEN, str(tiny.path)]
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(["", *sys.path])}
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    first = encode("1")
    assert first == encode("2")
    assert str(tiny.golden["user_tower"]["ids"]) in first


def test_vocabulary_survives_file_round_trip(tmp_path: Path) -> None:
    vocabulary = Vocabulary.build(["b", "a", "5.0", "x\u2028y", "x\x85y", "é"])
    vocabulary.save(tmp_path / "v.txt")
    assert Vocabulary.load(tmp_path / "v.txt") == vocabulary


def test_unknown_values_are_out_of_vocabulary() -> None:
    encoder = Encoder.fit(USERS, ITEMS)
    assert encoder.user_row(User("never", age="99"))[:2] == [OUT_OF_VOCABULARY, OUT_OF_VOCABULARY]
    assert encoder.item_row(Item("never", "never", "6980", "70"))[:2] == [OUT_OF_VOCABULARY] * 2
    assert encoder.user_row(User())[0] == OUT_OF_VOCABULARY


def test_tables_and_rows_encode_alike() -> None:
    encoder = Encoder.fit(USERS, ITEMS)
    users = {"user_id": [user.id for user in USERS]}
    users |= {name: [getattr(user, name) for user in USERS] for name in PROFILE_FIELDS}
    items = {name: [getattr(item, name) for item in ITEMS] for name in ITEM_FIELDS}
    assert encoder.user_table(users).tolist() == [encoder.user_row(user) for user in USERS]
    assert encoder.item_table(items).tolist() == encoder.items(ITEMS).tolist()


def test_history_is_cut_or_padded_to_fixed_length() -> None:
    encoder = Encoder.fit(USERS, ITEMS)
    short = encoder.history_row([Interaction("2", 9), Interaction("never", 8)])
    assert short[:3] == [encoder.vocabularies["sku"].encode("2"), OUT_OF_VOCABULARY, PADDING]
    assert len(short) == len(encoder.history_row([Interaction("1", 1)] * 60)) == HISTORY_LENGTH
