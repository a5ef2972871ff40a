"""`make up` ends when a container fails, and prints which one and why."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose.conftest import PROJECT, ROOT, Stack, run


@pytest.fixture
def environment(stack: Stack, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a second compose project, which shares only the images with the stack."""
    made = os.environ | {
        "COMPOSE_PROJECT_NAME": f"{PROJECT}-up",
        "COMPOSE_ENV_FILES": "images/standin/standin.env",
        "ECRS_SECRETS": str(stack.secrets),
        "ECRS_GATEWAY_PORT": "0",
        "ECRS_BUNDLES": "bundles",
    }
    yield made
    run("docker", "compose", "down", "--timeout", "5", "--volumes", limit_s=120, cwd=ROOT, env=made)


def test_a_failed_one_shot_is_named_with_its_reason(environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["images/up"],
        cwd=ROOT, env=environment | {"ECRS_DATA": "/nowhere"}, text=True, capture_output=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    _, _, reason = done.stderr.partition("\ntrain exited with status 1:\n")
    assert "ecrs: /nowhere/users.dat: cannot be read: No such file or directory" in reason
    assert reason.endswith("`make up` tries again, `make down` stops the rest.\n")
