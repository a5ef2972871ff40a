"""Closed-loop load on a gateway, from a process of its own: each client asks again when it has its answer.

python -m tests.bench.load TARGET CLIENTS SECONDS, users' ids on standard input; prints JSON.
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence

import grpc

from ecrs.contract.as_pb2 import ASRequest
from ecrs.contract.as_pb2_grpc import ASServiceStub

TIMEOUT_S = 5.0


async def load(target: str, clients: int, seconds: float, users: Sequence[str]) -> dict[str, object]:
    """Seconds each call took; how many failed, and how many answers were degraded."""
    took: list[float] = []
    failed = degraded = 0
    end = time.monotonic() + seconds

    async def client(number: int) -> None:
        nonlocal failed, degraded
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(target, options) as channel:
            stub = ASServiceStub(channel)
            while time.monotonic() < end:
                user = users[number % len(users)]
                number += clients
                begun = time.perf_counter()
                try:
                    reply = await stub.as_call(ASRequest(user_id=user), timeout=TIMEOUT_S)
                    failed += reply.error.code != 200 or not reply.item_infos
                    degraded += bool(reply.degraded)
                except grpc.RpcError:
                    failed += 1
                took.append(time.perf_counter() - begun)

    await asyncio.gather(*map(client, range(clients)))
    return {"took": took, "failed": failed, "degraded": degraded}


if __name__ == "__main__":
    users = sys.stdin.read().split()
    print(json.dumps(asyncio.run(load(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), users))))
