"""Creates the networks of a training with initial weights, and runs them in batches."""

import zlib  # noqa: F401  (must precede paddle, otherwise a later use of zlib segfaults)

import numpy as np
import paddle
from paddle import nn
from paddle.utils import unique_name

from ecrs.features.encoding import ITEM_TOWER_COLUMNS, USER_TOWER_COLUMNS, Encoder
from ecrs.features.quantiles import ranker_cardinality
from ecrs_models.training.rankers import RANKERS, RankerNetwork
from ecrs_models.training.settings import TrainingSettings
from ecrs_models.training.two_tower import TwoTower


def new_networks(encoder: Encoder, settings: TrainingSettings) -> tuple[TwoTower, RankerNetwork]:
    """Create both networks. The initial weights are equal for the same seed and vocabulary sizes."""
    with unique_name.guard():  # parameters, by whose names the optimizer saves its state, are numbered from 0
        paddle.seed(settings.seed)
        two_tower = TwoTower(encoder.cardinality(USER_TOWER_COLUMNS), encoder.cardinality(ITEM_TOWER_COLUMNS))
        return two_tower, RANKERS[settings.ranker](ranker_cardinality(encoder))


def in_batches(network: nn.Layer, ids: np.ndarray, size: int = 4096) -> np.ndarray:
    """Run a network on ids, int64 (N, columns), in batches of `size` rows. Returns float32 (N, width)."""
    with paddle.no_grad():
        parts = [
            network(paddle.to_tensor(ids[start : start + size])).numpy() for start in range(0, len(ids), size)
        ]
    return np.concatenate(parts)
