"""The recommendation funnel: how much of the ground truth is left after each stage of the platform."""

import asyncio

import numpy as np

from ecrs.bundle import Bundle
from ecrs.domain.sizes import CANDIDATES
from ecrs.features.ranking import CHANNELS
from ecrs.storage.faiss_vectors import FaissVectors
from ecrs.storage.vectors import EXACT_INDEX_LIMIT, read_vectors
from ecrs_models.evaluation.baselines import LIST_LENGTH
from ecrs_models.evaluation.metrics import CUTOFFS
from ecrs_models.evaluation.offline_platform import OfflineAnswer

SHORT = CUTOFFS[0]
STAGES = (
    *("sold before", *CHANNELS, "any channel", "candidates"),
    *(f"list of {LIST_LENGTH}", f"list of {SHORT}", f"best {SHORT} of the candidates", f"best {SHORT}"),
    "hidden by the cap",
)
"""Names of the shares of a user's ground truth that `stages` returns, in its order.

`sold before`: items in the catalogue; all others are filtered out. CHANNELS: the first CANDIDATES of each
retrieval channel. `any channel`: everything that the channels retrieved. `candidates`: the blended
candidates that the ranker scores. `list of …`: the ranked lists. `best 20 of the candidates`: a perfect
ranking of the candidates. `best 20`: the most that a list of 20 can hold. `hidden by the cap`: bought
before, but no longer in the user's aggregates, which keep at most MAX_PRODUCTS.
"""

MAX_QUERIES, NEIGHBOURS, SEARCH_TIMEOUT_S = 500, 100, 10.0
_TIE = 1e-5
"""Difference of squared distances up to which two items count as equally near."""


def stages(
    answer: OfflineAnswer,
    truth: np.ndarray,
    sold: np.ndarray,
    bought: np.ndarray,
    aggregates: np.ndarray,
) -> list[float]:
    """Return the share of a user's ground truth at each of STAGES.

    `truth`: the items to find; `sold`, bool (items,): the catalogue; `bought`: items that the user bought
    before the period; `aggregates`: items in the user's aggregates, bought or engaged with.
    """
    retrieved, positions = answer.retrieved.item, answer.retrieved.positions
    hits = np.isin(retrieved, truth)
    channels = [float(hits[positions[:, channel] <= CANDIDATES].sum()) for channel in range(len(CHANNELS))]
    candidates = float(np.isin(answer.candidates.item, truth).sum())
    ranked = np.isin(answer.ranked[:LIST_LENGTH], truth)
    hidden = np.isin(truth, bought) & ~np.isin(truth, aggregates)
    counts = [
        *(float(sold[truth].sum()), *channels, float(hits.sum()), candidates),
        *(float(ranked.sum()), float(ranked[:SHORT].sum()), min(SHORT, candidates), min(SHORT, len(truth))),
        float(hidden.sum()),
    ]
    return [count / len(truth) for count in counts]


def index_loss(bundle: Bundle, queries: np.ndarray) -> dict[str, float]:
    """Measure the recall of the bundle's vector index, in the form that the embedded profile serves.

    `queries`, float32 (N, dim), are user vectors; at most MAX_QUERIES of them are searched. An item that is
    as near as the last true neighbour counts as correct.
    """
    skus, vectors = read_vectors(bundle.lines("product_vectors.txt"), bundle.count("product_vectors.txt"))
    queries = queries[np.unique(np.linspace(0, len(queries) - 1, min(MAX_QUERIES, len(queries))).astype(int))]
    n = min(NEIGHBOURS, len(skus))
    with FaissVectors(bundle.version, skus, vectors) as store:
        distances = asyncio.run(_search(store, queries, n))
    correct = 0
    for query, distance in zip(queries, distances, strict=True):
        exact = ((vectors - query) ** 2).sum(axis=1)
        correct += int((distance <= np.partition(exact, n - 1)[n - 1] + _TIE).sum())
    return {
        "queries": len(queries),
        "neighbours": n,
        "recall": correct / (n * len(queries)),
        "exact_up_to": EXACT_INDEX_LIMIT,
    }


async def _search(store: FaissVectors, queries: np.ndarray, n: int) -> list[np.ndarray]:
    """Search for each query's `n` nearest items. Returns their squared L2 distances."""
    return [(await store.search(query, n, SEARCH_TIMEOUT_S)).distance for query in queries]
