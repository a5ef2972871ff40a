"""A machine comes up after a power cut, its containers in any order, and one of them half a minute late."""

import time

import pytest

from tests.chaos import Load
from tests.compose.conftest import ONE_SHOTS, SERVICES, Stack, run, wait_until

pytestmark = pytest.mark.chaos

LATE_S = 30.0
RECOVERY_LIMIT_S = 60.0
"""From the late part's start; Milvus alone takes 10 s, and a health check looks every 5 s."""
NOT_ASKED = ("serving-item-tower",)
"""For new products alone."""
PARTS = [service for service in SERVICES if service != "client"]
ALWAYS = ("redis", "recall")
"""Tested without --every-case too: one that others cannot do without, one that the gateway can."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "late" in metafunc.fixturenames:
        metafunc.parametrize("late", PARTS if metafunc.config.getoption("every_case", False) else ALWAYS)


def test_the_platform_comes_up_when_a_part_is_late(stack: Stack, late: str) -> None:
    users = stack.users()
    containers = {service: stack.inspect(service)["Id"] for service in (*SERVICES, *ONE_SHOTS)}
    run("docker", "kill", *(containers[service] for service in SERVICES))
    prompt = [container for service, container in containers.items() if service != late]
    run("docker", "start", *prompt)  # which knows nothing of depends_on
    came = time.monotonic()
    if late != "gateway":
        wait_until("an answer", lambda: "item_infos" in ask(stack, users[0]), LATE_S)
    time.sleep(max(0.0, came + LATE_S - time.monotonic()))
    if late != "gateway":
        answer = ask(stack, users[0])
        assert "item_infos" in answer
        assert ("degraded" in answer) == (late not in NOT_ASKED)
    run("docker", "start", containers[late])
    started = time.monotonic()
    stack.wait_until_healthy(RECOVERY_LIMIT_S)
    with Load.on(stack.gateway, users) as load:
        load.full_service(started, RECOVERY_LIMIT_S)
    for service in ONE_SHOTS:
        state = stack.inspect(service)["State"]
        assert (state["Running"], state["ExitCode"]) == (False, 0), stack.log(service)[-2000:]


def ask(stack: Stack, user: str) -> str:
    """All fields of an answer as text, empty without a reply."""
    return stack.compose("exec", "-T", "client", "python", "client.py", "as", user, "--full", check=False)
