"""um and cm over a store that holds the record, does not hold it, or is unavailable."""

import pytest

from ecrs.cm.item_cache import ItemCache
from ecrs.cm.service import CMService
from ecrs.contract.cm_pb2 import CMRequest
from ecrs.contract.cm_pb2_grpc import CMServiceStub, add_CMServiceServicer_to_server
from ecrs.contract.um_pb2 import UserModelRequest
from ecrs.contract.um_pb2_grpc import UMServiceStub, add_UMServiceServicer_to_server
from ecrs.domain.actions import Interaction
from ecrs.domain.entities import Item, User
from ecrs.rpc.errors import Unavailable
from ecrs.rpc.server import Service
from ecrs.storage.seeded_version import SeededVersion
from ecrs.um.service import UMService
from ecrs.wire.messages import to_user
from tests.fakes import FakeProfiles
from tests.service.conftest import Start

USER = User("8888", "5.0", "1.0", "3.0", "11.0", "120.0", "741.0", (Interaction("99654", 1514764800),))


@pytest.fixture
def store() -> FakeProfiles:
    products = {sku: Item(sku, "3456", "6980", "70") for sku in ("99654", "12048")}
    return FakeProfiles(users={"8888": USER}, products=products)


async def um(start: Start, store: FakeProfiles) -> UMServiceStub:
    seeded = SeededVersion("um", store)
    servicer = UMService(store, seeded, call_timeout_s=1.0)
    service = Service(
        "um", "um.UMService", lambda s: add_UMServiceServicer_to_server(servicer, s), seeded.check
    )
    channel, running = await start(service)
    if store.trouble.fault is None:
        await running.serving()
    return UMServiceStub(channel)


async def cm(start: Start, store: FakeProfiles) -> CMServiceStub:
    """Start cm without item changes, which tests/service/test_items.py covers."""
    seeded = SeededVersion("cm", store)
    servicer = CMService(ItemCache(store, seeded, age_s=0), seeded, None, call_timeout_s=1.0)
    service = Service(
        "cm", "cm.CMService", lambda s: add_CMServiceServicer_to_server(servicer, s), seeded.check
    )
    channel, running = await start(service)
    if store.trouble.fault is None:
        await running.serving()
    return CMServiceStub(channel)


async def test_um_returns_profile_history_and_version(start: Start, store: FakeProfiles) -> None:
    reply = await (await um(start, store)).um_call(UserModelRequest(user_id="8888"))
    assert reply.error.code == 200
    assert to_user(reply.user_info) == USER
    assert reply.bundle_version == store.seeded


async def test_an_unknown_user_gets_the_originals_error(start: Start, store: FakeProfiles) -> None:
    reply = await (await um(start, store)).um_call(UserModelRequest(user_id="5", log_id="any"))
    assert str(reply) == (
        'error {\n  code: 500\n  text: "UM server get user_info from redis fail. (user_id: \\"5\\"\\n)"\n}\n'
    )


async def test_an_unavailable_store_is_503_without_internals(start: Start, store: FakeProfiles) -> None:
    store.trouble.fault = Unavailable("the profile store is unavailable (ConnectionError)")
    for reply in (
        await (await um(start, store)).um_call(UserModelRequest(user_id="8888")),
        await (await cm(start, store)).cm_call(CMRequest(item_ids=["99654"])),
    ):
        assert reply.error.code == 503
        assert reply.error.text == "the profile store is unavailable (ConnectionError)"


async def test_an_emptied_store_is_503_and_nothing_is_unknown(start: Start, store: FakeProfiles) -> None:
    users, items = await um(start, store), await cm(start, store)
    store.users, store.products, store.seeded = {}, {}, None
    for reply in (
        await users.um_call(UserModelRequest(user_id="8888")),
        await items.cm_call(CMRequest(item_ids=["99654", "1"])),
    ):
        assert reply.error.code == 503
        assert reply.error.text == "the profile store is empty: seed-redis has not finished"


async def test_a_slow_store_is_504_before_the_callers_deadline(start: Start, store: FakeProfiles) -> None:
    stub = await um(start, store)
    store.trouble.delay_s = 10.0
    reply = await stub.um_call(UserModelRequest(user_id="8888"))
    assert reply.error.code == 504


async def test_items_are_returned_in_the_requested_order(start: Start, store: FakeProfiles) -> None:
    reply = await (await cm(start, store)).cm_call(CMRequest(item_ids=["12048", "99654"]))
    assert [info.sku_id for info in reply.item_infos] == ["12048", "99654"]
    assert reply.error.code == 200


async def test_known_items_are_returned_and_missing_ids_listed(start: Start, store: FakeProfiles) -> None:
    reply = await (await cm(start, store)).cm_call(CMRequest(item_ids=["1", "99654", "2"]))
    assert [info.sku_id for info in reply.item_infos] == ["99654"]
    assert list(reply.missing_ids) == ["1", "2"]
    assert reply.error.code == 200


async def test_unknown_items_only_get_the_originals_error(start: Start, store: FakeProfiles) -> None:
    reply = await (await cm(start, store)).cm_call(CMRequest(item_ids=["1324142525"]))
    assert str(reply) == (
        "error {\n  code: 500\n"
        '  text: "CM server get item_info from redis fail. (item_ids: \\"1324142525\\"\\n)"\n}\n'
    )


@pytest.mark.parametrize("count", [0, 1001])
async def test_no_items_or_too_many_are_a_bad_request(start: Start, store: FakeProfiles, count: int) -> None:
    reply = await (await cm(start, store)).cm_call(CMRequest(item_ids=["1"] * count))
    assert reply.error.code == 400
    assert f"got {count}" in reply.error.text
