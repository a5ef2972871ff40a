"""Builds the gateway from its settings."""

from contextlib import AsyncExitStack

from pydantic import Field

from ecrs.bundle import Bundle
from ecrs.contract.as_pb2_grpc import add_ASServiceServicer_to_server
from ecrs.domain.sizes import CANDIDATES, MAX_ITEMS
from ecrs.gateway.fallbacks import FallbackCatalogue
from ecrs.gateway.journal_reader import JournalReader
from ecrs.gateway.recommend import Gateway, StageLimits
from ecrs.gateway.service import ASService
from ecrs.gateway.stages import RemoteItemStage, RemoteRankStage, RemoteRecallStage, RemoteUserStage, Stages
from ecrs.metrics import RANKING_DEPTH, set_bundle_version
from ecrs.ports import PORTS
from ecrs.rpc import server
from ecrs.rpc.backend import Backend
from ecrs.rpc.client import open_channel
from ecrs.rpc.load import QualityFactor
from ecrs.rpc.settings import ServerSettings
from ecrs.rpc.supervision import in_background
from ecrs.settings import BundleSettings, JournalSettings, TargetSettings
from ecrs.storage.item_journals import open_item_journal
from ecrs.wire.limits import LIMITS


class GatewaySettings(ServerSettings, TargetSettings, BundleSettings, JournalSettings):
    """Settings of the gateway, from the environment."""

    call_timeout_s: float = Field(0.2, description="deadline of a call whose caller sets none")
    max_in_flight: int = Field(
        64, ge=1, description="most concurrent calls, fewer while answers are late; others are refused"
    )
    candidates: int = Field(
        CANDIDATES, ge=1, le=MAX_ITEMS, description="candidates retrieved and ranked per request"
    )
    latency_goal_s: float = Field(0.1, description="while answers take longer, fewer candidates are ranked")
    least_ranking_depth: float = Field(
        0.3, gt=0, le=1, description="smallest share of the candidates to rank"
    )
    user_cap_s: float = Field(0.3, description="longest time for the user stage")
    recall_cap_s: float = Field(0.5, description="longest time for the recall stage")
    item_cap_s: float = Field(0.3, description="longest time for the item stage")
    rank_cap_s: float = Field(0.5, description="longest time for the rank stage")
    reserve_s: float = Field(0.02, description="time kept of the caller's deadline for building the reply")


SETTINGS = GatewaySettings


async def build(settings: GatewaySettings, stack: AsyncExitStack) -> server.Service:
    """Build the gateway. Its channels stay open until `stack` closes. Raises BundleError."""
    targets = {
        "um": settings.um_target,
        "recall": settings.recall_target,
        "cm": settings.cm_target,
        "rank": settings.rank_target,
    }
    backends = {
        name: Backend(name, await stack.enter_async_context(open_channel(target)))
        for name, target in targets.items()
    }
    bundle = Bundle.open(settings.bundle)
    set_bundle_version("gateway", bundle.version)
    stages = Stages(
        RemoteUserStage(backends["um"]),
        RemoteRecallStage(backends["recall"]),
        RemoteItemStage(backends["cm"]),
        RemoteRankStage(backends["rank"]),
    )
    limits = StageLimits(settings.user_cap_s, settings.recall_cap_s, settings.item_cap_s, settings.rank_cap_s)
    publish_depth = RANKING_DEPTH.labels("gateway").set
    depth = QualityFactor(settings.latency_goal_s, settings.least_ranking_depth, publish_depth)
    fallbacks = FallbackCatalogue.of(bundle)
    journal = JournalReader(await stack.enter_async_context(open_item_journal(settings)), fallbacks.apply)
    await stack.enter_async_context(in_background("gateway", "item_journal", journal.follow))
    gateway = Gateway(stages, fallbacks, limits, settings.candidates, depth)
    servicer = ASService(gateway, settings.call_timeout_s, settings.reserve_s)
    return server.Service(
        name="gateway",
        full_name="as.ASService",
        port=PORTS["gateway"],
        register=lambda grpc_server: add_ASServiceServicer_to_server(servicer, grpc_server),
        # Dependencies and not a check: the gateway answers with fallbacks whichever service fails. Once it is
        # SERVING, it stays so, or a load balancer would take out the shop's only entry point.
        dependencies={name: backend.check for name, backend in backends.items()}
        | {"item_journal": journal.check},
        max_in_flight=settings.max_in_flight,
        limits=LIMITS,
    )
