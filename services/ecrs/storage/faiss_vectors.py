"""The vector store of the embedded profile: a faiss index in this process.

It starts from the bundle's vectors; recall then adds what people changed, from the journal of item changes.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

import faiss
import numpy as np

from ecrs.bundle import Bundle
from ecrs.rpc.deadlines import bounded
from ecrs.storage.vectors import (
    CHECKED_NEIGHBOURS,
    DISTANCE_TOLERANCE,
    EXACT_INDEX_LIMIT,
    MIN_INDEX_RECALL,
    NO_NEIGHBOURS,
    Neighbours,
    check_version,
    read_vectors,
    sample_vectors,
)

T = TypeVar("T")

POINTS_PER_CENTROID = 64
"""Training vectors per list of the index. faiss' default of 256 takes twice as long to train and makes
searches no faster: see docs/decisions/0006-index-by-catalogue-size.md."""


class FaissVectors:
    """A `VectorStore` over one bundle's `product_vectors.txt` and the items added and removed since.

    The index is only used on one thread, so changes and searches never overlap. A faiss id is an index into
    `_skus`, which only grows: a sku that gets a new vector gets a new id. Cold-start items are in the main
    index and also in an index of their own.
    """

    def __init__(self, version: str, skus: list[str], vectors: np.ndarray) -> None:
        self._version = version
        self._skus = list(skus)
        self._id_of = {sku: faiss_id for faiss_id, sku in enumerate(skus)}
        self._index = build_index(vectors)
        self._cold_start_index = faiss.IndexIDMap(faiss.IndexFlatL2(vectors.shape[1]))
        self._cold_start_category: dict[int, int] = {}  # by faiss id
        # OpenMP's thread count is set per thread. With more than one, a search would wait for helper threads
        # on busy cores.
        self._thread = ThreadPoolExecutor(1, "faiss", initializer=faiss.omp_set_num_threads, initargs=(1,))

    @classmethod
    def load(cls, bundle: Bundle) -> Self:
        """Load a bundle's vectors. Raises BundleError if they cannot be read."""
        count = bundle.count("product_vectors.txt")
        skus, vectors = read_vectors(bundle.lines("product_vectors.txt"), count, bundle.manifest.dim)
        return cls(bundle.version, skus, vectors)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)

    async def search(self, vector: np.ndarray, n: int, timeout_s: float) -> Neighbours:
        """Search all items: exactly in a small catalogue, approximately above EXACT_INDEX_LIMIT."""
        return await self._run("search", lambda: self._nearest(self._index, vector, n), timeout_s)

    async def search_cold_start(self, vector: np.ndarray, n: int, timeout_s: float) -> Neighbours:
        """Search the cold-start items, exactly."""
        if not self._cold_start_category:
            return NO_NEIGHBOURS
        return await self._run("search", lambda: self._nearest(self._cold_start_index, vector, n), timeout_s)

    def _nearest(self, index: faiss.Index, vector: np.ndarray, n: int) -> Neighbours:
        if not index.ntotal:
            return NO_NEIGHBOURS
        query = np.ascontiguousarray(vector, dtype=np.float32).reshape(1, -1)
        distances, ids = index.search(query, min(n, index.ntotal))
        valid = ids[0] >= 0  # faiss pads with -1 if the probed lists hold fewer than n vectors
        found_ids = ids[0][valid].tolist()
        cold_start_category = np.zeros(len(found_ids), dtype=np.int64)
        if index is self._cold_start_index:
            cold_start_category[:] = [self._cold_start_category[faiss_id] for faiss_id in found_ids]
        return Neighbours(
            [self._skus[faiss_id] for faiss_id in found_ids], distances[0][valid], cold_start_category
        )

    async def version(self, timeout_s: float) -> str:
        """Return the version of the bundle that was loaded, without waiting."""
        return self._version

    async def count(self, timeout_s: float) -> int:
        """Return the number of vectors in the main index, without waiting."""
        return self._index.ntotal

    async def upsert(
        self,
        version: str,
        skus: Sequence[str],
        vectors: np.ndarray,
        cold_start_category: Sequence[int],
        timeout_s: float,
    ) -> None:
        """Add or replace vectors in the index."""
        check_version(self._version, version)
        await self._run("update", lambda: self._upsert(skus, vectors, cold_start_category), timeout_s)

    async def remove(self, version: str, skus: Sequence[str], timeout_s: float) -> None:
        """Remove items from the index."""
        check_version(self._version, version)
        await self._run("update", lambda: self._remove(skus), timeout_s)

    def _upsert(self, skus: Sequence[str], vectors: np.ndarray, cold_start_category: Sequence[int]) -> None:
        self._remove(skus)
        ids = np.arange(len(self._skus), len(self._skus) + len(skus))
        self._skus.extend(skus)
        self._id_of.update(zip(skus, ids.tolist(), strict=True))
        vectors = vectors.astype(np.float32)
        self._index.add_with_ids(vectors, ids)
        categories = np.array(cold_start_category)
        cold_start = categories > 0
        if cold_start.any():
            self._cold_start_index.add_with_ids(vectors[cold_start], ids[cold_start])
            self._cold_start_category.update(
                zip(ids[cold_start].tolist(), categories[cold_start].tolist(), strict=True)
            )

    def _remove(self, skus: Sequence[str]) -> None:
        old_ids = [old_id for sku in skus if (old_id := self._id_of.pop(sku, None)) is not None]
        if not old_ids:
            return
        for index in (self._index, self._cold_start_index):
            index.remove_ids(faiss.IDSelectorBatch(np.array(old_ids, dtype=np.int64)))
        for old_id in old_ids:
            self._cold_start_category.pop(old_id, None)

    async def _run(self, name: str, job: Callable[[], T], timeout_s: float) -> T:
        """Run `job` on the index's thread; `name` appears in error texts."""
        result = asyncio.get_running_loop().run_in_executor(self._thread, job)
        return await bounded(timeout_s, f"the vector {name}", result, dependency="faiss")


