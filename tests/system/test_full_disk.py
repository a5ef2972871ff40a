"""While the disk of the run directory is full, calls are answered and services are restarted."""

import json
import os
import signal
import urllib.request
from contextlib import suppress
from pathlib import Path

import grpc

from ecrs.bundle import Bundle
from ecrs.contract.as_pb2 import ASRequest
from ecrs.contract.as_pb2_grpc import ASServiceStub
from ecrs.ports import METRICS_OFFSET, PORTS
from tests.eventually import eventually
from tests.small_disk import Disk, fill
from tests.system.conftest import Up, children, ecrs


def dropped_lines(name: str) -> float:
    """Return how many lines of its log a service has dropped because they could not be written."""
    url = f"http://127.0.0.1:{PORTS[name] + METRICS_OFFSET}/metrics"
    with urllib.request.urlopen(url, timeout=5) as reply:
        sample = f'ecrs_log_lines_dropped_total{{reason="write_error",service="{name}"}} '
        return sum(
            float(line.removeprefix(sample))
            for line in reply.read().decode().splitlines()
            if line.startswith(sample)
        )


def logged(run_dir: Path, name: str, field: str, value: str) -> bool:
    """Say whether a line of a service's log has this value. A line can be cut, where the disk was full."""
    for line in (run_dir / "log" / f"{name}.log").read_bytes().splitlines():
        with suppress(ValueError):
            if json.loads(line).get(field) == value:
                return True
    return False


async def test_full_disk_fails_no_call_and_a_service_that_dies_meanwhile_is_started_again(
    tiny: Bundle, disk: Disk
) -> None:
    run_dir = disk(32_768) / "run"
    up = Up(tiny.path, run_dir)
    try:
        up.wait_for("up: bundle")
        um = children(run_dir)["um"]
        filler = fill(run_dir.parent, leave=0)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{PORTS['gateway']}") as channel:
            stub = ASServiceStub(channel)

            async def answer(log_id: str = "full") -> None:
                reply = await stub.as_call(ASRequest(user_id="8888", log_id=log_id), timeout=5)
                assert reply.error.code == 200

            async def all_drop_lines() -> bool:
                await answer()
                return all(map(dropped_lines, PORTS))

            await eventually(all_drop_lines, limit_s=60)
            os.kill(um, signal.SIGKILL)
            up.wait_for("um ended with -9; restarting it")

            async def all_serve() -> bool:
                await answer()
                return ecrs("health").returncode == 0

            await eventually(all_serve, limit_s=60)
            os.kill(children(run_dir)["valkey"], signal.SIGKILL)
            up.wait_for("valkey ended with -9; restarting it")
            filler.unlink()

            async def all_log_again() -> bool:
                await answer("space")
                gap_is_logged = logged(run_dir, "gateway", "event", "log lines dropped")
                return gap_is_logged and all(logged(run_dir, name, "log_id", "space") for name in PORTS)

            await eventually(all_log_again, limit_s=60)
            await eventually(all_serve, limit_s=60)

        async def state_is_written() -> bool:
            return children(run_dir)["um"] != um

        await eventually(state_is_written)
    finally:
        assert up.stop() == 0
