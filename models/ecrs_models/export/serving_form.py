"""The form in which a trained ranker is served: the same function with fewer operations.

Once the weights are known, operations that training keeps separate are merged. For a hundred rows, the
overhead of calling an operation is as large as its work, except for matrix products; those are computed by
the faster library. The outputs differ from those of the trained network only by floating-point rounding.
"""

import zlib  # noqa: F401  (must precede paddle, otherwise a later use of zlib segfaults)
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
"""Columns of a row after its embedding: first-order weight and number; and the width of a row."""


def serving_form(network: nn.Layer) -> nn.Layer:
    """Return the network to save: a faster equivalent of a DeepFM, otherwise the trained network itself."""
    if not isinstance(network, DeepFM):
        return network
    with unique_name.guard():  # so that parameter names do not depend on networks created earlier
        return ServedDeepFM(network)


class ServedDeepFM(nn.Layer):
    """A DeepFM in its served form: ids, int64 (N, RANKER_COLUMNS), to float32 (N, 1).

    Computes the same function as the trained network in evaluation mode. All columns share one table, which
    has a row for each vocabulary id and for each level of each feature. A row consists of an embedding, a
    first-order weight and a number. One matrix product maps a candidate's rows to the input of the first
    hidden layer, the sum of the vocabularies' embeddings, and the sum of the first-order terms. The pairwise
    term is half the square of the sum of the embeddings minus half the sum of their squares (Rendle, ICDM
    2010). The sum of squares has one term per row, so it is folded into the first-order weights.
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
        self.input_width = len(offsets) * _WIDTH
        hidden, second, out = trained.deep[0], trained.deep[3], trained.out

        weight = np.zeros((len(offsets), _WIDTH, HIDDEN[0] + DIM + 1), dtype=np.float32)
        embedding_weights, number_weights = np.split(hidden.weight.numpy(), [len(offsets) * DIM])
        weight[:, :DIM, : HIDDEN[0]] = embedding_weights.reshape(len(offsets), DIM, HIDDEN[0])
        weight[vocabularies:, _NUMBER, : HIDDEN[0]] = number_weights
        weight[:vocabularies, :DIM, HIDDEN[0] : -1] = np.eye(DIM)
        weight[:, _FIRST, -1] = 1
        first = trained.numbers.bias.numpy() + out.bias.numpy()
        bias = np.concatenate([hidden.bias.numpy(), np.zeros(DIM, dtype=np.float32), first])
        self.all = _linear(weight.reshape(self.input_width, -1), bias)
        self.second = _linear(second.weight.numpy(), second.bias.numpy())
        self.out = nn.Linear(HIDDEN[1], 1, bias_attr=False)
        self.out.weight.set_value(out.weight.numpy())

    def forward(self, ids: paddle.Tensor) -> paddle.Tensor:
        """Return the probability that the user buys the item, float32 (N, 1)."""
        sums = self.all(paddle.reshape(self.rows(ids + self.offsets), [-1, self.input_width]))
        deep = self.out(functional.relu(self.second(functional.relu(sums[:, : HIDDEN[0]]))))
        total, first = sums[:, HIDDEN[0] : -1], sums[:, -1:]
        pairs = 0.5 * paddle.sum(total * total, axis=1, keepdim=True)
        return functional.sigmoid(first + pairs + deep)


def multiply_by_onednn(program: Path) -> None:
    """Mark the matrix products of a saved program for execution by oneDNN.

    A predictor respects the mark even with its own optimisations disabled; a build of Paddle without oneDNN
    ignores it. Paddle's default library, Intel MKL, takes three times as long for a hundred rows on AMD CPUs.
    """
    description = framework_pb2.ProgramDesc.FromString(program.read_bytes())
    for operation in (operation for block in description.blocks for operation in block.ops):
        if operation.type == "matmul_v2":
            operation.attrs.add(name="use_mkldnn", type=framework_pb2.BOOLEAN, b=True)
    program.write_bytes(description.SerializeToString())


def _id_rows(trained: DeepFM) -> np.ndarray:
    """Return the rows of the vocabulary ids, one vocabulary after the other: float32 (rows, _WIDTH)."""
    embeddings = trained.ids.weight.numpy()
    rows = np.zeros((len(embeddings), _WIDTH), dtype=np.float32)
    rows[:, :DIM] = embeddings
    rows[:, _FIRST] = trained.first.weight.numpy()[:, 0] - 0.5 * np.square(embeddings).sum(axis=1)
    return rows


def _level_rows(trained: DeepFM) -> np.ndarray:
    """Return the rows of each feature's levels: float32 (FEATURES, LEVELS, _WIDTH)."""
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
