"""The form in which a trained ranker is served: the same function in few operations.

What training keeps apart is put together once the weights are known: at a hundred rows the call of an
operation costs as much as its work, all but for the matrix products, which go to the faster library. Only the
rounding of floats differs.
"""

import zlib  # noqa: F401  (before paddle, or a later use of zlib is a segmentation fault)
from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from paddle.base.proto import framework_pb2
from paddle.nn import functional
from paddle.utils import unique_name

from ecrs.features.quantiles import LEVELS
from ecrs.features.ranking import FEATURES
from ecrs_models.training.rankers import BIN, BINS, DIM, HIDDEN, DeepFM

_FIRST, _NUMBER, _WIDTH = DIM, DIM + 1, DIM + 2
"""Slots of a row behind its embedding, and how wide that makes it."""


def serving_form(network: nn.Layer) -> nn.Layer:
    """What to save of a trained network: itself, unless there is a faster form of it."""
    if not isinstance(network, DeepFM):
        return network
    with unique_name.guard():  # the parameters' names do not depend on what was made before
        return ServedDeepFM(network)


class ServedDeepFM(nn.Layer):
    """ids, int64 (N, RANKER_COLUMNS) → float32 (N, 1), as the trained network answers in evaluation.

    All columns share one table, in which each level of a feature has a row like each id of a vocabulary:
    embedding, first order, number. One matrix product takes a candidate's rows to the first hidden layer,
    to the sum of the vocabularies' embeddings and to the sum of the first orders. A pair of embeddings is
    half the square of their sum less half the sum of their squares (Rendle, ICDM 2010); the latter is of
    single rows, so it is in their first orders.
    """

    def __init__(self, trained: DeepFM) -> None:
        super().__init__()
        vocabularies = trained.vocabularies
        ids, levels = _id_rows(trained), _level_rows(trained)
        rows = np.concatenate([ids, levels.reshape(-1, _WIDTH)])
        level_offsets = len(ids) + LEVELS * np.arange(len(FEATURES))
        offsets = np.concatenate([trained.offsets.numpy(), level_offsets])
        self.register_buffer("offsets", paddle.to_tensor(offsets.astype(np.int64)), persistable=False)
        self.rows = nn.Embedding(*rows.shape)
        self.rows.weight.set_value(rows)
        self.seen = len(offsets) * _WIDTH
        hidden, second, out = trained.deep[0], trained.deep[3], trained.out

        weight = np.zeros((len(offsets), _WIDTH, HIDDEN[0] + DIM + 1), dtype=np.float32)
        of_embeddings, of_numbers = np.split(hidden.weight.numpy(), [len(offsets) * DIM])
        weight[:, :DIM, : HIDDEN[0]] = of_embeddings.reshape(len(offsets), DIM, HIDDEN[0])
        weight[vocabularies:, _NUMBER, : HIDDEN[0]] = of_numbers
        weight[:vocabularies, :DIM, HIDDEN[0] : -1] = np.eye(DIM)
        weight[:, _FIRST, -1] = 1
        first = trained.numbers.bias.numpy() + out.bias.numpy()
        bias = np.concatenate([hidden.bias.numpy(), np.zeros(DIM, dtype=np.float32), first])
        self.all = _linear(weight.reshape(self.seen, -1), bias)
        self.second = _linear(second.weight.numpy(), second.bias.numpy())
        self.out = nn.Linear(HIDDEN[1], 1, bias_attr=False)
        self.out.weight.set_value(out.weight.numpy())

    def forward(self, ids: paddle.Tensor) -> paddle.Tensor:
        every = self.all(paddle.reshape(self.rows(ids + self.offsets), [-1, self.seen]))
        deep = self.out(functional.relu(self.second(functional.relu(every[:, : HIDDEN[0]]))))
        total, first = every[:, HIDDEN[0] : -1], every[:, -1:]
        pairs = 0.5 * paddle.sum(total * total, axis=1, keepdim=True)
        return functional.sigmoid(first + pairs + deep)


def multiply_by_onednn(program: Path) -> None:
    """Mark the saved program's matrix products as oneDNN's, which a predictor heeds also without its own
    optimisations; a build of Paddle without oneDNN has no use for the mark.

    Paddle's other library, Intel's, takes three times as long for a hundred rows on AMD's processors.
    """
    description = framework_pb2.ProgramDesc.FromString(program.read_bytes())
    for operation in (operation for block in description.blocks for operation in block.ops):
        if operation.type == "matmul_v2":
            operation.attrs.add(name="use_mkldnn", type=framework_pb2.BOOLEAN, b=True)
    program.write_bytes(description.SerializeToString())


def _id_rows(trained: DeepFM) -> np.ndarray:
    """Of each vocabulary's ids one after the other, float32 (rows, _WIDTH)."""
    embeddings = trained.ids.weight.numpy()
    rows = np.zeros((len(embeddings), _WIDTH), dtype=np.float32)
    rows[:, :DIM] = embeddings
    rows[:, _FIRST] = trained.first.weight.numpy()[:, 0] - 0.5 * np.square(embeddings).sum(axis=1)
    return rows


def _level_rows(trained: DeepFM) -> np.ndarray:
    """Of each feature's levels, float32 (FEATURES, LEVELS, _WIDTH)."""
    levels = np.arange(LEVELS)
    bins, numbers = (levels + (BIN - 1)) // BIN, levels * (2.0 / (LEVELS - 1)) - 1.0
    rows = np.empty((len(FEATURES), LEVELS, _WIDTH), dtype=np.float32)
    rows[:, :, :DIM] = trained.bins.weight.numpy().reshape(len(FEATURES), BINS, DIM)[:, bins]
    first_bins = trained.first_bins.weight.numpy().reshape(len(FEATURES), BINS)[:, bins]
    rows[:, :, _FIRST] = first_bins + trained.numbers.weight.numpy() * numbers
    rows[:, :, _NUMBER] = numbers
    return rows


def _linear(weight: np.ndarray, bias: np.ndarray) -> nn.Linear:
    layer = nn.Linear(*weight.shape)
    layer.weight.set_value(weight)
    layer.bias.set_value(bias)
    return layer
