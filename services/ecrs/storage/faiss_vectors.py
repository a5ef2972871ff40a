"""Item vectors in this process, by faiss."""

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import faiss
import numpy as np

from ecrs.bundle import Bundle
from ecrs.rpc.deadlines import bounded
from ecrs.rpc.errors import Unavailable
from ecrs.storage.vector_journal import Change, Journal, StoredVector
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
"""Vectors a list that its centre is found from. faiss takes 256 and twice as long, for searches no faster:
see docs/decisions/0006-the-index-follows-the-size.md."""


class FaissVectors:
    """A `VectorStore` over one bundle's `product_vectors.txt` and what was added and removed since.

    Everything that engagements the index does so on one thread, so changes and searches take turns. An
    index's id is a place in `_skus`, which only grows: a sku that gets another vector gets another id.
    Newcomers are in an index of their own besides.
    """

    def __init__(
        self, version: str, skus: list[str], vectors: np.ndarray, journal: Journal | None = None
    ) -> None:
        self._version = version
        self._skus = list(skus)
        self._id = {sku: number for number, sku in enumerate(skus)}
        self._index = build_index(vectors)
        self._newcomers = faiss.IndexIDMap(faiss.IndexFlatL2(vectors.shape[1]))
        self._cold_start_category: dict[int, int] = {}  # of the newcomers' ids
        self._journal = journal
        if journal:
            self._apply(list(journal.read(vectors.shape[1])))
        # OpenMP counts threads by thread: this one, too, would else wait for helpers on busy cores.
        self._thread = ThreadPoolExecutor(1, "faiss", initializer=faiss.omp_set_num_threads, initargs=(1,))

    @classmethod
    def load(cls, bundle: Bundle, items_dir: Path | None = None) -> Self:
        """With `items_dir`, changes are kept there and made again here; without, a restart forgets them.

        Raises JournalError if they cannot be read.
        """
        count = bundle.count("product_vectors.txt")
        skus, vectors = read_vectors(bundle.lines("product_vectors.txt"), count)
        journal = Journal(items_dir, bundle.version) if items_dir else None
        return cls(bundle.version, skus, vectors, journal)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)

    async def search(self, vector: np.ndarray, n: int, timeout_s: float) -> Neighbours:
        return await self._run("search", lambda: self._nearest(self._index, vector, n), timeout_s)

    async def search_cold_start(self, vector: np.ndarray, n: int, timeout_s: float) -> Neighbours:
        if not self._cold_start_category:
            return NO_NEIGHBOURS
        return await self._run("search", lambda: self._nearest(self._newcomers, vector, n), timeout_s)

    def _nearest(self, index: faiss.Index, vector: np.ndarray, n: int) -> Neighbours:
        if not index.ntotal:
            return NO_NEIGHBOURS
        query = np.ascontiguousarray(vector, dtype=np.float32).reshape(1, -1)
        distances, ids = index.search(query, min(n, index.ntotal))
        found = ids[0] >= 0  # faiss pads with -1 where the probed lists hold fewer than n
        numbers = ids[0][found].tolist()
        cold_start_category = np.zeros(len(numbers), dtype=np.int64)
        if index is self._newcomers:
            cold_start_category[:] = [self._cold_start_category[number] for number in numbers]
        return Neighbours(
            [self._skus[number] for number in numbers], distances[0][found], cold_start_category
        )

    async def version(self, timeout_s: float) -> str:
        return self._version

    async def count(self, timeout_s: float) -> int:
        return self._index.ntotal

    async def upsert(
        self,
        version: str,
        skus: Sequence[str],
        vectors: np.ndarray,
        cold_start_category: Sequence[int],
        timeout_s: float,
    ) -> None:
        check_version(self._version, version)
        changes: list[Change] = list(zip(skus, map(StoredVector, vectors, cold_start_category), strict=True))
        await self._run("update", lambda: self._change(changes), timeout_s)

    async def remove(self, version: str, skus: Sequence[str], timeout_s: float) -> None:
        check_version(self._version, version)
        changes: list[Change] = [(sku, None) for sku in skus]
        await self._run("update", lambda: self._change(changes), timeout_s)

    def _change(self, changes: list[Change]) -> None:
        """Write the changes down, then make them: what was made is never forgotten."""
        if self._journal:
            try:
                self._journal.write(changes)
            except OSError as error:
                raise Unavailable(f"the change cannot be written down ({error.strerror})") from error
        self._apply(changes)

    def _apply(self, changes: list[Change]) -> None:
        last = dict(changes)  # of several changes to one sku
        gone = [number for sku in last if (number := self._id.pop(sku, None)) is not None]
        if gone:
            for index in (self._index, self._newcomers):
                index.remove_ids(faiss.IDSelectorBatch(np.array(gone, dtype=np.int64)))
            for number in gone:
                self._cold_start_category.pop(number, None)
        added = {sku: placed for sku, placed in last.items() if placed is not None}
        if not added:
            return
        ids = np.arange(len(self._skus), len(self._skus) + len(added))
        self._skus.extend(added)
        self._id.update(zip(added, ids.tolist(), strict=True))
        vectors = np.stack([placed.vector for placed in added.values()]).astype(np.float32)
        self._index.add_with_ids(vectors, ids)
        cold_start_category = np.array([placed.cold_start_category for placed in added.values()])
        new = cold_start_category > 0
        if new.any():
            self._newcomers.add_with_ids(vectors[new], ids[new])
            self._cold_start_category.update(
                zip(ids[new].tolist(), cold_start_category[new].tolist(), strict=True)
            )

    async def _run(self, what: str, job: Callable[[], T], timeout_s: float) -> T:
        done = asyncio.get_running_loop().run_in_executor(self._thread, job)
        return await bounded(timeout_s, f"the vector {what}", done, dependency="faiss")


def build_index(vectors: np.ndarray) -> faiss.Index:
    """An index of the vectors under the ids 0, 1, …, that can `add_with_ids` and `remove_ids`."""
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
    _widen_until_right(index, vectors)
    return index


def _widen_until_right(index: faiss.IndexIVFFlat, vectors: np.ndarray) -> None:
    """Probe as many lists as it takes to find MIN_INDEX_RECALL of a sample's true neighbours.

    How many that is depends on how the catalogue clusters: from 1 % of the lists to nearly all. In steps
    of a quarter: a search takes as long as it probes.
    """
    sample = np.ascontiguousarray(sample_vectors(vectors))
    exact = faiss.IndexFlatL2(vectors.shape[1])
    exact.add(vectors)
    farthest = exact.search(sample, CHECKED_NEIGHBOURS)[0][:, -1:]
    index.nprobe = max(index.nlist // 128, 1)
    while index.nprobe < index.nlist:
        found = (index.search(sample, CHECKED_NEIGHBOURS)[0] <= farthest + DISTANCE_TOLERANCE).mean(axis=1)
        if (
            found.mean() - 2 * found.std() / math.sqrt(len(found)) >= MIN_INDEX_RECALL
        ):  # also of other queries
            return
        index.nprobe = min(index.nprobe + max(index.nprobe // 4, 1), index.nlist)
