"""Build cm and serve it."""

from contextlib import AsyncExitStack

from ecrs import profiles
from ecrs.cm.service import CMService
from ecrs.contract.cm_pb2_grpc import add_CMServiceServicer_to_server
from ecrs.kit import server
from ecrs.kit.settings import RedisSettings, ServerSettings
from ecrs.seeded import Seeded


class Settings(ServerSettings, RedisSettings):
    """From the environment."""


async def build(settings: Settings, stack: AsyncExitStack) -> server.Service:
    store = await stack.enter_async_context(profiles.connect(settings))
    seeded = Seeded("cm", store)
    servicer = CMService(store, seeded, settings.call_timeout_s)
    return server.Service(
        name="cm",
        full_name="cm.CMService",
        register=lambda grpc_server: add_CMServiceServicer_to_server(servicer, grpc_server),
        check=seeded.check,
    )
