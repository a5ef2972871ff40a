"""The platform comes back: after each container's restart, and after down and up."""

import json
import time
from typing import Any

import pytest

from tests.compose.conftest import SERVICES, Stack, wait_until

STOP_LIMIT_S = 10
RECOVERY_LIMIT_S = 90
# Of `sleep`, which SIGTERM ends; and of Milvus 2.3.5, which stops its parts in order and may then abort
# in its C++ library's last steps. What it stored is there after the start: the test sees to that.
CLEAN_EXITS = {"client": {143}, "milvus": {0, 134}}


def answer(stack: Stack, user: str) -> dict[str, Any]:
    """All fields of an answer."""
    return json.loads(stack.client("as", user, "--full", "--json"))


def full_answer(stack: Stack, user: str) -> dict[str, Any]:
    """An answer without fallbacks and with every candidate ranked; a gateway that was slow takes a while."""

    def full() -> dict[str, Any] | None:
        reply = answer(stack, user)
        return reply if reply.get("ranked") == 100 and "degraded" not in reply else None

    return wait_until("a full answer", full, RECOVERY_LIMIT_S)


@pytest.mark.parametrize("service", SERVICES)
def test_the_platform_recovers_from_a_restart(stack: Stack, known: dict[str, Any], service: str) -> None:
    before = full_answer(stack, known["user"])
    assert before["error"] == {"code": 200}
    started = time.monotonic()
    stack.compose("stop", "--timeout", "30", service)
    stopped_s = time.monotonic() - started
    exit_code = stack.inspect(service)["State"]["ExitCode"]
    stack.compose("start", service)
    wait_until("every container healthy", lambda: all(map(stack.is_healthy, SERVICES)), RECOVERY_LIMIT_S)
    wait_until(
        "the items of before",
        lambda: answer(stack, known["user"]).get("item_infos") == before["item_infos"],
        RECOVERY_LIMIT_S,
    )
    assert stopped_s < STOP_LIMIT_S
    assert exit_code in CLEAN_EXITS.get(service, {0})


def test_down_and_up_come_back_without_training_or_seeding(stack: Stack, known: dict[str, Any]) -> None:
    before = full_answer(stack, known["user"])
    assert before["error"] == {"code": 200}
    stack.down()
    assert stack.compose("ps", "--all", "--quiet") == ""
    stack.up()
    after = full_answer(stack, known["user"])
    for field in ("item_infos", "bundle_version"):
        assert after[field] == before[field]
    for service in ("seed-redis", "seed-milvus"):
        assert "is already loaded" in stack.log(service)
