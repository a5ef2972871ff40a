"""Opens the journal of item changes that the settings name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ecrs.settings import JournalSettings
from ecrs.storage.item_journal import ItemJournal
from ecrs.storage.redis_item_journal import RedisItemJournal
from ecrs.storage.redis_profiles import open_redis
from ecrs.storage.sqlite_item_journal import SqliteItemJournal

SQLITE = "sqlite:///"


@asynccontextmanager
async def open_item_journal(settings: JournalSettings) -> AsyncIterator[ItemJournal]:
    """Open the journal while the context is open. Raises ValueError if ECRS_ITEM_JOURNAL names none."""
    if settings.item_journal == "redis":
        async with open_redis(settings) as redis:
            yield RedisItemJournal(redis)
    elif settings.item_journal.startswith(SQLITE):
        with SqliteItemJournal(Path(settings.item_journal.removeprefix(SQLITE))) as journal:
            yield journal
    else:
        raise ValueError(f"ECRS_ITEM_JOURNAL: {settings.item_journal!r} is neither redis nor {SQLITE}PATH")
