"""The platform comes back: after each container's restart, and after down and up."""

import time
from typing import Any

import pytest

from tests.compose.conftest import SERVICES, Stack, wait_until

STOP_LIMIT_S = 10
RECOVERY_LIMIT_S = 90
# Of `sleep`, which SIGTERM ends; and of Milvus 2.3.5, which stops its parts in order and may then abort
# in its C++ library's last steps. What it stored is there after the start: the test sees to that.
CLEAN_EXITS = {"client": {143}, "milvus": {0, 134}}


def items(reply: str) -> str:
    """The answer without its times and its own id."""
    return reply.partition("bundle_version")[0]


def full_answer(stack: Stack, user: str) -> str:
    """With every candidate ranked, which a gateway that was slow comes back to."""

    def full() -> str | None:
        reply = stack.client("as", user)
        return reply if "\nranked: 100\n" in reply and "\ndegraded {" not in reply else None

    return wait_until("a full answer", full, RECOVERY_LIMIT_S)


@pytest.mark.parametrize("service", SERVICES)
def test_the_platform_recovers_from_a_restart(stack: Stack, known: dict[str, Any], service: str) -> None:
    before = items(full_answer(stack, known["user"]))
    assert before.startswith("error {\n  code: 200\n}\n")
    started = time.monotonic()
    stack.compose("stop", "--timeout", "30", service)
    stopped_s = time.monotonic() - started
    exit_code = stack.inspect(service)["State"]["ExitCode"]
    stack.compose("start", service)
    wait_until("every container healthy", lambda: all(map(stack.is_healthy, SERVICES)), RECOVERY_LIMIT_S)
    wait_until(
        "the answer of before", lambda: items(stack.client("as", known["user"])) == before, RECOVERY_LIMIT_S
    )
    assert stopped_s < STOP_LIMIT_S
    assert exit_code in CLEAN_EXITS.get(service, {0})


def test_down_and_up_come_back_without_training_or_seeding(stack: Stack, known: dict[str, Any]) -> None:
    before = full_answer(stack, known["user"])
    assert "code: 200" in before
    stack.down()
    assert stack.compose("ps", "--all", "--quiet") == ""
    stack.up()
    after = full_answer(stack, known["user"])
    assert items(after) == items(before)
    assert version(after) == version(before)
    for service in ("seed-redis", "seed-milvus"):
        assert "is there already" in stack.log(service)


def version(reply: str) -> str:
    (line,) = (line for line in reply.splitlines() if line.startswith("bundle_version"))
    return line
