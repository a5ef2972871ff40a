"""Retries of calls to a service whose replicas stop and start, and the limits of these retries."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from ecrs.contract.um_pb2 import UserModelRequest, UserModelResponse
from ecrs.contract.um_pb2_grpc import UMServiceServicer, UMServiceStub, add_UMServiceServicer_to_server
from ecrs.rpc.client import open_channel
from ecrs.rpc.server import Service, running_service
from ecrs.rpc.settings import ServerSettings


class Um(UMServiceServicer):
    """Fails with the codes of `failures`, one per call, and answers after that."""

    def __init__(self, failures: list[grpc.StatusCode] | None = None) -> None:
        self.failures = failures or []
        self.calls = 0

    async def um_call(
        self, request: UserModelRequest, context: grpc.aio.ServicerContext
    ) -> UserModelResponse:
        self.calls += 1
        await asyncio.sleep(0.01)
        if self.failures:
            await context.abort(self.failures.pop(0), "as scripted")
        return UserModelResponse()


@asynccontextmanager
async def replica(um: Um, port: int = 0) -> AsyncIterator[int]:
    """Run a server of `um`; yields its port."""
    service = Service("um", "um.UMService", lambda server: add_UMServiceServicer_to_server(um, server))
    settings = ServerSettings(port=port, metrics_port=0, check_interval_s=0.02)
    async with running_service(service, settings) as running:
        yield running.port


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
async def test_a_call_that_a_replica_refused_is_retried(code: grpc.StatusCode) -> None:
    um = Um([code, code])
    async with replica(um) as port, open_channel(f"127.0.0.1:{port}") as channel:
        await UMServiceStub(channel).um_call(UserModelRequest(), timeout=5)
    assert um.calls == 3


async def test_a_call_that_failed_inside_the_service_is_not_retried() -> None:
    um = Um([grpc.StatusCode.INTERNAL])
    async with replica(um) as port, open_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await UMServiceStub(channel).um_call(UserModelRequest(), timeout=5)
    assert (failed.value.code(), um.calls) == (grpc.StatusCode.INTERNAL, 1)


async def test_retries_stop_while_most_calls_fail() -> None:
    """Without this, an overloaded service would get three times as many calls."""
    um = Um([grpc.StatusCode.UNAVAILABLE] * 1000)
    async with replica(um) as port, open_channel(f"127.0.0.1:{port}") as channel:
        stub, calls = UMServiceStub(channel), 100
        for _ in range(calls):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.um_call(UserModelRequest(), timeout=5)
    assert calls < um.calls <= calls + 50


async def test_no_call_fails_while_replicas_restart_one_by_one() -> None:
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("127.0.0.1", 0))
        ports = [probe.getsockname()[1] for probe in (one, other)]
    replicas = {port: replica(Um(), port) for port in ports}
    for server in replicas.values():
        await server.__aenter__()
    failed, done = list[grpc.aio.AioRpcError](), asyncio.Event()

    async def call_on(stub: UMServiceStub) -> None:
        while not done.is_set():
            try:
                await stub.um_call(UserModelRequest(), timeout=5, wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                failed.append(error)

    async with open_channel("ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)) as channel:
        callers = [asyncio.create_task(call_on(UMServiceStub(channel))) for _ in range(16)]
        for port in 5 * ports:
            await replicas[port].__aexit__(None, None, None)
            replicas[port] = replica(Um(), port)
            await replicas[port].__aenter__()
            await asyncio.sleep(0.1)
        done.set()
        await asyncio.gather(*callers)
    for server in replicas.values():
        await server.__aexit__(None, None, None)
    assert [(error.code().name, error.details()) for error in failed] == []
