"""Builds the service recall from its settings."""

from collections.abc import Awaitable
from contextlib import AsyncExitStack

from pydantic import Field

from ecrs.bundle import Bundle
from ecrs.contract.recall_pb2_grpc import add_RecallServiceServicer_to_server
from ecrs.metrics import set_bundle_version
from ecrs.ports import PORTS
from ecrs.recall.journal_replay import JournalReplay
from ecrs.recall.retriever import Retriever
from ecrs.recall.service import RecallService
from ecrs.recall.tables import load_candidate_generator
from ecrs.recall.vector_updates import VectorUpdater
from ecrs.rpc import server
from ecrs.rpc.authorization import WriteAuthorization
from ecrs.rpc.settings import ServerSettings
from ecrs.serving.item_embedder import ItemEmbedder, open_item_embedder
from ecrs.serving.models import open_model
from ecrs.settings import (
    BundleSettings,
    ItemTowerSettings,
    JournalSettings,
    VectorSettings,
    WriteSettings,
)
from ecrs.storage.item_journals import open_item_journal
from ecrs.storage.vector_stores import open_vector_store
from ecrs.wire.limits import LIMITS


class RecallSettings(
    ServerSettings, BundleSettings, VectorSettings, JournalSettings, ItemTowerSettings, WriteSettings
):
    """Settings of recall, from the environment."""

    user_tower: str = Field("inprocess", description="`inprocess`, or serving://host:port")


SETTINGS = RecallSettings
WRITING_METHODS = ("/recall.RecallService/upsert_vectors", "/recall.RecallService/remove_vectors")


async def build(settings: RecallSettings, stack: AsyncExitStack) -> server.Service:
    """Build recall. Its model and vector store stay open until `stack` closes.

    Raises BundleError for an invalid bundle.
    """
    bundle = Bundle.open(settings.bundle)
    user_tower = await stack.enter_async_context(open_model(settings.user_tower, bundle, "user_tower"))
    vectors = await stack.enter_async_context(open_vector_store(settings, bundle))
    generator = load_candidate_generator(bundle, bundle.catalogue)
    retriever = Retriever(bundle, generator, user_tower, vectors)
    set_bundle_version("recall", bundle.version)
    updates = VectorUpdater(bundle, user_tower.signature.width, vectors)
    dependencies = {"vectors": retriever.check}
    if settings.vectors == "faiss":  # in memory; what Milvus holds survives a restart
        journal = await stack.enter_async_context(open_item_journal(settings))

        def open_tower() -> Awaitable[ItemEmbedder]:
            return stack.enter_async_context(open_item_embedder(settings.item_tower, bundle))

        dependencies["item_journal"] = JournalReplay(journal, updates, open_tower).check
    servicer = RecallService(retriever, updates, settings.call_timeout_s)
    return server.Service(
        name="recall",
        port=PORTS["recall"],
        full_name="recall.RecallService",
        register=lambda grpc_server: add_RecallServiceServicer_to_server(servicer, grpc_server),
        dependencies=dependencies,
        limits=LIMITS,
        interceptors=[WriteAuthorization("recall", WRITING_METHODS, settings.write_token)],
    )
