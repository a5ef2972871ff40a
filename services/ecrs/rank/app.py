"""Builds the service rank from its settings."""

from contextlib import AsyncExitStack

from pydantic import Field

from ecrs.bundle import Bundle
from ecrs.contract.rank_pb2_grpc import add_RankServiceServicer_to_server
from ecrs.metrics import set_bundle_version
from ecrs.ports import PORTS
from ecrs.rank.ranker import Ranker
from ecrs.rank.service import RankService
from ecrs.rpc import server
from ecrs.rpc.settings import ServerSettings
from ecrs.serving.models import open_model
from ecrs.settings import BundleSettings
from ecrs.wire.limits import LIMITS


class RankSettings(ServerSettings, BundleSettings):
    """Settings of rank, from the environment."""

    ranker: str = Field("inprocess", description="`inprocess`, or serving://host:port")


SETTINGS = RankSettings


async def build(settings: RankSettings, stack: AsyncExitStack) -> server.Service:
    """Build rank. Its model stays open until `stack` closes. Raises BundleError for an invalid bundle."""
    bundle = Bundle.open(settings.bundle)
    model = await stack.enter_async_context(open_model(settings.ranker, bundle, "ranker"))
    ranker = Ranker(bundle, model)
    set_bundle_version("rank", bundle.version)
    servicer = RankService(ranker, settings.call_timeout_s)
    return server.Service(
        name="rank",
        port=PORTS["rank"],
        full_name="RankService",
        register=lambda grpc_server: add_RankServiceServicer_to_server(servicer, grpc_server),
        check=ranker.check,
        limits=LIMITS,
    )
