"""Where what users took is lost on the way from the catalogue to a list of twenty."""

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
"""Shares of a user's truth, in the order of `stages`.

`sold before`: in the catalogue, all else is filtered out; each channel's first CANDIDATES; `any channel`:
all that they found; `candidates`: the merged ones that the ranker sees; in the ranked lists; `best 20 of
the candidates`: if the ranker made no mistake; `best 20`: in a list of that length if nobody did;
`hidden by the cap`: bought before, but no longer in the user's aggregates, which keep MAX_PRODUCTS.
"""

ASKED, NEIGHBOURS, SEARCH_TIMEOUT_S = 500, 100, 10.0
_TIE = 1e-5


def stages(
    answer: OfflineAnswer,
    taken: np.ndarray,
    sold: np.ndarray,
    bought: np.ndarray,
    aggregates: np.ndarray,
) -> list[float]:
    """STAGES of one user.

    `taken`: the items to find; `sold`, bool (items,): the catalogue; `bought`: what the user bought
    before; `aggregates`: what the user's aggregates hold, bought or engaged.
    """
    found, positions = answer.retrieved.item, answer.retrieved.positions
    right = np.isin(found, taken)
    channels = [float(right[positions[:, channel] <= CANDIDATES].sum()) for channel in range(len(CHANNELS))]
    candidates = float(np.isin(answer.candidates.item, taken).sum())
    ranked = np.isin(answer.ranked[:LIST_LENGTH], taken)
    hidden = np.isin(taken, bought) & ~np.isin(taken, aggregates)
    counts = [
        *(float(sold[taken].sum()), *channels, float(right.sum()), candidates),
        *(float(ranked.sum()), float(ranked[:SHORT].sum()), min(SHORT, candidates), min(SHORT, len(taken))),
        float(hidden.sum()),
    ]
    return [count / len(taken) for count in counts]


def index_loss(bundle: Bundle, queries: np.ndarray) -> dict[str, float]:
    """What the bundle's vector index, as the embedded profile serves it, finds of the true neighbours.

    `queries`, float32 (N, dim), user vectors, of which at most ASKED are tried. A neighbour as near as the
    last true one is right.
    """
    skus, vectors = read_vectors(bundle.lines("product_vectors.txt"), bundle.count("product_vectors.txt"))
    queries = queries[np.unique(np.linspace(0, len(queries) - 1, min(ASKED, len(queries))).astype(int))]
    n = min(NEIGHBOURS, len(skus))
    with FaissVectors(bundle.version, skus, vectors) as store:
        distances = asyncio.run(_search(store, queries, n))
    right = 0
    for query, found in zip(queries, distances, strict=True):
        exact = ((vectors - query) ** 2).sum(axis=1)
        right += int((found <= np.partition(exact, n - 1)[n - 1] + _TIE).sum())
    return {
        "queries": len(queries),
        "neighbours": n,
        "recall": right / (n * len(queries)),
        "exact_up_to": EXACT_INDEX_LIMIT,
    }


async def _search(store: FaissVectors, queries: np.ndarray, n: int) -> list[np.ndarray]:
    """Distances of what each search gives."""
    return [(await store.search(query, n, SEARCH_TIMEOUT_S)).distance for query in queries]
