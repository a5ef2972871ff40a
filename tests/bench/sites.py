"""Where ECRS runs while it is measured: started for it on this machine, or in containers that are up."""

import json
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

    `targets`, its services by name; `settings`, by their names, what says where its stores and models are;
    `parts`, process ids by name: of services, stores and model servers.
    """

    profile: str
    bundle: Bundle
    targets: dict[str, str]
    settings: dict[str, str]
    parts: dict[str, int]

    @property
    def environment(self) -> dict[str, str]:
        """The settings as processes take them."""
        return {f"ECRS_{name.upper()}": value for name, value in self.settings.items()}

    @property
    def stores(self) -> dict[str, int]:
        """Those of `parts` that are nobody's alone: stores and model servers."""
        return {name: pid for name, pid in self.parts.items() if name not in PORTS}


@asynccontextmanager
async def embedded(bundle: Bundle) -> AsyncIterator[Site]:
    """The platform over `bundle`, started here for the time of the context."""
    with tempfile.TemporaryDirectory() as run_dir:
        async with embedded_platform(bundle, Path(run_dir)) as children:
            targets = {name: f"127.0.0.1:{port}" for name, port in PORTS.items()}
            settings = {"bundle": str(bundle.path), "redis_url": children.redis_url}
            parts = {name: process.pid for name, process in children.processes.items()}
            yield Site("embedded", bundle, targets, settings, parts)


@asynccontextmanager
async def compose(project: str, secrets: Path) -> AsyncIterator[Site]:
    """The project's running containers, at their addresses on its internal network, which this host reaches
    by its bridge; a copy of their bundle is made."""
    containers = _containers(project)
    address = {
        service: one["NetworkSettings"]["Networks"][f"{project}_internal"]["IPAddress"]
        for service, one in containers.items()
    }
    with tempfile.TemporaryDirectory() as copy:
        bundles = f"{containers['client']['Id']}:/bundles"
        version = _run("docker", "exec", containers["client"]["Id"], "readlink", "/bundles/current").strip()
        _run("docker", "cp", "--quiet", f"{bundles}/{version}", copy)
        bundle = Bundle.open(Path(copy) / version)
        settings = {
            "bundle": str(bundle.path),
            "redis_url": f"redis://{address['redis']}:{REDIS_PORT}/0",
            "redis_password": (secrets / "redis_password").read_text(),
            "vectors": f"milvus://{address['milvus']}:{MILVUS_PORT}",
            "milvus_password": (secrets / "milvus_password").read_text(),
            "user_tower": f"serving://{address['serving-user-tower']}:{SERVING_PORT}",
            "ranker": f"serving://{address['serving-ranker']}:{SERVING_PORT}",
        }
        targets = {name: f"{address[name]}:{port}" for name, port in PORTS.items()}
        parts = {
            name: one["State"]["Pid"]
            for name, one in containers.items()
            if name not in ("client", "serving-item-tower")  # no answer needs them
        }
        yield Site("compose", bundle, targets, settings, parts)


def _containers(project: str) -> dict[str, dict[str, Any]]:
    """What docker knows of the running containers, by service."""
    label = "com.docker.compose"
    ids = _run("docker", "ps", "--quiet", "--filter", f"label={label}.project={project}").split()
    if not ids:
        raise SystemExit(f"no container of project {project!r} runs here: make up starts them")
    found = json.loads(_run("docker", "inspect", *ids))
    return {one["Config"]["Labels"][f"{label}.service"]: one for one in found}


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
