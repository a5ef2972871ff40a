"""Simulates a reboot after a power cut: containers start in any order, and one starts 30 seconds late."""

import time

import pytest

from tests.chaos import Load
from tests.compose.conftest import ONE_SHOTS, SERVICES, Stack, run, wait_until

pytestmark = pytest.mark.chaos

LATE_S = 30.0
RECOVERY_LIMIT_S = 60.0
"""Longest time from the late part's start to full service; Milvus alone takes 10 s, and health checks run
every 5 s."""
NOT_NEEDED = ("serving-item-tower",)
"""Parts that recommendations do not use: the item tower embeds new items only."""
PARTS = [service for service in SERVICES if service != "client"]
ALWAYS = ("redis", "recall")
"""Parts tested without --every-case too: other services require Redis, and the gateway can do without
recall."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "late" in metafunc.fixturenames:
        metafunc.parametrize("late", PARTS if metafunc.config.getoption("every_case", False) else ALWAYS)


def test_the_platform_reaches_full_service_when_a_part_starts_late(stack: Stack, late: str) -> None:
    users = stack.users()
    containers = {service: stack.inspect(service)["Id"] for service in (*SERVICES, *ONE_SHOTS)}
    run("docker", "kill", *(containers[service] for service in SERVICES))
    others = [container for service, container in containers.items() if service != late]
    run("docker", "start", *others)  # ignores depends_on, as a reboot does
    others_started = time.monotonic()
    if late != "gateway":
        wait_until("an answer", lambda: "item_infos" in ask(stack, users[0]), LATE_S)
    time.sleep(max(0.0, others_started + LATE_S - time.monotonic()))
    if late != "gateway":
        answer = ask(stack, users[0])
        assert "item_infos" in answer
        assert ("degraded" in answer) == (late not in NOT_NEEDED)
    run("docker", "start", containers[late])
    started = time.monotonic()
    stack.wait_until_healthy(RECOVERY_LIMIT_S)
    with Load.on(stack.gateway, users) as load:
        load.full_service(started, RECOVERY_LIMIT_S)
    for service in ONE_SHOTS:
        state = stack.inspect(service)["State"]
        assert (state["Running"], state["ExitCode"]) == (False, 0), stack.log(service)[-2000:]


def ask(stack: Stack, user: str) -> str:
    """Return the gateway's answer with all fields as text, or an empty string without an answer."""
    return stack.compose("exec", "-T", "client", "python", "client.py", "as", user, "--full", check=False)
