"""Build cm and serve it."""

from contextlib import AsyncExitStack

from pydantic import Field

from ecrs import profiles
from ecrs.bundle import Bundle
from ecrs.cm.changes import Changes, ItemTower
from ecrs.cm.records import Records
from ecrs.cm.remote import RemoteVectors
from ecrs.cm.service import CMService
from ecrs.contract.cm_pb2_grpc import add_CMServiceServicer_to_server
from ecrs.kit import server
from ecrs.kit.client import open_channel
from ecrs.kit.settings import BundleSettings, RedisSettings, ServerSettings, TargetSettings
from ecrs.model.served import open_model
from ecrs.seeded import Seeded


class Settings(ServerSettings, RedisSettings, BundleSettings, TargetSettings):
    item_tower: str = Field("inprocess", description="`inprocess`, or serving://host:port")
    item_age_s: float = Field(
        5.0, ge=0, description="how old a product's record may be that another cm has changed; 0 keeps none"
    )


async def build(settings: Settings, stack: AsyncExitStack) -> server.Service:
    store = await stack.enter_async_context(profiles.connect(settings))
    seeded = Seeded("cm", store)
    bundle = Bundle.open(settings.bundle)
    model = await stack.enter_async_context(open_model(settings.item_tower, bundle, "item_tower"))
    recall = await stack.enter_async_context(open_channel(settings.recall_target))
    records = Records(store, seeded, settings.item_age_s)
    changes = Changes(store, records, seeded, ItemTower(bundle, model), RemoteVectors(recall))
    servicer = CMService(records, seeded, changes, settings.call_timeout_s)
    return server.Service(
        name="cm",
        full_name="cm.CMService",
        register=lambda grpc_server: add_CMServiceServicer_to_server(servicer, grpc_server),
        check=seeded.check,  # not item tower nor recall: without them cm still knows the products
    )
