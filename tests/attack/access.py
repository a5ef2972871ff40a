"""Attacks by callers and local users who have no right to what they do."""

import asyncio
import re
from pathlib import Path
from typing import Any

from ecrs.contract.cm_pb2 import CMRequest, PutItemsRequest, RemoveItemsRequest, SetStockRequest
from ecrs.contract.cm_pb2_grpc import CMServiceStub
from ecrs.contract.item_info_pb2 import ItemInfo
from ecrs.contract.recall_pb2 import RemoveVectorsRequest, UpsertVectorsRequest
from ecrs.ports import METRICS_OFFSET, PORTS
from tests.attack.attack import attack
from tests.attack.shop import CALL_LIMIT_S, WRITE_TOKEN, Shop, at_rate, connected
from tests.platform import PUT, REMOVE, REMOVE_VECTORS, STOCK, UPSERT_VECTORS, types

INTRUDER = "intruder"
FORBIDDEN = 403
TOKENS = (None, "", "Bearer", "Bearer ", f"Bearer {WRITE_TOKEN}x", f"Bearer {WRITE_TOKEN[:-1]}", WRITE_TOKEN)
"""Values of the header `authorization`; none of them is right."""
LOOPBACK = (
    "0100007F",
    "0000000000000000FFFF00000100007F",
    "00000000000000000000000001000000",
)
"""127.0.0.1, the same as gRPC listens on it, and ::1, in /proc/net/tcp and tcp6."""
LISTENING = "0A"


def changes(version: str) -> dict[str, Any]:
    """Return a change for each method that writes; it concerns no product of the shop."""
    vector = UpsertVectorsRequest.ItemVector(sku_id=INTRUDER, vector=[1.0] + [0.0] * 31)
    return {
        PUT: PutItemsRequest(item_infos=[ItemInfo(sku_id=INTRUDER)]),
        STOCK: SetStockRequest(item_ids=[INTRUDER], in_stock=True),
        UPSERT_VECTORS: UpsertVectorsRequest(vectors=[vector], bundle_version=version),
        REMOVE: RemoveItemsRequest(item_ids=["unknown"]),
        REMOVE_VECTORS: RemoveVectorsRequest(item_ids=["unknown"], bundle_version=version),
    }


@attack()
async def product_changes_without_the_token(shop: Shop) -> None:
    """Each is refused, and nothing is changed."""
    requests = [(*change, token) for change in changes(shop.bundle.version).items() for token in TOKENS]
    async with connected("cm") as cm, connected("recall") as recall:

        async def guess(number: int) -> tuple[str, str | None, int]:
            method, request, token = requests[number % len(requests)]
            channel = cm if method.startswith("/cm.") else recall
            call = channel.unary_unary(method, response_deserializer=types(method)[1].FromString)
            metadata = () if token is None else (("authorization", token),)
            reply = await call(request.SerializeToString(), timeout=CALL_LIMIT_S, metadata=metadata)
            return method, token, reply.error.code

        replies = await at_rate(20, guess)
        lookup = await CMServiceStub(cm).cm_call(CMRequest(item_ids=[INTRUDER]), timeout=CALL_LIMIT_S)
    accepted = sorted({(method, str(token)) for method, token, code in replies if code != FORBIDDEN})
    assert not accepted, f"{len(accepted)} kinds of change were not refused, for example {accepted[0]}"
    assert not lookup.item_infos, "an intruder's product was stored"


@attack()
async def other_users_of_the_machine(shop: Shop) -> None:
    """No file of the run directory is theirs to read, and no port is open to other machines."""
    await asyncio.sleep(CALL_LIMIT_S)
    run_dir = shop.up.run_dir
    assert run_dir.stat().st_mode & 0o077 == 0, f"{run_dir} is open to others: {run_dir.stat().st_mode:o}"
    ports = {port + offset for port in PORTS.values() for offset in (0, METRICS_OFFSET)}
    opened = {port for address, port in listening() if address not in LOOPBACK} & ports
    assert not opened, f"ports {sorted(opened)} are open to other machines"


def listening() -> list[tuple[str, int]]:
    """Return the addresses, as in /proc/net/tcp and tcp6, and ports on which this machine listens."""
    found = []
    for table in ("tcp", "tcp6"):
        for address, port, state in re.findall(
            r"^ *\d+: (\w+):(\w+) \w+:\w+ (\w+)", Path(f"/proc/net/{table}").read_text(), re.MULTILINE
        ):
            if state == LISTENING:
                found.append((address, int(port, 16)))
    return found
