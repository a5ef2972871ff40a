"""The encoding of users and items into model input.

Training, vector export, seeding, recall and rank all use this module, so that a value has the same id
everywhere. Ids come from vocabularies that are saved with the model, never from `hash()`, which Python salts
in each process.

The input of a model is one int64 matrix with these columns:

- user tower: `user_id`, the six profile fields, then the newest HISTORY_LENGTH skus;
- item tower: `sku`, `brand`, `shop`, `category`;
- ranker: user id and profile, the item's fields, then the features of `ecrs.features.ranking`, each as its
  quantile.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ecrs.domain.actions import Interaction
from ecrs.domain.entities import HISTORY_LENGTH, ITEM_FIELDS, PROFILE_FIELDS, UNKNOWN, Item, User

PADDING, OUT_OF_VOCABULARY, FIRST_KNOWN = 0, 1, 2
"""Vocabulary ids: padding, every value not seen in training, and the first known value."""

ABSENT = -1
"""Padding of a history that holds rows of the catalogue instead of vocabulary ids."""

VOCABULARIES = ("user_id", *PROFILE_FIELDS, *ITEM_FIELDS)
HISTORY_COLUMNS = tuple(f"history_{n}" for n in range(HISTORY_LENGTH))
ITEM_GROUPS = ("brand", "shop", "category")
USER_TOWER_COLUMNS = ("user_id", *PROFILE_FIELDS, *HISTORY_COLUMNS)
ITEM_TOWER_COLUMNS = ITEM_FIELDS
PAIR_COLUMNS = ("user_id", *PROFILE_FIELDS, *ITEM_FIELDS)
"""The columns of the ranker's input that hold vocabulary ids."""


def canonical(value: str) -> str:
    """Return the canonical spelling of a value: "5.0", "5" and " 5 " become "5", an empty value UNKNOWN."""
    value = value.strip()
    if not value:
        return UNKNOWN
    whole, point, fraction = value.partition(".")
    if point and whole.lstrip("-").isdecimal() and fraction.strip("0") == "":
        return whole
    return value


