"""Start a training from a bundle: its weights, moved to the ids of today's vocabularies."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ecrs.bundle import Bundle
from ecrs.domain.entities import ITEM_FIELDS, PROFILE_FIELDS
from ecrs.features.encoding import FIRST_KNOWN, OUT_OF_VOCABULARY, PAIR_COLUMNS, Encoder, Vocabulary
from ecrs_models.errors import DataError

WEIGHTS_DIR = "weights"
"""Directory of a bundle: what a later training starts from; serving does not read it."""

State = dict[str, np.ndarray]


@dataclass(frozen=True)
class WarmStart:
    """An earlier training's weights, by the ids of its own `encoder`; `until`: what it has seen."""

    version: str
    until: int
    ranker: str
    encoder: Encoder
    states: dict[str, State]

    @classmethod
    def of(cls, bundle: Bundle) -> "WarmStart":
        """DataError if the bundle does not carry weights."""
        directory = bundle.path / WEIGHTS_DIR
        if not directory.is_dir():
            raise DataError(f"{bundle.path}: no {WEIGHTS_DIR}/ to start from")
        states = {path.stem: _load(path) for path in sorted(directory.glob("*.pdparams"))}
        training = bundle.manifest.training
        return cls(bundle.version, training["until"], training["ranker"], bundle.encoder, states)

    def load_into(self, name: str, network: Any, encoder: Encoder) -> None:
        """Put model `name`'s weights into a network made for `encoder`; newcomers begin as the unknown."""
        given = {}
        for key, value in network.state_dict().items():
            weights = self.states[name].get(key)
            if weights is not None and key in _TABLES:
                weights = remapped_table(weights, _TABLES[key], self.encoder, encoder)
            if weights is not None and list(weights.shape) == list(value.shape):
                given[key] = weights
        network.set_state_dict(given)


_TABLES: dict[str, Sequence[str]] = {
    "user_tower.user.weight": ("user_id",),
    **{f"user_tower.profile.{place}.weight": (name,) for place, name in enumerate(PROFILE_FIELDS)},
    "user_tower.sku.weight": ("sku",),
    "item_tower.sku.weight": ("sku",),
    **{f"item_tower.fields.{place}.weight": (name,) for place, name in enumerate(ITEM_FIELDS[1:])},
    "ids.weight": PAIR_COLUMNS,
    "first.weight": PAIR_COLUMNS,
}
"""Embedding tables, and the vocabularies whose ids they have rows for, one after the other."""


def remapped_table(table: np.ndarray, names: Sequence[str], old: Encoder, new: Encoder) -> np.ndarray:
    """An embedding table, float32 (rows, width), by the ids of the new vocabularies `names`."""
    parts, begin = [], 0
    for name in names:
        was, now = old.vocabularies[name], new.vocabularies[name]
        rows = np.tile(table[begin + OUT_OF_VOCABULARY], (len(now), 1))
        from_rows, to_rows = shared_ids(was, now)
        rows[to_rows] = table[begin + from_rows]
        parts.append(rows)
        begin += len(was)
    return np.concatenate(parts)


def shared_ids(old: Vocabulary, new: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """Ids in both vocabularies of what both know, padding and out of vocabulary among them; int64 (N,)."""
    both = [value for value in new.ids if value in old.ids]
    fixed = list(range(FIRST_KNOWN))
    return (
        np.array(fixed + [old.ids[value] for value in both]),
        np.array(fixed + [new.ids[value] for value in both]),
    )


def _load(path: Path) -> State:
    return {key: np.asarray(value) for key, value in paddle.load(str(path)).items()}


def warm_start_settings(settings: Any, start: WarmStart) -> Any:
    """A training's settings when it starts from a bundle: little to learn, so little time to take."""
    return replace(
        settings,
        start=start.version,
        ranker=start.ranker,
        early_epochs=0,
        tower_epochs=1,
        ranker_epochs=1,
        snapshots=2,
    )
