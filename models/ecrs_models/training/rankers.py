"""The rankers: DeepFM, and DCN-V2 with the same input and output.

The input is one int64 matrix of RANKER_COLUMNS: vocabulary ids, then each feature's quantile level. A level
is used twice: as a number and, at a lower resolution, as one of BINS embeddings.
Sources: Guo et al., "DeepFM: a factorization-machine based neural network for CTR prediction", IJCAI
2017; Wang et al., "DCN V2: improved deep & cross network", WWW 2021.
"""

import zlib  # noqa: F401  (must precede paddle, otherwise a later use of zlib segfaults)
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
"""Number of levels that share an embedding."""
BINS = (LEVELS - 1) // BIN + 2
CROSSES, RANK = 2, 32
"""Number of layers of DCN-V2's cross network, and the rank of their weight matrices."""


def _offsets(sizes: Sequence[int]) -> np.ndarray:
    """Return the first row of each column in an embedding table that all columns share, int64."""
    return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)


_BIN = (np.arange(LEVELS) + (BIN - 1)) // BIN
_NUMBER = (np.arange(LEVELS) * (2.0 / (LEVELS - 1)) - 1.0).astype(np.float32)
"""The bin and the number, from -1 to 1, of each level."""
_BIN_OFFSETS = _offsets([BINS] * len(FEATURES))


