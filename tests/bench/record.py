"""Records the messages between the gateway and its services for an answer, byte by byte.

A separate gateway is started with recording proxies in place of its services: each forwards the calls to the
real service and records request and reply. This lets the floors repeat every hop, whatever the messages
contain.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import grpc

from ecrs.contract.as_pb2 import ASRequest, ASResponse
from ecrs.contract.as_pb2_grpc import ASServiceStub

UP_LIMIT_S = 60.0
GATEWAY = "gateway"


@dataclass(frozen=True)
class Hop:
    """A call to a service, and its reply."""

    service: str
    request: bytes
    reply: bytes


def answers(
    users: Sequence[str], targets: Mapping[str, str], environment: Mapping[str, str]
) -> list[tuple[ASResponse, list[Hop]]]:
    """Return for each user a full answer and the hops that it took, the call to the gateway first.

    `targets` are the targets of the services by name; `environment` is set for the recording gateway.
    """
    hops: list[Hop] = []
    with ExitStack() as stack:
        recorders = {
            f"ECRS_{name.upper()}_TARGET": stack.enter_context(_recorder(name, target, hops))
            for name, target in targets.items()
            if name != GATEWAY
        }
        stub = stack.enter_context(_gateway({**environment, **recorders}))
        _full_answer(stub, users[0])  # opens connections and fills caches
        recorded = []
        for user in users:
            hops.clear()
            request = ASRequest(user_id=user)
            answer = _full_answer(stub, user)
            gateway_hop = Hop(GATEWAY, request.SerializeToString(), answer.SerializeToString())
            recorded.append((answer, [gateway_hop, *hops]))
        return recorded


def _full_answer(stub: ASServiceStub, user: str) -> ASResponse:
    """Call the gateway until it answers without a fallback: a new gateway has yet to reach its services."""
    deadline = time.monotonic() + UP_LIMIT_S
    while True:
        try:
            answer = stub.as_call(ASRequest(user_id=user), timeout=5, wait_for_ready=True)
            if answer.error.code == 200 and not answer.degraded:
                return answer
            reason = str(answer.error or answer.degraded)
        except grpc.RpcError as error:
            reason = str(error)
        if time.monotonic() > deadline:
            raise RuntimeError(f"the recording gateway gave no full answer for user {user!r}: {reason}")
        time.sleep(0.2)


@contextmanager
def _recorder(service: str, target: str, hops: list[Hop]) -> Iterator[str]:
    """Run a proxy for `target` that appends the calls of the service to `hops`; yields the proxy's target."""
    with grpc.insecure_channel(target) as channel, ThreadPoolExecutor(4) as pool:

        class Proxy(grpc.GenericRpcHandler):
            def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
                forward = channel.unary_unary(details.method, None, None)

                def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
                    reply = forward(request, timeout=5)
                    if not details.method.startswith("/grpc."):  # health checks are not recorded
                        hops.append(Hop(service, request, reply))
                    return reply

                return grpc.unary_unary_rpc_method_handler(answer)

        server = grpc.server(pool, handlers=[Proxy()])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


@contextmanager
def _gateway(environment: Mapping[str, str]) -> Iterator[ASServiceStub]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {
        "ECRS_PORT": str(port),
        "ECRS_METRICS_PORT": "0",
        "ECRS_LATENCY_GOAL_S": "60",
    }  # ranks all candidates
    process = subprocess.Popen(
        [sys.executable, "-m", "ecrs.serve", "gateway"],
        env={**os.environ, **environment, **own},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield ASServiceStub(channel)
    finally:
        process.terminate()
        process.wait()
