"""Item vectors in this process, by faiss."""

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import faiss
import numpy as np

from ecrs.bundle import Bundle
from ecrs.kit.errors import OutOfTime
from ecrs.recall.vectors import EXACT_UP_TO, LEAST_RECALL, NEIGHBOURS, SAMPLE, Neighbour, read_vectors


class FaissVectors:
    """A `VectorStore` over one bundle's `product_vectors.txt`."""

    def __init__(self, version: str, skus: list[str], vectors: np.ndarray) -> None:
        self._version = version
        self._skus = skus
        self._index = _build(vectors)
        # OpenMP counts threads by thread: this one, too, would else wait for helpers on busy cores.
        self._thread = ThreadPoolExecutor(1, "faiss", initializer=faiss.omp_set_num_threads, initargs=(1,))

    @classmethod
    def load(cls, bundle: Bundle) -> Self:
        count = bundle.count("product_vectors.txt")
        return cls(bundle.version, *read_vectors(bundle.lines("product_vectors.txt"), count))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)

    async def search(self, vector: np.ndarray, n: int, timeout_s: float) -> list[Neighbour]:
        query = np.ascontiguousarray(vector, dtype=np.float32).reshape(1, -1)
        n = min(n, len(self._skus))
        try:
            async with asyncio.timeout(timeout_s):
                loop = asyncio.get_running_loop()
                distances, rows = await loop.run_in_executor(self._thread, self._index.search, query, n)
        except TimeoutError:
            raise OutOfTime(f"the vector search took longer than {timeout_s * 1000:.0f} ms") from None
        # faiss pads with row -1 where the probed lists hold fewer than n.
        return [
            Neighbour(self._skus[row], distance)
            for row, distance in zip(rows[0].tolist(), distances[0].tolist(), strict=True)
            if row >= 0
        ]

    async def version(self, timeout_s: float) -> str:
        return self._version

    async def count(self, timeout_s: float) -> int:
        return self._index.ntotal


def _build(vectors: np.ndarray) -> faiss.Index:
    faiss.omp_set_num_threads(1)
    width = vectors.shape[1]
    quantizer = faiss.IndexFlatL2(width)
    if len(vectors) <= EXACT_UP_TO:
        quantizer.add(vectors)
        return quantizer
    lists = int(4 * math.sqrt(len(vectors)))
    index = faiss.IndexIVFFlat(quantizer, width, lists)
    index.train(vectors)
    index.add(vectors)
    _widen_until_right(index, vectors)
    return index


def _widen_until_right(index: faiss.IndexIVFFlat, vectors: np.ndarray) -> None:
    """Probe as many lists as it takes to find LEAST_RECALL of a sample's true neighbours.

    How many that is depends on how the catalogue clusters: from 1 % of the lists to nearly all.
    """
    sample = np.ascontiguousarray(vectors[:: max(len(vectors) // SAMPLE, 1)][:SAMPLE])
    exact = faiss.IndexFlatL2(vectors.shape[1])
    exact.add(vectors)
    farthest = exact.search(sample, NEIGHBOURS)[0][:, -1:]
    index.nprobe = max(index.nlist // 128, 1)
    while index.nprobe < index.nlist:
        if (index.search(sample, NEIGHBOURS)[0] <= farthest + 1e-5).mean() >= LEAST_RECALL:
            return
        index.nprobe = min(index.nprobe * 2, index.nlist)
