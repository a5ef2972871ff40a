"""What the gateway and its services say to each other for an answer, byte by byte.

A gateway of its own is started whose services are recorders: each hands on what it is asked, and writes
down both sides. So the floors know every hop as it is made, whatever the services agree on.
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
    """For each user the full answer, and the hops that it took: the first is the one to the gateway.

    `targets` are the services' by name, `environment` what the gateway is started with besides.
    """
    hops: list[Hop] = []
    with ExitStack() as stack:
        recorders = {
            f"ECRS_{name.upper()}_TARGET": stack.enter_context(_recorder(name, target, hops))
            for name, target in targets.items()
            if name != GATEWAY
        }
        stub = stack.enter_context(_gateway({**environment, **recorders}))
        _full(stub, users[0])  # connections are made, and what can be kept in memory is there
        found = []
        for user in users:
            hops.clear()
            question = ASRequest(user_id=user)
            answer = _full(stub, user)
            own = Hop(GATEWAY, question.SerializeToString(), answer.SerializeToString())
            found.append((answer, [own, *hops]))
        return found


def _full(stub: ASServiceStub, user: str) -> ASResponse:
    """The first answer that nothing had to stand in for: a gateway that starts has to find its services."""
    until = time.monotonic() + UP_LIMIT_S
    while True:
        try:
            answer = stub.as_call(ASRequest(user_id=user), timeout=5, wait_for_ready=True)
            if answer.error.code == 200 and not answer.degraded:
                return answer
            seen = str(answer.error or answer.degraded)
        except grpc.RpcError as error:
            seen = str(error)
        if time.monotonic() > until:
            raise RuntimeError(f"the recording gateway gave no full answer for user {user!r}: {seen}")
        time.sleep(0.2)


@contextmanager
def _recorder(service: str, target: str, hops: list[Hop]) -> Iterator[str]:
    """A server that stands before `target` and writes the service's own calls to `hops`; its target."""
    with grpc.insecure_channel(target) as channel, ThreadPoolExecutor(4) as pool:

        class Through(grpc.GenericRpcHandler):
            def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
                onward = channel.unary_unary(details.method, None, None)

                def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
                    reply = onward(request, timeout=5)
                    if not details.method.startswith("/grpc."):
                        hops.append(Hop(service, request, reply))
                    return reply

                return grpc.unary_unary_rpc_method_handler(answer)

        server = grpc.server(pool, handlers=[Through()])
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
    own = {"ECRS_PORT": str(port), "ECRS_METRICS_PORT": "0"}
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
