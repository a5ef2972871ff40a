"""DeepFM: first order, factorisation machine and a deep network over the same embeddings.

Source: Guo et al., "DeepFM: a factorization-machine based neural network for CTR prediction",
IJCAI 2017.
"""

import zlib  # noqa: F401  (before paddle, or a later use of zlib is a segmentation fault)
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional

from ecrs_models.sampling import RankerBatch

DIM = 16
HIDDEN = (64, 32)


class DeepFM(nn.Layer):
    """ids, int64 (N, fields), each column's own ids → float32 (N, 1), the probability that the
    user's next purchase is this item.

    All fields live in one table, each from its own offset on. Weights of first order have a table
    of their own: cutting them out of wider rows would cost more than a second look-up.
    """

    def __init__(self, cardinality: Sequence[int]) -> None:
        super().__init__()
        offsets = np.concatenate([[0], np.cumsum(cardinality)[:-1]]).astype(np.int64)
        self.register_buffer("offsets", paddle.to_tensor(offsets))
        initial = paddle.ParamAttr(initializer=nn.initializer.Normal(std=0.02))
        rows = int(sum(cardinality))
        self.first = nn.Embedding(rows, 1, weight_attr=initial)
        self.latent = nn.Embedding(rows, DIM, weight_attr=initial)
        self.bias = self.create_parameter([1], is_bias=True)
        widths = (len(cardinality) * DIM, *HIDDEN)
        layers: list[nn.Layer] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.deep = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def logit(self, ids: paddle.Tensor) -> paddle.Tensor:
        """The score before the sigmoid, float32 (N, 1)."""
        rows = ids + self.offsets
        latent = self.latent(rows)
        total = paddle.sum(latent, axis=1)
        pairs = 0.5 * paddle.sum(total * total - paddle.sum(latent * latent, axis=1), axis=1, keepdim=True)
        return self.bias + paddle.sum(self.first(rows), axis=1) + pairs + self.deep(paddle.flatten(latent, 1))

    def forward(self, ids: paddle.Tensor) -> paddle.Tensor:
        return functional.sigmoid(self.logit(ids))

    def loss(self, batch: RankerBatch) -> paddle.Tensor:
        """Noise-contrastive: the mean cross-entropy of "taken or drawn as a negative".

        Taking log noise out of the logit makes the score itself the probability that this item is
        what the user takes next, however the negatives were drawn.
        Source: Gutmann and Hyvärinen, AISTATS 2010; Mnih and Teh, ICML 2012.
        """
        logit = self.logit(paddle.to_tensor(batch.ids)) - paddle.to_tensor(batch.log_noise)
        return functional.binary_cross_entropy_with_logits(logit, paddle.to_tensor(batch.labels))

    def start_from(self, column: int, log_odds: np.ndarray) -> None:
        """Set the first-order weights of one column's ids, float32 (cardinality,), before training."""
        begin = int(self.offsets[column])
        weights = self.first.weight.numpy()
        weights[begin : begin + len(log_odds), 0] = log_odds
        self.first.weight.set_value(weights)