class RankerNetwork(nn.Layer, ABC):
    """Maps ids, int64 (N, RANKER_COLUMNS), to the probability that the user buys the item, float32 (N, 1)."""

    def __init__(self, cardinality: Sequence[int]) -> None:
        super().__init__()
        self.vocabularies = len(cardinality) - len(FEATURES)
        sizes = cardinality[: self.vocabularies]
        # Not persistable: the offsets follow from the vocabularies, so they are not saved with the weights.
        self.register_buffer("offsets", paddle.to_tensor(_offsets(sizes)), persistable=False)
        self.register_buffer("bin_offsets", paddle.to_tensor(_BIN_OFFSETS), persistable=False)
        self.ids = _embedding(sum(sizes), DIM)
        self.bins = _embedding(BINS * len(FEATURES), DIM)
        self.width = len(cardinality) * DIM + len(FEATURES)
        layers: list[nn.Layer] = []
        for before, after in pairwise((self.width, *HIDDEN)):
            layers += [nn.Linear(before, after), nn.ReLU(), _Dropout()]
        self.deep = nn.Sequential(*layers)

    def forward(self, ids: paddle.Tensor) -> paddle.Tensor:
        """Return the probability that the user buys the item, float32 (N, 1)."""
        levels = ids[:, self.vocabularies :]
        bins = (levels + (BIN - 1)) // BIN + self.bin_offsets
        numbers = paddle.cast(levels, "float32") * (2.0 / (LEVELS - 1)) - 1.0
        return functional.sigmoid(self.logit(ids[:, : self.vocabularies] + self.offsets, bins, numbers))

    def loss(self, batch: RankerBatch) -> paddle.Tensor:
        """Return the mean cross-entropy with the targets.

        The examples' weights compensate for negatives that were not drawn, so that the score is a calibrated
        probability.
        """
        for layer in self.deep:
            if isinstance(layer, _Dropout):
                layer.rng = batch.rng
        # The same as in `forward`, in numpy on small integers, which shortens a step by a third.
        ids = batch.ids[:, : self.vocabularies] + self.offsets.numpy()
        levels = batch.ids[:, self.vocabularies :]
        logits = self.logit(*map(paddle.to_tensor, (ids, _BIN[levels] + _BIN_OFFSETS, _NUMBER[levels])))
        each = functional.binary_cross_entropy_with_logits(
            logits, paddle.to_tensor(batch.targets), reduction="none"
        )
        return paddle.mean(each * paddle.to_tensor(batch.weights))

    @abstractmethod
    def logit(self, ids: paddle.Tensor, bins: paddle.Tensor, numbers: paddle.Tensor) -> paddle.Tensor:
        """Return the score before the sigmoid, float32 (N, 1).

        `ids`, int64 (N, PAIR_COLUMNS), and `bins`, int64 (N, FEATURES): rows of the embedding tables;
        `numbers`, float32 (N, FEATURES): the levels scaled to -1 to 1.
        """

    def embedded(
        self, ids: paddle.Tensor, bins: paddle.Tensor, numbers: paddle.Tensor
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Return the ids' embeddings, (N, PAIR_COLUMNS, DIM), and the deep network's input, (N, width)."""
        embeddings = self.ids(ids)
        inputs = [paddle.flatten(embeddings, 1), paddle.flatten(self.bins(bins), 1), numbers]
        return embeddings, paddle.concat(inputs, axis=1)


class _Dropout(nn.Layer):
    """Dropout with numpy's random numbers, which on a CPU take a quarter of the time of Paddle's."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng()

    def forward(self, values: paddle.Tensor) -> paddle.Tensor:
        if not self.training:
            return values
        kept = self.rng.random(values.shape, dtype=np.float32) >= DROPOUT
        return values * paddle.to_tensor(kept.astype(np.float32) / np.float32(1 - DROPOUT))


class DeepFM(RankerNetwork):
    """DeepFM: first-order terms, pairwise products of the ids' embeddings, and a deep network."""

    def __init__(self, cardinality: Sequence[int]) -> None:
        super().__init__(cardinality)
        self.first = nn.Embedding(sum(cardinality[: self.vocabularies]), 1, weight_attr=_zeros())
        self.first_bins = nn.Embedding(BINS * len(FEATURES), 1, weight_attr=_zeros())
        self.numbers = nn.Linear(len(FEATURES), 1)
        self.out = nn.Linear(HIDDEN[-1], 1)

    def logit(self, ids: paddle.Tensor, bins: paddle.Tensor, numbers: paddle.Tensor) -> paddle.Tensor:
        """Return the score before the sigmoid, float32 (N, 1)."""
        embeddings, inputs = self.embedded(ids, bins, numbers)
        total = paddle.sum(embeddings, axis=1)
        squares = paddle.sum(embeddings * embeddings, axis=1)
        pairs = 0.5 * paddle.sum(total * total - squares, axis=1, keepdim=True)
        first = paddle.sum(self.first(ids), axis=1) + paddle.sum(self.first_bins(bins), axis=1)
        return first + self.numbers(numbers) + pairs + self.out(self.deep(inputs))


class DCN(RankerNetwork):
    """DCN-V2: explicit feature crosses with low-rank matrices, in parallel with a deep network."""

    def __init__(self, cardinality: Sequence[int]) -> None:
        super().__init__(cardinality)
        self.down = nn.LayerList([nn.Linear(self.width, RANK, bias_attr=False) for _ in range(CROSSES)])
        self.up = nn.LayerList([nn.Linear(RANK, self.width) for _ in range(CROSSES)])
        self.out = nn.Linear(self.width + HIDDEN[-1], 1)

    def logit(self, ids: paddle.Tensor, bins: paddle.Tensor, numbers: paddle.Tensor) -> paddle.Tensor:
        """Return the score before the sigmoid, float32 (N, 1)."""
        _, inputs = self.embedded(ids, bins, numbers)
        crossed = inputs
        for down, up in zip(self.down, self.up):  # noqa: B905 - Paddle's export does not support `strict`
            crossed = inputs * up(down(crossed)) + crossed
        return self.out(paddle.concat([crossed, self.deep(inputs)], axis=1))


RANKERS: dict[str, type[RankerNetwork]] = {"deepfm": DeepFM, "dcn": DCN}


def _embedding(rows: int, width: int) -> nn.Embedding:
    initial = paddle.ParamAttr(initializer=nn.initializer.Normal(std=0.02))
    return nn.Embedding(rows, width, weight_attr=initial)


def _zeros() -> paddle.ParamAttr:
    return paddle.ParamAttr(initializer=nn.initializer.Constant(0.0))
