"""Applies the journal of item changes to a collection of item vectors in Milvus."""

from collections.abc import Awaitable, Callable, Sequence

import numpy as np
from pymilvus import MilvusClient

from ecrs.bundle import Bundle
from ecrs.domain.entities import Item
from ecrs.rpc.deadlines import Deadline
from ecrs.rpc.waiting import wait_until
from ecrs.serving.item_embedder import ItemEmbedder
from ecrs.storage.item_journal import ChangeKind, ItemJournal, pages
from ecrs.storage.milvus_vectors import filter_of, rows_of

STEP_LIMIT_S = 10.0
"""Longest time to read a page of changes, and to compute its vectors."""


class ChangedVectors:
    """The vectors of the items that people changed, computed by the item tower of one bundle.

    `open_tower` is called when the first item needs a vector. If the tower does not answer, or still serves
    another bundle, it is tried again for `wait_s` seconds.
    """

    def __init__(
        self,
        bundle: Bundle,
        journal: ItemJournal,
        open_tower: Callable[[], Awaitable[ItemEmbedder]],
        *,
        wait_s: float = 0.0,
    ) -> None:
        self._bundle = bundle
        self._journal = journal
        self._open_tower = open_tower
        self._tower: ItemEmbedder | None = None
        self._wait_s = wait_s

    async def apply(self, client: MilvusClient, name: str, after: str) -> str:
        """Apply the changes after a position to collection `name`, and return the position reached.

        Raises Unavailable or DeadlineExceeded if the journal or the item tower fails.
        """
        async for page in pages(self._journal, after, STEP_LIMIT_S):
            if removed := [change.sku for change in page.changes if change.kind is ChangeKind.REMOVED]:
                client.delete(name, filter=filter_of(removed))
            if items := [change.item for change in page.changes if change.kind is ChangeKind.PUT]:
                vectors = await self._embed(items)
                skus = [item.sku for item in items]
                categories = self._bundle.cold_start_categories(skus, [item.category for item in items])
                client.upsert(name, rows_of(skus, vectors, categories))
            after = page.position
        return after

    async def _embed(self, items: Sequence[Item]) -> np.ndarray:
        tower = self._tower = self._tower or await self._open_tower()

        async def attempt() -> np.ndarray:
            return await tower.embed(items, Deadline.after(None, default_s=STEP_LIMIT_S))

        return await wait_until("the item tower", attempt, limit_s=self._wait_s)
