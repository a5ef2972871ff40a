"""The two-tower model: maps users and items to unit vectors whose inner product predicts preference.

Sources: Covington et al., RecSys 2016, for the structure of the user tower; Yi et al.,
"Sampling-bias-corrected neural modeling for large corpus item recommendations", RecSys 2019, for the
in-batch sampled softmax with logQ correction.
"""

import zlib  # noqa: F401  (must precede paddle, otherwise a later use of zlib segfaults)
from collections.abc import Sequence

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional

from ecrs.domain.entities import HISTORY_LENGTH, PROFILE_FIELDS
from ecrs.features.encoding import PADDING
from ecrs_models.training.sampling import TowerBatch, false_negatives

DIM = 32
"""Length of a user or item vector, and of the sku and user embeddings."""
FIELD_DIM = 16
HIDDEN = 128
TEMPERATURE = 0.07
"""Temperature of the softmax."""
_EXCLUDED = -1e9


class ItemTower(nn.Layer):
    """Maps ids, int64 (N, 4: sku, brand, shop, category), to unit vectors, float32 (N, DIM)."""

    def __init__(self, sku: nn.Embedding, cardinality: Sequence[int]) -> None:
        super().__init__()
        self.sku = sku
        self.fields = nn.LayerList([_embedding(rows, FIELD_DIM) for rows in cardinality[1:]])
        self.mlp = _mlp(DIM + FIELD_DIM * len(self.fields))

    def forward(self, ids: paddle.Tensor) -> paddle.Tensor:
        """Return the item vectors, float32 (N, DIM)."""
        sku = self.sku(ids[:, 0])
        fields = [table(ids[:, column]) for column, table in enumerate(self.fields, 1)]
        return _unit(self.mlp(paddle.concat([sku, *fields], axis=1)) + sku)


class UserTower(nn.Layer):
    """Maps ids, int64 (N, USER_TOWER_COLUMNS), to unit vectors, float32 (N, DIM).

    The columns are user id, six profile fields, and HISTORY_LENGTH skus. The skus' embeddings, from the table
    of the item tower, are averaged without padding, with a learned weight per position. The mean is also
    added to the output, so that training starts from an inner product that prefers items similar to the
    history.
    """

    def __init__(self, sku: nn.Embedding, cardinality: Sequence[int]) -> None:
        super().__init__()
        self.sku = sku
        self.user = _embedding(cardinality[0], DIM)
        self.profile = nn.LayerList(
            [_embedding(rows, FIELD_DIM) for rows in cardinality[1 : 1 + len(PROFILE_FIELDS)]]
        )
        even = paddle.ParamAttr(initializer=nn.initializer.Constant(0.0))
        self.recency = self.create_parameter([HISTORY_LENGTH], attr=even)
        self.mlp = _mlp(2 * DIM + FIELD_DIM * len(PROFILE_FIELDS))

    def forward(self, ids: paddle.Tensor) -> paddle.Tensor:
        """Return the user vectors, float32 (N, DIM)."""
        user = self.user(ids[:, 0])
        profile = [table(ids[:, column]) for column, table in enumerate(self.profile, 1)]
        history = ids[:, 1 + len(PROFILE_FIELDS) :]
        present = paddle.cast(history != PADDING, "float32") * paddle.exp(self.recency)
        count = paddle.clip(paddle.sum(present, axis=1, keepdim=True), min=1e-3)
        pooled = paddle.sum(self.sku(history) * paddle.unsqueeze(present, 2), axis=1) / count
        return _unit(self.mlp(paddle.concat([user, pooled, *profile], axis=1)) + pooled)


class TwoTower(nn.Layer):
    """Both towers with a shared sku embedding table, and their loss."""

    def __init__(self, user_cardinality: Sequence[int], item_cardinality: Sequence[int]) -> None:
        super().__init__()
        sku = _embedding(item_cardinality[0], DIM)
        self.user_tower = UserTower(sku, user_cardinality)
        self.item_tower = ItemTower(sku, item_cardinality)

    def loss(self, batch: TowerBatch) -> paddle.Tensor:
        """Return the in-batch sampled softmax loss of a batch, with logQ correction."""
        users = paddle.gather(self.user_tower(paddle.to_tensor(batch.users)), paddle.to_tensor(batch.user))
        items = self.item_tower(paddle.to_tensor(batch.items))
        logits = paddle.matmul(users, items, transpose_y=True) / TEMPERATURE
        return in_batch_softmax(logits, batch.log_q, false_negatives(batch))


def in_batch_softmax(logits: paddle.Tensor, log_q: np.ndarray, excluded: np.ndarray) -> paddle.Tensor:
    """Return the mean cross-entropy of the softmax over a batch's items, with column i the positive of row i.

    `logits`, float32 (N, N + M): the score of row i's user with column j's item. `log_q`, float32 (N + M,),
    is subtracted from the columns: popular items occur as negatives more often than others, and would get
    lower scores for that reason alone (Yi et al., RecSys 2019, eq. 4). `excluded`, bool (N, N + M): pairs
    that do not count as negatives.
    """
    shift = np.where(excluded, np.float32(_EXCLUDED), -log_q)
    return functional.cross_entropy(logits + paddle.to_tensor(shift), paddle.arange(logits.shape[0]))


def _embedding(rows: int, width: int) -> nn.Embedding:
    initial = paddle.ParamAttr(initializer=nn.initializer.Normal(std=0.05))
    return nn.Embedding(rows, width, padding_idx=PADDING, weight_attr=initial)


def _mlp(width: int) -> nn.Layer:
    return nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, DIM))


def _unit(vectors: paddle.Tensor) -> paddle.Tensor:
    length = paddle.sqrt(paddle.sum(vectors * vectors, axis=1, keepdim=True) + 1e-12)
    return vectors / length
