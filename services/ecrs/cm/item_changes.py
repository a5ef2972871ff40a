"""Adds, changes and removes items, and sets their stock, while the platform runs.

A change is written to the journal of item changes first. The item records in the profile store and the
vectors in recall follow the journal: cm applies what they have not applied yet, in a call that changes items
before it is answered, and in the background. So a change that failed half-way is completed by repeating the
call, by the next change, or within a second after the fault has gone.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import NoReturn, Protocol

import numpy as np
import structlog

from ecrs.cm.item_cache import ItemCache
from ecrs.domain.entities import Item
from ecrs.rpc.deadlines import Deadline
from ecrs.rpc.errors import Fault, Unavailable
from ecrs.rpc.waiting import is_set_within
from ecrs.serving.item_embedder import ItemEmbedder
from ecrs.storage.item_journal import PAGE_LIMIT, ChangeKind, ItemChange, ItemJournal
from ecrs.storage.item_writes import VECTORS
from ecrs.storage.profiles import ItemStore
from ecrs.storage.record_updates import STEP_LIMIT_S, apply_page
from ecrs.storage.seeded_version import SeededVersion

log = structlog.get_logger()

FOLLOW_S = 1.0
"""Time between two looks at the journal in the background."""
CHECK_TIMEOUT_S = 1.0
"""Longest wait of a health check for the first comparison of the records with the journal."""
BACKGROUND = "item-journal"
"""The log id of the calls to recall that the background makes."""


PAGE_LIMIT_S = 4 * STEP_LIMIT_S
"""Longest time for the steps of one page of changes in the background."""

_Embedded = Mapping[Item, np.ndarray]


class VectorUpdates(Protocol):
    """Changes of the item vectors in recall.

    Methods raise Unavailable if recall cannot be reached or serves another version than `version`.
    """

    async def upsert(
        self, version: str, items: Sequence[Item], vectors: np.ndarray, log_id: str, timeout_s: float
    ) -> None:
        """Add items or replace their vectors: float32, shape (len(items), DIM)."""

    async def remove(self, version: str, skus: Sequence[str], log_id: str, timeout_s: float) -> None:
        """Remove the vectors of items; unknown skus are ignored."""


class ItemChanges:
    """Writes changes to the journal and has records and vectors follow it."""

    def __init__(
        self,
        journal: ItemJournal,
        store: ItemStore,
        records: ItemCache,
        seeded: SeededVersion,
        tower: ItemEmbedder,
        vectors: VectorUpdates,
    ) -> None:
        self._journal = journal
        self._store = store
        self._records = records
        self._seeded = seeded
        self._tower = tower
        self._vectors = vectors
        self._lock = asyncio.Lock()  # one change or page at a time, so that recall gets them in their order
        self._faults: dict[str, str] = {}  # the reasons that changes wait, by follower
        self._has_caught_up = asyncio.Event()  # set after the first attempt

    async def put(self, items: Sequence[Item], log_id: str, deadline: Deadline) -> None:
        """Add or replace items. When this returns, recall can retrieve them and cm can look them up.

        Raises Unavailable if the item tower, the journal, the profile store or recall fails, or if they are
        of different bundle versions. If the journal was written before, the change is made later.
        """
        self._version()
        # Before the journal: if the item tower fails, nothing is changed.
        vectors = await self._tower.embed(items, deadline)
        embedded = dict(zip(items, vectors, strict=True))
        async with self._lock:
            await self._journal.put(items, _step("item_journal", deadline))
            await self._apply_to_records(deadline)
            await self._apply_to_vectors(log_id, deadline, embedded)

    async def remove(self, skus: Sequence[str], log_id: str, deadline: Deadline) -> list[str]:
        """Remove items and return the skus that were unknown. Raises Unavailable like `put`."""
        self._version()
        async with self._lock:
            missing = await self._missing(skus, deadline)
            if known := _without(skus, missing):
                await self._journal.remove(known, _step("item_journal", deadline))
            await self._apply_to_records(deadline)
            await self._apply_to_vectors(log_id, deadline, {})
        return missing

    async def set_stock(self, skus: Sequence[str], deadline: Deadline, *, in_stock: bool) -> list[str]:
        """Set the stock of items and return the unknown skus.

        Needs the journal and the profile store only. Raises Unavailable if one of them fails.
        """
        async with self._lock:
            missing = await self._missing(skus, deadline)
            if known := _without(skus, missing):
                await self._journal.set_stock(
                    known, in_stock=in_stock, timeout_s=_step("item_journal", deadline)
                )
            await self._apply_to_records(deadline)
        return missing

    async def follow(self) -> NoReturn:
        """Keep records and vectors up to date with the journal until the calling task is cancelled."""
        while True:
            await self.catch_up()
            await asyncio.sleep(FOLLOW_S)

    async def catch_up(self) -> None:
        """Apply all changes that records and vectors lack. Keeps a fault for `check`, and logs it once."""
        for name, apply_next in (
            ("records", self._apply_page_to_records),
            ("vectors", lambda deadline: self._apply_page_to_vectors(BACKGROUND, deadline, {})),
        ):
            try:
                done = False
                while not done:
                    async with self._lock:
                        done = await apply_next(Deadline.after(None, default_s=PAGE_LIMIT_S))
                self._faults.pop(name, None)
            except Fault as fault:
                if self._faults.get(name) != fault.text:
                    log.warning("item changes wait", of=name, reason=fault.text)
                self._faults[name] = fault.text
            self._has_caught_up.set()  # after the records; recall may not have started yet

    async def check(self) -> None:
        """Raise Unavailable if the records do not follow the journal.

        A fault of recall is not reported: it is recall's own, and cm can look up items without it.
        """
        if not await is_set_within(CHECK_TIMEOUT_S, self._has_caught_up):
            raise Unavailable("the item records have not been compared with the item journal yet")
        if fault := self._faults.get("records"):
            raise Unavailable(f"the item records do not follow the item journal: {fault}")

    async def _missing(self, skus: Sequence[str], deadline: Deadline) -> list[str]:
        """Return the skus without a record, once the records have all changes made so far."""
        await self._apply_to_records(deadline)
        return await self._store.missing(skus, _step("redis", deadline))

    async def _apply_to_records(self, deadline: Deadline) -> None:
        while not await self._apply_page_to_records(deadline):
            pass

    async def _apply_to_vectors(self, log_id: str, deadline: Deadline, embedded: _Embedded) -> None:
        while not await self._apply_page_to_vectors(log_id, deadline, embedded):
            pass

    async def _apply_page_to_records(self, deadline: Deadline) -> bool:
        """Apply the next changes to the records; return True if these were the last ones."""
        skus: list[str] = []
        try:
            return await apply_page(self._journal, self._store, deadline, skus.extend) is not None
        finally:
            self._records.forget(skus)  # also after a fault: the store may have made the change

    async def _apply_page_to_vectors(self, log_id: str, deadline: Deadline, embedded: _Embedded) -> bool:
        """Send the next changes to recall; return True if these were the last ones.

        `embedded`: vectors of items that were computed before.
        """
        after = await self._store.position(VECTORS, _step("redis", deadline))
        page = await self._journal.read(after, PAGE_LIMIT, _step("item_journal", deadline))
        if page.position == after:
            return True
        await self._send(page.changes, log_id, deadline, embedded)
        if await self._store.apply(VECTORS, after, page.position, [], _step("redis", deadline)):
            return page.is_last
        # Another replica has sent changes meanwhile, and recall may have got its newer ones before ours. Both
        # send all of them again.
        await self._store.set_position(VECTORS, after, _step("redis", deadline))
        return False

    async def _send(
        self, changes: Sequence[ItemChange], log_id: str, deadline: Deadline, embedded: _Embedded
    ) -> None:
        items = [change.item for change in changes if change.kind is ChangeKind.PUT]
        removed = [change.sku for change in changes if change.kind is ChangeKind.REMOVED]
        if items:
            version = self._version()
            if any(item not in embedded for item in items):
                embedded = dict(zip(items, await self._tower.embed(items, deadline), strict=True))
            vectors = np.stack([embedded[item] for item in items])
            await self._vectors.upsert(version, items, vectors, log_id, _step("recall", deadline))
        if removed:
            await self._vectors.remove(self._version(), removed, log_id, _step("recall", deadline))

    def _version(self) -> str:
        """Return the version of the item tower and the profile store. Raises Unavailable if they differ."""
        tower, seeded = self._tower.version, self._seeded.version
        if tower != seeded:
            held = seeded or "nothing yet"
            raise Unavailable(f"versions differ: the profile store holds {held}, the item tower is {tower}")
        return tower


def _step(stage: str, deadline: Deadline) -> float:
    return deadline.share(stage, limit_s=STEP_LIMIT_S)


def _without(skus: Sequence[str], missing: Sequence[str]) -> list[str]:
    unknown = set(missing)
    return [sku for sku in skus if sku not in unknown]
