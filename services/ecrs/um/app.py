"""Builds the service um from its settings."""

from contextlib import AsyncExitStack

from ecrs.contract.um_pb2_grpc import add_UMServiceServicer_to_server
from ecrs.ports import PORTS
from ecrs.rpc import server
from ecrs.rpc.settings import ServerSettings
from ecrs.settings import RedisSettings
from ecrs.storage import redis_profiles
from ecrs.storage.seeded_version import SeededVersion
from ecrs.um.service import UMService
from ecrs.wire.limits import LIMITS


class UmSettings(ServerSettings, RedisSettings):
    """Settings of um, from the environment."""


SETTINGS = UmSettings


async def build(settings: UmSettings, stack: AsyncExitStack) -> server.Service:
    """Build um. Its connection to the profile store stays open until `stack` closes."""
    store = await stack.enter_async_context(redis_profiles.connect_profiles(settings))
    seeded = SeededVersion("um", store)
    servicer = UMService(store, seeded, settings.call_timeout_s)
    return server.Service(
        name="um",
        port=PORTS["um"],
        full_name="um.UMService",
        register=lambda grpc_server: add_UMServiceServicer_to_server(servicer, grpc_server),
        check=seeded.check,
        limits=LIMITS,
    )
