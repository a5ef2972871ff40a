"""Runs the whole platform in containers of the stand-in images, as a separate compose project.

The stack is started once, and taken down with its volumes whatever happens. It can run beside a platform that
`make up` started: it has its own project name, volumes, secrets and port, and shares only the images. It
trains a bundle, unless ECRS_TEST_BUNDLES names a directory, owned by uid 10001, that contains one.
"""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import Case, reported_cases

ROOT = Path(__file__).parents[2]
PROJECT = "ecrs-test"
UP_LIMIT_S = 1200
SERVICES = (
    *("redis", "milvus", "serving-user-tower", "serving-item-tower", "serving-ranker"),
    *("um", "cm", "recall", "rank", "gateway", "client"),
)
"""The services that keep running; ONE_SHOTS end by themselves."""
ONE_SHOTS = ("train", "seed-redis", "milvus-users", "seed-milvus")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-case", action="store_true", help="test every fault of every part, and a late start of each"
    )


def wait_until(what: str, condition: Callable[[], Any], limit_s: float) -> Any:
    """Return the first true value of `condition`; fail after `limit_s` with a message that names `what`."""
    deadline = time.monotonic() + limit_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {limit_s:.0f} s")
        time.sleep(0.2)
    return value


def run(*command: str, limit_s: float = 60, check: bool = True, **options: Any) -> str:
    """Run a command and return its standard output.

    With `check`, an exit status other than 0 fails the test and shows everything that the command printed.
    """
    done = subprocess.run(command, text=True, capture_output=True, timeout=limit_s, check=False, **options)
    if check and done.returncode:
        pytest.fail(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


class Stack:
    """The compose project."""

    def __init__(self, secrets: Path, gateway_port: int) -> None:
        self.gateway = f"127.0.0.1:{gateway_port}"
        self.secrets = secrets
        self._environment = os.environ | {
            "ECRS_SECRETS": str(secrets),
            "ECRS_GATEWAY_PORT": str(gateway_port),
            "ECRS_BUNDLES": os.environ.get("ECRS_TEST_BUNDLES", "bundles"),
            "ECRS_QUICK": "1",
            "ECRS_PROMETHEUS_PORT": "0",
        }

    def compose(self, *arguments: str, limit_s: float = 60, check: bool = True) -> str:
        options = [
            "--project-name",
            PROJECT,
            "--env-file",
            "images/standin/standin.env",
            "--progress",
            "plain",
        ]
        command = ["docker", "compose", *options, *arguments]
        return run(*command, limit_s=limit_s, check=check, cwd=ROOT, env=self._environment)

    @contextmanager
    def overlaid(self, *files: str, **settings: str) -> Iterator[None]:
        """Within the context, compose commands also read these files, with these environment settings."""
        before = self._environment
        read = ":".join((before.get("COMPOSE_FILE", "compose.yaml"), *files))
        self._environment = before | {"COMPOSE_FILE": read} | settings
        try:
            yield
        finally:
            self._environment = before

    def up(self) -> None:
        limit = ["--wait", "--wait-timeout", str(UP_LIMIT_S)]
        try:
            self.compose("up", "--build", "--detach", *limit, limit_s=UP_LIMIT_S + 600)
        except (pytest.fail.Exception, subprocess.TimeoutExpired):
            print(self.compose("ps", "--all", check=False))
            print(self.compose("logs", "--no-color", "--tail", "40", check=False))
            raise

    def down(self, *options: str) -> None:
        self.compose("down", "--timeout", "15", *options, limit_s=180)

    def client(self, *arguments: str) -> str:
        """Run the client in its container and return what it prints."""
        return self.compose("exec", "-T", "client", "python", "client.py", *arguments)

    def log(self, service: str) -> str:
        return self.compose("logs", "--no-color", "--no-log-prefix", service)

    def inspect(self, service: str) -> dict[str, Any]:
        container = self.compose("ps", "--all", "--quiet", service).strip()
        return json.loads(run("docker", "inspect", container))[0]

    def is_healthy(self, service: str) -> bool:
        """True if the container is running and passes its health check, if it has one."""
        state = self.inspect(service)["State"]
        return state["Running"] and state.get("Health", {}).get("Status", "healthy") == "healthy"

    def wait_until_healthy(self, limit_s: float) -> None:
        wait_until("every container healthy", lambda: all(map(self.is_healthy, SERVICES)), limit_s)

    def users(self) -> list[str]:
        """Return the ids of some users that the stores contain."""
        lines = self.compose("exec", "-T", "client", "head", "-n", "200", "/bundles/current/users.dat")
        return [line.split(":")[0] for line in lines.splitlines()]

    def address(self, service: str, *, network: str = "") -> str:
        """Return the container's address on a network, by default its own.

        This host reaches it over the bridge.
        """
        networks = self.inspect(service)["NetworkSettings"]["Networks"]
        return networks[f"{PROJECT}_{network or service}"]["IPAddress"]

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    secrets = tmp_path_factory.mktemp("secrets")
    run("images/secrets", cwd=ROOT, env=os.environ | {"ECRS_SECRETS": str(secrets)})
    stack = Stack(secrets, free_port())
    stack.down("--volumes", "--remove-orphans")  # remove what a killed run left behind
    try:
        stack.up()
        yield stack
    finally:
        stack.down("--volumes", "--remove-orphans")


@pytest.fixture(scope="session")
def cases() -> Iterator[list[Case]]:
    """The results of all chaos tests of the run, written to a file at its end."""
    with reported_cases("compose") as cases:
        yield cases


@pytest.fixture(scope="session")
def bundle_dir(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the bundle that the stack serves."""
    bundles = tmp_path_factory.mktemp("bundles")
    stack.compose("cp", "client:/bundles/.", str(bundles))
    return (bundles / "current").resolve()


@pytest.fixture(scope="session")
def stored(bundle_dir: Path) -> dict[str, Any]:
    """A user and items that the stores contain: their ids, and the user's profile as client arguments."""
    user, *profile = (bundle_dir / "users.dat").read_text().splitlines()[100].split(":")
    products = [line.split(":")[0] for line in (bundle_dir / "products.dat").read_text().splitlines()[:3]]
    return {"user": user, "profile": profile, "products": products}
