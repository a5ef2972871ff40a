"""Restarts every service under load, one container after the other, with two replicas of gateway and rank.

The load comes from a container, because only there the name `gateway` resolves to the addresses of both
replicas.
"""

from collections.abc import Iterator

import pytest

from tests.chaos import Case, Load, run_case
from tests.compose.conftest import PROJECT, ROOT, SERVICES, Stack, free_port, run, wait_until

pytestmark = pytest.mark.chaos

RECOVERY_LIMIT_S = 90.0
SERVED = [service for service in SERVICES if service != "client"]


@pytest.fixture(scope="module")
def replicas(stack: Stack) -> Iterator[None]:
    up = ["up", "--detach", "--no-build", "--no-deps", "--no-recreate", "--wait"]
    with stack.overlaid(ECRS_GATEWAY_PORT=str(free_port()), ECRS_RANK_REPLICAS="2"):
        stack.compose(*up, "--scale", "gateway=2", "gateway", "rank", limit_s=180)
        yield
    with stack.overlaid(ECRS_GATEWAY_PORT=str(free_port())):
        stack.compose(*up, "gateway", "rank", limit_s=180)


@pytest.fixture(scope="module")
def load(stack: Stack, replicas: None) -> Iterator[Load]:
    image = stack.inspect("client")["Config"]["Image"]
    mounts = ["--volume", f"{ROOT}/tests:/app/tests:ro", "--workdir", "/app"]
    container = ["docker", "run", "--rm", "--interactive", "--network", f"{PROJECT}_gateway", *mounts]
    program = ["python", "-m", "tests.chaos", "dns:///gateway.ecrs:8930"]
    with Load.in_subprocess([*container, image, *program, *stack.users()]) as load:
        yield load


def restart(stack: Stack, service: str) -> None:
    """Restart the replicas of a service one by one; wait until each is healthy before the next restarts."""
    for container in stack.compose("ps", "--quiet", service).split():
        run("docker", "restart", "--time", "30", container)
        wait_until(f"{service} healthy", lambda container=container: is_healthy(container), RECOVERY_LIMIT_S)


def rank_calls(container: str) -> int:
    """Return how many calls a replica of rank has answered, by its log."""
    return run("docker", "logs", container).count("/RankService/rank_predict")


def is_healthy(container: str) -> bool:
    return run("docker", "inspect", "--format", "{{.State.Health.Status}}", container).strip() == "healthy"


def test_configured_replicas_share_the_calls(stack: Stack, load: Load) -> None:
    containers = stack.compose("ps", "--quiet", "rank").split()
    assert len(containers) == 2
    before = list(map(rank_calls, containers))

    def new_calls() -> list[int]:
        return [now - then for now, then in zip(map(rank_calls, containers), before, strict=True)]

    wait_until("calls to each replica", lambda: min(new_calls()) >= 20, 90)


@pytest.mark.parametrize("service", SERVED)
def test_a_rolling_restart_fails_no_call(stack: Stack, load: Load, cases: list[Case], service: str) -> None:
    case = run_case(
        load,
        service,
        "rolling restart",
        lambda: restart(stack, service),
        lambda: None,
        hold_s=0.0,
        recovery_limit_s=RECOVERY_LIMIT_S,
    )
    cases.append(case)
    assert case.valid == case.calls, case.errors
    assert case.in_deadline == case.calls
