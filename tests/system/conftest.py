"""Runs `ecrs up` as a user starts it, on the platform's default ports."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ecrs.bundle import Bundle
from tests.chaos import Case, reported_cases

ROOT = Path(__file__).parents[2]
UP_LIMIT_S = 90


class Up:
    """A running `ecrs up`, and the lines it printed."""

    def __init__(self, bundle: Path, run_dir: Path, environment: Mapping[str, str] | None = None) -> None:
        self.run_dir = run_dir
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ecrs_cli", "up", str(bundle), "--run-dir", str(run_dir)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
            env=os.environ | dict(environment or {}),
        )  # fmt: skip
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def wait_for(self, text: str, limit_s: float = UP_LIMIT_S) -> str:
        """Return the first line that contains `text`; fail if the process ends or `limit_s` passes first."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            for line in self.lines:
                if text in line:
                    return line
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        pytest.fail(
            f"`ecrs up` did not print {text!r} (status {self.process.poll()}):\n" + "\n".join(self.lines)
        )

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(60)


def children(run_dir: Path) -> dict[str, int]:
    """Return the ids of the platform's processes by name."""
    state = json.loads((run_dir / "children.json").read_text())
    return {name: child["pid"] for name, child in state.items()}


@pytest.fixture(scope="session")
def cases() -> Iterator[list[Case]]:
    """The results of all chaos tests of the run, written to a file at its end."""
    with reported_cases("embedded") as cases:
        yield cases


@pytest.fixture(scope="module")
def up(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """The whole platform, running with the tiny bundle."""
    running = Up(tiny.path, tmp_path_factory.mktemp("run"))
    try:
        running.wait_for("up: bundle")
        yield running
    finally:
        running.stop()


def ecrs(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run an `ecrs` command and return its result."""
    return subprocess.run(
        [sys.executable, "-m", "ecrs_cli", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
