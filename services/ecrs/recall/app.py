"""Build recall and serve it."""

from contextlib import AsyncExitStack

from pydantic import Field

from ecrs.bundle import Bundle
from ecrs.contract.recall_pb2_grpc import add_RecallServiceServicer_to_server
from ecrs.kit import server
from ecrs.kit.observe import show_bundle
from ecrs.kit.settings import BundleSettings, ServerSettings, VectorSettings
from ecrs.model.served import open_model
from ecrs.recall.retriever import Retriever
from ecrs.recall.service import RecallService
from ecrs.recall.tables import load_proposer
from ecrs.recall.updates import Updates
from ecrs.recall.vectors import open_vectors


class Settings(ServerSettings, BundleSettings, VectorSettings):
    user_tower: str = Field("inprocess", description="`inprocess`, or serving://host:port")


async def build(settings: Settings, stack: AsyncExitStack) -> server.Service:
    bundle = Bundle.open(settings.bundle)
    user_tower = await stack.enter_async_context(open_model(settings.user_tower, bundle, "user_tower"))
    vectors = await stack.enter_async_context(open_vectors(settings, bundle))
    proposer = load_proposer(bundle, bundle.catalogue)
    retriever = Retriever(bundle, proposer, user_tower, vectors)
    show_bundle("recall", bundle.version)
    updates = Updates(bundle, user_tower.signature.width, vectors)
    servicer = RecallService(retriever, updates, settings.call_timeout_s)
    return server.Service(
        name="recall",
        full_name="recall.RecallService",
        register=lambda grpc_server: add_RecallServiceServicer_to_server(servicer, grpc_server),
        dependencies={"vectors": retriever.check},
    )