@dataclass(frozen=True)
class Vocabulary:
    """The known values of one field and their ids.

    0 is padding, 1 stands for every value not seen in training, and known values count from 2, in the order
    of the vocabulary's file, which has one value per line.
    """

    ids: dict[str, int]

    @classmethod
    def build(cls, values: Iterable[str]) -> "Vocabulary":
        """Build a vocabulary of the distinct canonical values, sorted, so that their order has no effect."""
        known = sorted({canonical(value) for value in values})
        return cls({value: number for number, value in enumerate(known, FIRST_KNOWN)})

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Read a vocabulary from its file. Raises ValueError if it is not UTF-8 or has a value twice."""
        try:
            with open(path, encoding="utf-8", newline="\n") as file:  # a value may contain \r, \x85, \u2028
                values = [line.removesuffix("\n") for line in file]
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8: {error.reason}") from error
        ids = {value: number for number, value in enumerate(values, FIRST_KNOWN)}
        if len(ids) < len(values):
            duplicate = next(
                value for number, value in enumerate(values, FIRST_KNOWN) if ids[value] != number
            )
            raise ValueError(f"{path}: {duplicate!r} appears twice")
        return cls(ids)

    def save(self, path: Path) -> None:
        """Write the vocabulary to a file, one value per line."""
        text = "".join(f"{value}\n" for value in self.ids)
        path.write_text(text, encoding="utf-8", newline="\n")

    def __len__(self) -> int:
        """Return the rows of the embedding table: known values, out-of-vocabulary and padding."""
        return len(self.ids) + FIRST_KNOWN

    def encode(self, value: str) -> int:
        """Return the id of a value in any spelling; OUT_OF_VOCABULARY if it is not known."""
        return self.ids.get(canonical(value), OUT_OF_VOCABULARY)

    def encode_all(self, values: Iterable[str]) -> np.ndarray:
        """Encode a column of a table: int64, shape (len(values),)."""
        return np.fromiter((self.encode(value) for value in values), dtype=np.int64)


@dataclass(frozen=True)
class Encoder:
    """Encodes users and items with the vocabularies of one bundle."""

    vocabularies: dict[str, Vocabulary]

    @classmethod
    def build(cls, columns: Mapping[str, Iterable[str]]) -> "Encoder":
        """Build the vocabularies from the values of each field in VOCABULARIES."""
        return cls({name: Vocabulary.build(columns[name]) for name in VOCABULARIES})

    @classmethod
    def fit(cls, users: Iterable[User], items: Iterable[Item]) -> "Encoder":
        """Build the vocabularies from all values of `users` and `items`."""
        users, items = list(users), list(items)
        columns: dict[str, Iterable[str]] = {"user_id": (user.id for user in users)}
        columns |= {name: [getattr(user, name) for user in users] for name in PROFILE_FIELDS}
        columns |= {name: [getattr(item, name) for item in items] for name in ITEM_FIELDS}
        return cls.build(columns)

    @classmethod
    def load(cls, directory: Path, names: Sequence[str] = VOCABULARIES) -> "Encoder":
        """Read the vocabularies of the fields `names`; ITEM_FIELDS is enough to encode items.

        Raises OSError or ValueError, naming the file, if one cannot be read or is malformed.
        """
        return cls({name: Vocabulary.load(directory / f"{name}.txt") for name in names})

    def save(self, directory: Path) -> None:
        """Write each vocabulary to a file in `directory`, which is created if it does not exist."""
        directory.mkdir(parents=True, exist_ok=True)
        for name, vocabulary in self.vocabularies.items():
            vocabulary.save(directory / f"{name}.txt")

    def cardinality(self, columns: Sequence[str]) -> tuple[int, ...]:
        """Return the exclusive upper bound of the ids in each of `columns`."""
        return tuple(len(self.vocabularies["sku" if name in HISTORY_COLUMNS else name]) for name in columns)

    def user_row(self, user: User) -> list[int]:
        """Return the ids of the user id and the profile, 1 + len(PROFILE_FIELDS) of them."""
        row = [self.vocabularies["user_id"].encode(user.id) if user.id else OUT_OF_VOCABULARY]
        return row + [self.vocabularies[name].encode(getattr(user, name)) for name in PROFILE_FIELDS]

    def history_row(self, history: Sequence[Interaction]) -> list[int]:
        """Return the ids of the skus, newest first, padded with PADDING to HISTORY_LENGTH."""
        encode = self.vocabularies["sku"].encode
        row = [encode(interaction.sku) for interaction in history[:HISTORY_LENGTH]]
        return row + [PADDING] * (HISTORY_LENGTH - len(row))

    def item_row(self, item: Item) -> list[int]:
        """Return the ids of the item's fields, len(ITEM_FIELDS) of them."""
        return [self.vocabularies[name].encode(getattr(item, name)) for name in ITEM_FIELDS]

    def user_table(self, columns: Mapping[str, Iterable[str]]) -> np.ndarray:
        """Return `user_row` for every row of a table with the columns `user_id` and PROFILE_FIELDS.

        The result is int64, shape (rows, 1 + len(PROFILE_FIELDS)).
        """
        names = ("user_id", *PROFILE_FIELDS)
        return np.stack([self.vocabularies[name].encode_all(columns[name]) for name in names], axis=1)

    def item_table(self, columns: Mapping[str, Iterable[str]]) -> np.ndarray:
        """Return `item_row` for every row of a table with the columns ITEM_FIELDS.

        The result is int64, shape (rows, len(ITEM_FIELDS)).
        """
        return np.stack([self.vocabularies[name].encode_all(columns[name]) for name in ITEM_FIELDS], axis=1)

    def users(self, users: Sequence[User]) -> np.ndarray:
        """Return the user tower's input: int64, shape (len(users), len(USER_TOWER_COLUMNS))."""
        rows = [self.user_row(user) + self.history_row(user.history) for user in users]
        return np.array(rows, dtype=np.int64).reshape(-1, len(USER_TOWER_COLUMNS))

    def items(self, items: Sequence[Item]) -> np.ndarray:
        """Return the item tower's input: int64, shape (len(items), len(ITEM_TOWER_COLUMNS))."""
        rows = [self.item_row(item) for item in items]
        return np.array(rows, dtype=np.int64).reshape(-1, len(ITEM_TOWER_COLUMNS))
