"""Describes the machine and the versions that a measurement ran on."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import redis

from tests.bench.processes import ROOT

LIBRARIES = ("grpcio", "protobuf", "redis", "hiredis", "orjson", "faiss-cpu", "paddlepaddle", "pymilvus")


def hardware() -> dict[str, Any]:
    cpu = _fields(Path("/proc/cpuinfo"))
    memory_kb = int(_fields(Path("/proc/meminfo"))["MemTotal"].split()[0])
    return {
        "cpu": cpu.get("model name", platform.machine()),
        "cores": os.cpu_count(),
        "memory_gb": round(memory_kb / 2**20, 1),
        "system": platform.platform(),
    }


def versions(store: redis.Redis) -> dict[str, str]:
    """Return the versions of this commit, of Python, of the store and of the libraries in this process."""
    info: dict[str, Any] = store.info("server")
    name = info.get("server_name", "redis")
    git = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False, cwd=ROOT).stdout.strip()
    return {
        "commit": commit or "unknown",
        "python": platform.python_version(),
        "store": f"{name} {info.get(f'{name}_version', info['redis_version'])}",
        **{library: version(library) for library in LIBRARIES},
    }


def _fields(path: Path) -> dict[str, str]:
    """Parse the first block of `name: value` lines of a file."""
    block = path.read_text().split("\n\n")[0]
    return {
        name.strip(): value.strip() for name, _, value in (line.partition(":") for line in block.splitlines())
    }
