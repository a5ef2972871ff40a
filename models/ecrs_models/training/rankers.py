"""The rankers: DeepFM, and DCN-V2 behind the same input and output.

Input is one int64 matrix of RANKER_COLUMNS: ids of vocabularies, then each feature's level. A level is
read twice, as a number and, coarser, as one of BINS embeddings.
Sources: Guo et al., "DeepFM: a factorization-machine based neural network for CTR prediction", IJCAI
2017; Wang et al., "DCN V2: improved deep & cross network", WWW 2021.
"""

import zlib  # noqa: F401  (before paddle, or a later use of zlib is a segmentation fault)
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional

from ecrs.features.quantiles import LEVELS
from ecrs.features.ranking import FEATURES
from ecrs_models.training.sampling import RankerBatch

DIM = 8
HIDDEN = (128, 64)
DROPOUT = 0.3
BIN = 16
"""Levels that share an embedding."""
BINS = (LEVELS - 1) // BIN + 2
CROSSES, RANK = 2, 32
"""Layers of DCN-V2's cross network, and the rank of each one's matrix."""


class _Ranker(nn.Layer, ABC):
    """ids, int64 (N, RANKER_COLUMNS) → float32 (N, 1), the probability that the user takes the item."""

    def __init__(self, cardinality: Sequence[int]) -> None:
        super().__init__()
        self.vocabularies = len(cardinality) - len(FEATURES)
        sizes = cardinality[: self.vocabularies]
        # Not persistable: they are of the vocabularies that the network was made for, not of its weights.
        self.register_buffer("offsets", _offsets(sizes), persistable=False)
        self.register_buffer("bin_offsets", _offsets([BINS] * len(FEATURES)), persistable=False)
        self.ids = _embedding(sum(sizes), DIM)
        self.bins = _embedding(BINS * len(FEATURES), DIM)
        self.width = len(cardinality) * DIM + len(FEATURES)
        widths = (self.width, *HIDDEN)
        layers: list[nn.Layer] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(DROPOUT)]
        self.deep = nn.Sequential(*layers)

    def embedded(self, ids: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Embeddings of the vocabularies' ids, (N, vocabularies, DIM); all there is to see, (N, width)."""
        levels = ids[:, self.vocabularies :]
        of_ids = self.ids(ids[:, : self.vocabularies] + self.offsets)
        of_bins = self.bins((levels + (BIN - 1)) // BIN + self.bin_offsets)
        numbers = paddle.cast(levels, "float32") * (2.0 / (LEVELS - 1)) - 1.0
        seen = [paddle.flatten(of_ids, 1), paddle.flatten(of_bins, 1), numbers]
        return of_ids, paddle.concat(seen, axis=1)

    @abstractmethod
    def logit(self, ids: paddle.Tensor) -> paddle.Tensor:
        """The score before the sigmoid, float32 (N, 1)."""

    def forward(self, ids: paddle.Tensor) -> paddle.Tensor:
        return functional.sigmoid(self.logit(ids))

    def loss(self, batch: RankerBatch) -> paddle.Tensor:
        """Mean cross-entropy of "taken in the weeks after", weighted for the negatives left out, so that
        the score stays a probability."""
        each = functional.binary_cross_entropy_with_logits(
            self.logit(paddle.to_tensor(batch.ids)), paddle.to_tensor(batch.labels), reduction="none"
        )
        return paddle.mean(each * paddle.to_tensor(batch.weights))


class DeepFM(_Ranker):
    """First order, pairs of the vocabularies' embeddings, and a deep network over everything."""

    def __init__(self, cardinality: Sequence[int]) -> None:
        super().__init__(cardinality)
        self.first = nn.Embedding(sum(cardinality[: self.vocabularies]), 1, weight_attr=_zeros())
        self.first_bins = nn.Embedding(BINS * len(FEATURES), 1, weight_attr=_zeros())
        self.numbers = nn.Linear(len(FEATURES), 1)
        self.out = nn.Linear(HIDDEN[-1], 1)

    def logit(self, ids: paddle.Tensor) -> paddle.Tensor:
        of_ids, seen = self.embedded(ids)
        levels = ids[:, self.vocabularies :]
        total = paddle.sum(of_ids, axis=1)
        pairs = 0.5 * paddle.sum(total * total - paddle.sum(of_ids * of_ids, axis=1), axis=1, keepdim=True)
        first = paddle.sum(self.first(ids[:, : self.vocabularies] + self.offsets), axis=1)
        bins = paddle.sum(self.first_bins((levels + (BIN - 1)) // BIN + self.bin_offsets), axis=1)
        numbers = self.numbers(seen[:, -len(FEATURES) :])
        return first + bins + numbers + pairs + self.out(self.deep(seen))


class DCN(_Ranker):
    """Explicit crosses of low rank beside a deep network."""

    def __init__(self, cardinality: Sequence[int]) -> None:
        super().__init__(cardinality)
        self.down = nn.LayerList([nn.Linear(self.width, RANK, bias_attr=False) for _ in range(CROSSES)])
        self.up = nn.LayerList([nn.Linear(RANK, self.width) for _ in range(CROSSES)])
        self.out = nn.Linear(self.width + HIDDEN[-1], 1)

    def logit(self, ids: paddle.Tensor) -> paddle.Tensor:
        _, seen = self.embedded(ids)
        crossed = seen
        for down, up in zip(self.down, self.up):  # noqa: B905 - Paddle's export knows no `strict`
            crossed = seen * up(down(crossed)) + crossed
        return self.out(paddle.concat([crossed, self.deep(seen)], axis=1))


RANKERS: dict[str, type[_Ranker]] = {"deepfm": DeepFM, "dcn": DCN}


def _offsets(sizes: Sequence[int]) -> paddle.Tensor:
    """Where each column's rows begin in the one table that they share."""
    return paddle.to_tensor(np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64))


def _embedding(rows: int, width: int) -> nn.Embedding:
    initial = paddle.ParamAttr(initializer=nn.initializer.Normal(std=0.02))
    return nn.Embedding(rows, width, weight_attr=initial)


def _zeros() -> paddle.ParamAttr:
    return paddle.ParamAttr(initializer=nn.initializer.Constant(0.0))
