"""Build the gateway and serve it."""

from contextlib import AsyncExitStack

from pydantic import Field

from ecrs.bundle import Bundle
from ecrs.contract.as_pb2_grpc import add_ASServiceServicer_to_server
from ecrs.gateway.peer import Peer
from ecrs.gateway.quality import Quality
from ecrs.gateway.recommend import Caps, Gateway, Ports
from ecrs.gateway.remote import RemoteItems, RemoteRank, RemoteRecall, RemoteUsers
from ecrs.gateway.service import ASService
from ecrs.gateway.shelf import Shelf
from ecrs.kit import server
from ecrs.kit.client import open_channel
from ecrs.kit.observe import show_bundle
from ecrs.kit.settings import BundleSettings, ServerSettings, TargetSettings


class Settings(ServerSettings, TargetSettings, BundleSettings):
    call_timeout_s: float = Field(0.2, description="for an answer whose caller set no deadline")
    max_in_flight: int = Field(
        64, ge=1, description="answers at a time, fewer while they are late; more are refused at once"
    )
    candidates: int = Field(100, ge=1, le=1000, description="recalled and ranked for an answer, at least")
    latency_goal_s: float = Field(0.1, description="while answers take longer, fewer candidates are ranked")
    least_quality: float = Field(0.3, gt=0, le=1, description="but at least this share of them")
    user_cap_s: float = Field(0.3, description="the most the user stage may take")
    recall_cap_s: float = Field(0.5, description="the most the recall stage may take")
    item_cap_s: float = Field(0.3, description="the most the item stage may take")
    rank_cap_s: float = Field(0.5, description="the most the rank stage may take")
    reserve_s: float = Field(0.01, description="kept of the caller's deadline to answer with")


async def build(settings: Settings, stack: AsyncExitStack) -> server.Service:
    targets = {
        "um": settings.um_target,
        "recall": settings.recall_target,
        "cm": settings.cm_target,
        "rank": settings.rank_target,
    }
    peers = {
        name: Peer(name, await stack.enter_async_context(open_channel(target)))
        for name, target in targets.items()
    }
    bundle = Bundle.open(settings.bundle)
    show_bundle("gateway", bundle.version)
    ports = Ports(
        RemoteUsers(peers["um"]),
        RemoteRecall(peers["recall"]),
        RemoteItems(peers["cm"]),
        RemoteRank(peers["rank"]),
    )
    caps = Caps(settings.user_cap_s, settings.recall_cap_s, settings.item_cap_s, settings.rank_cap_s)
    quality = Quality(settings.latency_goal_s, settings.least_quality)
    gateway = Gateway(ports, Shelf.of(bundle), caps, settings.candidates, quality)
    servicer = ASService(gateway, settings.call_timeout_s, settings.reserve_s)
    return server.Service(
        name="gateway",
        full_name="as.ASService",
        register=lambda grpc_server: add_ASServiceServicer_to_server(servicer, grpc_server),
        # It answers whatever is away, so once SERVING it stays: a part's trouble must not take the shop's
        # entry out of a load balancer.
        dependencies={name: peer.check for name, peer in peers.items()},
        max_in_flight=settings.max_in_flight,
    )
