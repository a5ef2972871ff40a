"""Reads the journal of item changes, so that fallbacks leave out items that were removed or sold out."""

import asyncio
from collections.abc import Callable, Sequence
from typing import NoReturn

from ecrs.rpc.errors import Fault, Unavailable
from ecrs.rpc.waiting import is_set_within
from ecrs.storage.item_journal import START, ItemChange, ItemJournal, pages

READ_S = 1.0
"""Time between two reads."""
CHECK_TIMEOUT_S = 1.0
"""Longest wait of a health check for the first read."""
PAGE_LIMIT_S = 5.0
"""Longest time to read one page of changes."""


class JournalReader:
    """Passes each change of the journal to `apply`, the former ones at first, then new ones within READ_S.

    While the journal cannot be read, the changes passed so far stay in effect.
    """

    def __init__(self, journal: ItemJournal, apply: Callable[[Sequence[ItemChange]], None]) -> None:
        self._journal = journal
        self._apply = apply
        self._position = START
        self._fault: str | None = None
        self._has_read = asyncio.Event()  # set after the first attempt

    async def follow(self) -> NoReturn:
        """Read the journal until the calling task is cancelled."""
        while True:
            try:
                async for page in pages(self._journal, self._position, PAGE_LIMIT_S):
                    self._apply(page.changes)
                    self._position = page.position
                self._fault = None
            except Fault as fault:
                self._fault = fault.text
            self._has_read.set()
            await asyncio.sleep(READ_S)

    async def check(self) -> None:
        """Raise Unavailable if the last read failed, or while the first one has not ended."""
        if not await is_set_within(CHECK_TIMEOUT_S, self._has_read):
            raise Unavailable("the item journal has not been read yet")
        if self._fault is not None:
            raise Unavailable(self._fault)
