"""The one encoding of users and items into model input.

Training, vector export, seeding, recall and rank import this and nothing else, so that a value
means the same id everywhere. Ids come from vocabularies saved with the model, never from
`hash()`, which Python salts by process.

A model's input is one int64 matrix; the columns are

- user tower: `user_id`, the six profile fields, then the newest HISTORY_LENGTH skus;
- item tower: `sku`, `brand`, `shop`, `category`;
- ranker: user id and profile, the item's fields, then the numbers of `ecrs.ranking_features`, each as
  its quantile.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ecrs.domain.actions import Interaction
from ecrs.domain.entities import HISTORY_LENGTH, ITEM_FIELDS, PROFILE_FIELDS, UNKNOWN, Item, User

PADDING, OUT_OF_VOCABULARY, FIRST_KNOWN = 0, 1, 2
ABSENT = -1
"""Fills up a history of item numbers (not vocabulary ids)."""

VOCABULARIES = ("user_id", *PROFILE_FIELDS, *ITEM_FIELDS)
HISTORY_COLUMNS = tuple(f"history_{n}" for n in range(HISTORY_LENGTH))
ITEM_GROUPS = ("brand", "shop", "category")
USER_TOWER_COLUMNS = ("user_id", *PROFILE_FIELDS, *HISTORY_COLUMNS)
ITEM_TOWER_COLUMNS = ITEM_FIELDS
PAIR_COLUMNS = ("user_id", *PROFILE_FIELDS, *ITEM_FIELDS)
"""The ranker's columns that are ids of vocabularies."""


def canonical(value: str) -> str:
    """One spelling for a value: "5.0", "5" and " 5 " are "5"; an empty one is unknown."""
    value = value.strip()
    if not value:
        return UNKNOWN
    whole, point, fraction = value.partition(".")
    if point and whole.lstrip("-").isdecimal() and fraction.strip("0") == "":
        return whole
    return value


@dataclass(frozen=True)
class Vocabulary:
    """Known values of one field and their ids.

    0 pads, 1 stands for every value not seen in training, known values count from 2 in the
    order of the file, one a line.
    """

    ids: dict[str, int]

    @classmethod
    def build(cls, values: Iterable[str]) -> "Vocabulary":
        """A vocabulary of the distinct canonical values, sorted, so that it does not depend on order."""
        known = sorted({canonical(value) for value in values})
        return cls({value: number for number, value in enumerate(known, FIRST_KNOWN)})

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        with open(path, encoding="utf-8", newline="\n") as file:  # a value may hold \r, \x85 or \u2028
            values = [line.removesuffix("\n") for line in file]
        return cls({value: number for number, value in enumerate(values, FIRST_KNOWN)})

    def save(self, path: Path) -> None:
        text = "".join(f"{value}\n" for value in self.ids)
        path.write_text(text, encoding="utf-8", newline="\n")

    def __len__(self) -> int:
        """The embedding table's rows: known values, out-of-vocabulary and padding."""
        return len(self.ids) + FIRST_KNOWN

    def encode(self, value: str) -> int:
        return self.ids.get(canonical(value), OUT_OF_VOCABULARY)

    def encode_all(self, values: Iterable[str]) -> np.ndarray:
        """`encode` over a column of a table: int64, shape (len(values),)."""
        return np.fromiter((self.encode(value) for value in values), dtype=np.int64)


@dataclass(frozen=True)
class Encoder:
    """Users and items to ids, by the vocabularies of one bundle."""

    vocabularies: dict[str, Vocabulary]

    @classmethod
    def build(cls, columns: Mapping[str, Iterable[str]]) -> "Encoder":
        """Vocabularies of the values of each of VOCABULARIES, the fields of users and items."""
        return cls({name: Vocabulary.build(columns[name]) for name in VOCABULARIES})

    @classmethod
    def fit(cls, users: Iterable[User], items: Iterable[Item]) -> "Encoder":
        users, items = list(users), list(items)
        columns: dict[str, Iterable[str]] = {"user_id": (user.id for user in users)}
        columns |= {name: [getattr(user, name) for user in users] for name in PROFILE_FIELDS}
        columns |= {name: [getattr(item, name) for item in items] for name in ITEM_FIELDS}
        return cls.build(columns)

    @classmethod
    def load(cls, directory: Path, names: Sequence[str] = VOCABULARIES) -> "Encoder":
        """With `names`, only what those fields need: ITEM_FIELDS is enough for `items`."""
        return cls({name: Vocabulary.load(directory / f"{name}.txt") for name in names})

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        for name, vocabulary in self.vocabularies.items():
            vocabulary.save(directory / f"{name}.txt")

    def cardinality(self, columns: Sequence[str]) -> tuple[int, ...]:
        """The exclusive upper bound of each column's ids."""
        return tuple(len(self.vocabularies["sku" if name in HISTORY_COLUMNS else name]) for name in columns)

    def user_row(self, user: User) -> list[int]:
        """User id and profile, int, length 1 + len(PROFILE_FIELDS)."""
        row = [self.vocabularies["user_id"].encode(user.id) if user.id else OUT_OF_VOCABULARY]
        return row + [self.vocabularies[name].encode(getattr(user, name)) for name in PROFILE_FIELDS]

    def history_row(self, history: Sequence[Interaction]) -> list[int]:
        """Skus newest first, padded with 0 to HISTORY_LENGTH."""
        encode = self.vocabularies["sku"].encode
        row = [encode(interaction.sku) for interaction in history[:HISTORY_LENGTH]]
        return row + [PADDING] * (HISTORY_LENGTH - len(row))

    def item_row(self, item: Item) -> list[int]:
        return [self.vocabularies[name].encode(getattr(item, name)) for name in ITEM_FIELDS]

    def user_table(self, columns: Mapping[str, Iterable[str]]) -> np.ndarray:
        """`user_row` of every user of a table with the columns `user_id` and PROFILE_FIELDS.

        int64, shape (rows, 1 + len(PROFILE_FIELDS)).
        """
        names = ("user_id", *PROFILE_FIELDS)
        return np.stack([self.vocabularies[name].encode_all(columns[name]) for name in names], axis=1)

    def item_table(self, columns: Mapping[str, Iterable[str]]) -> np.ndarray:
        """`item_row` of every item of a table with the columns ITEM_FIELDS.

        int64, shape (rows, len(ITEM_FIELDS)).
        """
        return np.stack([self.vocabularies[name].encode_all(columns[name]) for name in ITEM_FIELDS], axis=1)

    def users(self, users: Sequence[User]) -> np.ndarray:
        """User tower input, int64, shape (len(users), len(USER_TOWER_COLUMNS))."""
        rows = [self.user_row(user) + self.history_row(user.history) for user in users]
        return np.array(rows, dtype=np.int64).reshape(-1, len(USER_TOWER_COLUMNS))

    def items(self, items: Sequence[Item]) -> np.ndarray:
        """Item tower input, int64, shape (len(items), len(ITEM_TOWER_COLUMNS))."""
        rows = [self.item_row(item) for item in items]
        return np.array(rows, dtype=np.int64).reshape(-1, len(ITEM_TOWER_COLUMNS))
