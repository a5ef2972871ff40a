"""Warm start: a training that starts from a bundle's weights, remapped to the ids of new vocabularies."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ecrs.bundle import Bundle, BundleError
from ecrs.bundle.arrays import check_arrays
from ecrs.domain.entities import ITEM_FIELDS, PROFILE_FIELDS
from ecrs.features.encoding import FIRST_KNOWN, OUT_OF_VOCABULARY, PAIR_COLUMNS, Encoder, Vocabulary
from ecrs_models.errors import DataError
from ecrs_models.training.networks import new_networks
from ecrs_models.training.rankers import RANKERS
from ecrs_models.training.settings import TrainingSettings
from ecrs_models.training.weights import Weights, load_weights, weights_path

WEIGHTS_DIR = "weights"
"""Directory of a bundle with the weights that a later training starts from. Serving does not read it."""


@dataclass(frozen=True)
class WarmStart:
    """The weights of an earlier training.

    `until`: the end of its data, Unix seconds; `ranker`: the name of its ranker; `encoder`: its
    vocabularies, to whose ids the weights belong; `states`: model → name of a parameter → values.
    """

    version: str
    until: int
    ranker: str
    encoder: Encoder
    states: dict[str, Weights]

    @classmethod
    def of(cls, bundle: Bundle) -> "WarmStart":
        """Read the weights of a bundle.

        Raises DataError if it does not contain any, and BundleError if they are not those of its models.
        """
        directory = bundle.path / WEIGHTS_DIR
        if not directory.is_dir():
            raise DataError(f"{bundle.path}: no {WEIGHTS_DIR}/ directory to start from")
        training = TrainingSettings.read(bundle.manifest.training)
        if training.ranker not in RANKERS:
            raise DataError(f"{bundle.path}: its ranker is {training.ranker!r}, none of {', '.join(RANKERS)}")
        two_tower, ranker = new_networks(bundle.encoder, training)
        networks = {"early_towers": two_tower, "two_tower": two_tower, "ranker": ranker}
        states = {name: _load(weights_path(directory, name), network) for name, network in networks.items()}
        return cls(bundle.version, training.until, training.ranker, bundle.encoder, states)

    def load_into(self, name: str, network: Any, encoder: Encoder) -> None:
        """Load the weights of model `name` into a network that was created for `encoder`.

        Ids that the earlier training does not have start with the out-of-vocabulary embedding. Parameters of
        a different shape keep their initial values.
        """
        loaded = {}
        for key, value in network.state_dict().items():
            weights = self.states[name].get(key)
            if weights is not None and key in _TABLES:
                weights = remapped_table(weights, _TABLES[key], self.encoder, encoder)
            if weights is not None and list(weights.shape) == list(value.shape):
                loaded[key] = weights
        network.set_state_dict(loaded)


_TABLES: dict[str, Sequence[str]] = {
    "user_tower.user.weight": ("user_id",),
    **{f"user_tower.profile.{place}.weight": (name,) for place, name in enumerate(PROFILE_FIELDS)},
    "user_tower.sku.weight": ("sku",),
    "item_tower.sku.weight": ("sku",),
    **{f"item_tower.fields.{place}.weight": (name,) for place, name in enumerate(ITEM_FIELDS[1:])},
    "ids.weight": PAIR_COLUMNS,
    "first.weight": PAIR_COLUMNS,
}
"""Embedding table → the vocabularies for whose ids it has rows, one after the other."""


def remapped_table(table: np.ndarray, names: Sequence[str], old: Encoder, new: Encoder) -> np.ndarray:
    """Return an embedding table, float32 (rows, width), with its rows in the order of the new vocabularies.

    `names` are the vocabularies whose ids the table has rows for. Ids that are not in the old ones get the
    out-of-vocabulary row.
    """
    parts, begin = [], 0
    for name in names:
        old_vocabulary, new_vocabulary = old.vocabularies[name], new.vocabularies[name]
        rows = np.tile(table[begin + OUT_OF_VOCABULARY], (len(new_vocabulary), 1))
        from_rows, to_rows = shared_ids(old_vocabulary, new_vocabulary)
        rows[to_rows] = table[begin + from_rows]
        parts.append(rows)
        begin += len(old_vocabulary)
    return np.concatenate(parts)


def shared_ids(old: Vocabulary, new: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """Return the old and the new ids of the values in both vocabularies, int64 (N,) each.

    Padding and out of vocabulary are included.
    """
    shared = [value for value in new.ids if value in old.ids]
    reserved = list(range(FIRST_KNOWN))
    return (
        np.array(reserved + [old.ids[value] for value in shared]),
        np.array(reserved + [new.ids[value] for value in shared]),
    )


def _load(path: Path, network: Any) -> Weights:
    """Read the weights of a network. Raises BundleError unless they have its parameters' names and shapes."""
    try:
        weights = load_weights(path)
    except FileNotFoundError:
        raise BundleError(f"{path} is missing") from None
    shapes = {name: ("float32", tuple(value.shape)) for name, value in network.state_dict().items()}
    check_arrays(path, weights, shapes)
    return weights


def warm_start_settings(settings: Any, start: WarmStart) -> Any:
    """Return the settings of a training that starts from a bundle: fewer epochs and snapshots are enough."""
    return replace(
        settings,
        start=start.version,
        ranker=start.ranker,
        early_epochs=0,
        tower_epochs=1,
        ranker_epochs=1,
        snapshots=2,
    )
