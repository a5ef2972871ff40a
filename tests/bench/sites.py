"""The running platforms that the benchmark can measure: started on this host, or in running containers."""

import json
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecrs.bundle import Bundle
from ecrs.ports import PORTS
from ecrs_cli.embedded import embedded_platform
from tests.bench.processes import ROOT

SERVING_PORT, REDIS_PORT, MILVUS_PORT = 9998, 6379, 19530


@dataclass(frozen=True)
class Site:
    """A running platform.

    `targets` are those of its services, by name. `settings` are the values, by name, of the settings that
    locate its stores and models. `parts` are the process ids of its services, stores and model servers, by
    name.
    """

    profile: str
    bundle: Bundle
    targets: dict[str, str]
    settings: dict[str, str]
    parts: dict[str, int]

    @property
    def environment(self) -> dict[str, str]:
        """The settings as environment variables."""
        return {f"ECRS_{name.upper()}": value for name, value in self.settings.items()}

    @property
    def stores(self) -> dict[str, int]:
        """The stores and model servers among `parts`, which all contenders share."""
        return {name: pid for name, pid in self.parts.items() if name not in PORTS}


@asynccontextmanager
async def embedded(bundle: Bundle) -> AsyncIterator[Site]:
    """Run the embedded platform with `bundle` on this host within the context."""
    with tempfile.TemporaryDirectory() as run_dir:
        async with embedded_platform(bundle, Path(run_dir)) as children:
            targets = {name: f"127.0.0.1:{port}" for name, port in PORTS.items()}
            settings = {"bundle": str(bundle.path), "redis_url": children.redis_url}
            parts = {name: process.pid for name, process in children.processes.items()}
            yield Site("embedded", bundle, targets, settings, parts)


@asynccontextmanager
async def compose(project: str, secrets: Path) -> AsyncIterator[Site]:
    """Use the running containers of a compose project and a temporary copy of their bundle.

    Each server is called at its address on its own network, which this host reaches over the bridge.
    """
    containers = _containers(project)
    address = {
        service: networks[f"{project}_{service}"]["IPAddress"]
        for service, container in containers.items()
        if f"{project}_{service}" in (networks := container["NetworkSettings"]["Networks"])
    }
    with tempfile.TemporaryDirectory() as copy:
        bundles = f"{containers['client']['Id']}:/bundles"
        version = _run("docker", "exec", containers["client"]["Id"], "readlink", "/bundles/current").strip()
        _run("docker", "cp", "--quiet", f"{bundles}/{version}", copy)
        _run("docker", "cp", "--quiet", f"{bundles}/trusted_bundle_keys", copy)
        os.environ["ECRS_TRUSTED_BUNDLE_KEYS"] = f"{copy}/trusted_bundle_keys"
        bundle = Bundle.open(Path(copy) / version)
        settings = {
            "bundle": str(bundle.path),
            "redis_url": f"redis://admin@{address['redis']}:{REDIS_PORT}/0",
            "redis_password": (secrets / "redis_admin_password").read_text(),
            "vectors": f"milvus://{address['milvus']}:{MILVUS_PORT}",
            "milvus_password": (secrets / "milvus_password").read_text(),
            "user_tower": f"serving://{address['serving-user-tower']}:{SERVING_PORT}",
            "ranker": f"serving://{address['serving-ranker']}:{SERVING_PORT}",
        }
        targets = {name: f"{address[name]}:{port}" for name, port in PORTS.items()}
        parts = {
            name: container["State"]["Pid"]
            for name, container in containers.items()
            if name not in ("client", "serving-item-tower")  # recommendations do not use them
        }
        yield Site("compose", bundle, targets, settings, parts)


def _containers(project: str) -> dict[str, dict[str, Any]]:
    """Return docker's description of the project's running containers, by service."""
    label = "com.docker.compose"
    ids = _run("docker", "ps", "--quiet", "--filter", f"label={label}.project={project}").split()
    if not ids:
        raise SystemExit(f"no container of project {project!r} is running: start them with make up")
    containers = json.loads(_run("docker", "inspect", *ids))
    return {container["Config"]["Labels"][f"{label}.service"]: container for container in containers}


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
