"""Applies the journal of item changes to a vector store in memory, which starts from the bundle's vectors."""

from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from ecrs.domain.entities import Item
from ecrs.recall.vector_updates import VectorUpdater
from ecrs.rpc.deadlines import Deadline
from ecrs.serving.item_embedder import ItemEmbedder
from ecrs.serving.signature import MAX_ROWS
from ecrs.storage.item_journal import START, ChangeKind, ItemJournal

PAGE = 10 * MAX_ROWS
"""Changes applied at a time: many, because faiss visits all vectors to remove some."""
PAGE_LIMIT_S = 30.0
"""Longest time to read and apply a page."""


class JournalReplay:
    """Replays the journal once, with vectors computed by the bundle's own item tower.

    Changes that are made later come from cm. `open_tower` is called when the first item needs a vector: the
    tower takes memory, and in most shops no item was added.
    """

    def __init__(
        self,
        journal: ItemJournal,
        updates: VectorUpdater,
        open_tower: Callable[[], Awaitable[ItemEmbedder]],
    ) -> None:
        self._journal = journal
        self._updates = updates
        self._open_tower = open_tower
        self._tower: ItemEmbedder | None = None
        self._position = START
        self._done = False

    async def check(self) -> None:
        """Replay what has not been replayed yet. Raises a Fault if that fails; the next check goes on."""
        while not self._done:
            deadline = Deadline.after(None, default_s=PAGE_LIMIT_S)
            # Nothing from cm between the read and the update: it might be newer than what was read.
            async with self._updates.alone() as updates:
                page = await self._journal.read(self._position, PAGE, deadline.remaining_s())
                if removed := [change.sku for change in page.changes if change.kind is ChangeKind.REMOVED]:
                    await updates.remove(removed, deadline)
                if items := [change.item for change in page.changes if change.kind is ChangeKind.PUT]:
                    vectors = await self._embed(items, deadline)
                    skus, categories = [item.sku for item in items], [item.category for item in items]
                    await updates.put(skus, vectors, categories, deadline)
                self._position, self._done = page.position, page.is_last

    async def _embed(self, items: Sequence[Item], deadline: Deadline) -> np.ndarray:
        if self._tower is None:
            self._tower = await self._open_tower()
        batches = (items[start : start + MAX_ROWS] for start in range(0, len(items), MAX_ROWS))
        return np.concatenate([await self._tower.embed(batch, deadline) for batch in batches])
