"""The log of a service's process: nobody who reads it, or does not, matters to a call."""

import asyncio
import fcntl
import json
import os
import re
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from ecrs.contract.um_pb2 import UserModelRequest
from ecrs.contract.um_pb2_grpc import UMServiceStub
from tests.eventually import eventually

ENVIRONMENT = {"ECRS_PORT": "0", "ECRS_METRICS_PORT": "0", "ECRS_REDIS_URL": "redis://127.0.0.1:1/0"}
CONCURRENT = 50


@asynccontextmanager
async def um(stdout: int, environment: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run um, without a store, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ecrs.serve", "um",
        env=os.environ | ENVIRONMENT | environment, stdout=stdout, stderr=stdout,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def call(stub: UMServiceStub) -> int:
    return (await stub.um_call(UserModelRequest(user_id="1"), timeout=5)).error.code


def dropped_lines(metrics_port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=5) as reply:
        metrics = reply.read().decode()
    sample = re.search(r'^ecrs_log_lines_dropped_total{reason="queue_full",.*} (.*)$', metrics, re.MULTILINE)
    assert sample
    return float(sample[1])


async def test_reader_of_stdout_that_stops_reading_holds_up_no_call() -> None:
    read, write = os.pipe()
    fcntl.fcntl(read, fcntl.F_SETPIPE_SZ, 4096)
    with os.fdopen(read, "rb") as log:
        async with um(write, {}) as process:
            os.close(write)
            while (line := json.loads(await asyncio.to_thread(log.readline)))["event"] != "listening":
                pass
            async with grpc.aio.insecure_channel(line["address"]) as channel:
                stub = UMServiceStub(channel)

                async def is_dropping() -> bool:
                    codes = await asyncio.gather(*(call(stub) for _ in range(20 * CONCURRENT)))
                    assert set(codes) == {503}
                    return await asyncio.to_thread(dropped_lines, line["metrics_port"]) > 0

                await eventually(is_dropping, limit_s=60)
                gap = asyncio.create_task(asyncio.to_thread(read_until, log, "log lines dropped"))

                async def is_reported() -> bool:
                    assert await call(stub) == 503
                    return gap.done()

                await eventually(is_reported, limit_s=30)
                assert gap.result()["lines"] > 0
            process.terminate()
            await asyncio.to_thread(log.read)
            assert await process.wait() == 0


def read_until(log, event: str) -> dict:
    """Read lines up to one of this event, and return it."""
    while (line := json.loads(log.readline()))["event"] != event:
        pass
    return line


async def test_standard_output_and_error_go_to_the_log_file(tmp_path: Path) -> None:
    path = tmp_path / "um.log"
    async with um(asyncio.subprocess.DEVNULL, {"ECRS_LOG_FILE": str(path)}) as process:

        async def is_listening() -> bool:
            return path.exists() and '"event":"listening"' in path.read_text()

        await eventually(is_listening)
        assert [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in (1, 2)] == [str(path)] * 2
