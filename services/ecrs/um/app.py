"""Build um and serve it."""

from contextlib import AsyncExitStack

from ecrs import profiles
from ecrs.contract.um_pb2_grpc import add_UMServiceServicer_to_server
from ecrs.kit import server
from ecrs.kit.settings import RedisSettings, ServerSettings
from ecrs.seeded import Seeded
from ecrs.um.service import UMService


class Settings(ServerSettings, RedisSettings):
    """From the environment."""


async def build(settings: Settings, stack: AsyncExitStack) -> server.Service:
    store = await stack.enter_async_context(profiles.connect(settings))
    seeded = Seeded("um", store)
    servicer = UMService(store, seeded, settings.call_timeout_s)
    return server.Service(
        name="um",
        full_name="um.UMService",
        register=lambda grpc_server: add_UMServiceServicer_to_server(servicer, grpc_server),
        check=seeded.check,
    )
