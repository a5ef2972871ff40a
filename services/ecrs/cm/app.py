"""Builds the service cm from its settings."""

from contextlib import AsyncExitStack

from pydantic import Field

from ecrs.bundle import Bundle
from ecrs.cm.item_cache import ItemCache
from ecrs.cm.item_changes import ItemChanges
from ecrs.cm.recall_vectors import RecallVectorUpdates
from ecrs.cm.service import CMService
from ecrs.contract.cm_pb2_grpc import add_CMServiceServicer_to_server
from ecrs.ports import PORTS
from ecrs.rpc import server
from ecrs.rpc.authorization import WriteAuthorization
from ecrs.rpc.client import open_channel
from ecrs.rpc.settings import ServerSettings
from ecrs.rpc.supervision import in_background
from ecrs.serving.item_embedder import open_item_embedder
from ecrs.settings import BundleSettings, ItemTowerSettings, JournalSettings, TargetSettings, WriteSettings
from ecrs.storage import redis_profiles
from ecrs.storage.item_journals import open_item_journal
from ecrs.storage.seeded_version import SeededVersion
from ecrs.wire.limits import LIMITS


class CmSettings(
    ServerSettings, JournalSettings, BundleSettings, ItemTowerSettings, TargetSettings, WriteSettings
):
    """Settings of cm, from the environment."""

    item_age_s: float = Field(
        5.0, ge=0, description="how long cm caches an item record, in seconds; 0 disables the cache"
    )


SETTINGS = CmSettings
WRITING_METHODS = ("/cm.CMService/put_items", "/cm.CMService/remove_items", "/cm.CMService/set_stock")


async def build(settings: CmSettings, stack: AsyncExitStack) -> server.Service:
    """Build cm. Its connections stay open until `stack` closes. Raises BundleError for an invalid bundle."""
    store = await stack.enter_async_context(redis_profiles.connect_profiles(settings))
    seeded = SeededVersion("cm", store)
    bundle = Bundle.open(settings.bundle)
    tower = await stack.enter_async_context(open_item_embedder(settings.item_tower, bundle))
    recall = await stack.enter_async_context(open_channel(settings.recall_target))
    records = ItemCache(store, seeded, settings.item_age_s)
    vectors = RecallVectorUpdates(recall, settings.write_token)
    journal = await stack.enter_async_context(open_item_journal(settings))
    changes = ItemChanges(journal, store, records, seeded, tower, vectors)
    await stack.enter_async_context(in_background("cm", "item_journal", changes.follow))
    servicer = CMService(records, seeded, changes, settings.call_timeout_s)
    return server.Service(
        name="cm",
        port=PORTS["cm"],
        full_name="cm.CMService",
        register=lambda grpc_server: add_CMServiceServicer_to_server(servicer, grpc_server),
        # The item tower and recall are not checked: they are only needed for changes, not for lookups.
        check=seeded.check,
        dependencies={"item_journal": changes.check},
        limits=LIMITS,
        interceptors=[WriteAuthorization("cm", WRITING_METHODS, settings.write_token)],
    )
