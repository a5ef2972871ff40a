"""Build rank and serve it."""

from contextlib import AsyncExitStack

from pydantic import Field

from ecrs.bundle import Bundle
from ecrs.contract.rank_pb2_grpc import add_RankServiceServicer_to_server
from ecrs.kit import server
from ecrs.kit.observe import show_bundle
from ecrs.kit.settings import BundleSettings, ServerSettings
from ecrs.model.served import open_model
from ecrs.rank.ranker import Ranker
from ecrs.rank.service import RankService


class Settings(ServerSettings, BundleSettings):
    ranker: str = Field("inprocess", description="`inprocess`, or serving://host:port")


async def build(settings: Settings, stack: AsyncExitStack) -> server.Service:
    bundle = Bundle.open(settings.bundle)
    model = await stack.enter_async_context(open_model(settings.ranker, bundle, "ranker"))
    ranker = Ranker(bundle, model)
    show_bundle("rank", bundle.version)
    servicer = RankService(ranker, settings.call_timeout_s)
    return server.Service(
        name="rank",
        full_name="RankService",
        register=lambda grpc_server: add_RankServiceServicer_to_server(servicer, grpc_server),
        check=ranker.check,
    )