def build_index(vectors: np.ndarray) -> faiss.Index:
    """Index `vectors`, float32, shape (N, DIM), under the ids 0 to N - 1.

    The index supports `add_with_ids` and `remove_ids`. It scans all vectors up to EXACT_INDEX_LIMIT of them,
    and above that it is an IVF index that has passed the check of MIN_INDEX_RECALL.
    """
    faiss.omp_set_num_threads(1)
    width = vectors.shape[1]
    quantizer = faiss.IndexFlatL2(width)
    if len(vectors) <= EXACT_INDEX_LIMIT:
        flat = faiss.IndexIDMap(quantizer)
        flat.add_with_ids(vectors, np.arange(len(vectors)))
        return flat
    lists = int(4 * math.sqrt(len(vectors)))
    index = faiss.IndexIVFFlat(quantizer, width, lists)
    index.cp.max_points_per_centroid = POINTS_PER_CENTROID
    index.train(vectors)
    index.add(vectors)
    _widen_until_accurate(index, vectors)
    return index


def _widen_until_accurate(index: faiss.IndexIVFFlat, vectors: np.ndarray) -> None:
    """Raise the number of probed lists until a sample's true neighbours are found at MIN_INDEX_RECALL.

    The number depends on how the catalogue clusters: from 1 % of the lists to nearly all of them. It grows in
    steps of a quarter, because the time of a search is proportional to it. In the worst case all lists are
    probed, which is an exact scan.
    """
    sample = np.ascontiguousarray(sample_vectors(vectors))
    exact = faiss.IndexFlatL2(vectors.shape[1])
    exact.add(vectors)
    farthest = exact.search(sample, CHECKED_NEIGHBOURS)[0][:, -1:]
    index.nprobe = max(index.nlist // 128, 1)
    while index.nprobe < index.nlist:
        distances = index.search(sample, CHECKED_NEIGHBOURS)[0]
        recall = (distances <= farthest + DISTANCE_TOLERANCE).mean(axis=1)
        # Minus two standard errors, so that queries outside of the sample reach the limit, too.
        if recall.mean() - 2 * recall.std() / math.sqrt(len(recall)) >= MIN_INDEX_RECALL:
            return
        index.nprobe = min(index.nprobe + max(index.nprobe // 4, 1), index.nlist)
