"""Every service restarted, one container after the other, with two replicas of the gateway, under load.

The client is in a container, where the name `gateway` has the addresses of both.
"""

from collections.abc import Iterator

import pytest

from tests.chaos import Case, Load, suffer
from tests.compose.conftest import PROJECT, ROOT, SERVICES, Stack, free_port, run, wait_until

pytestmark = pytest.mark.chaos

RECOVERY_LIMIT_S = 90.0
SERVED = [service for service in SERVICES if service != "client"]


@pytest.fixture(scope="module")
def two_gateways(stack: Stack) -> Iterator[None]:
    scale = ["up", "--detach", "--no-build", "--no-deps", "--no-recreate", "--wait", "--scale"]
    with stack.overlaid(ECRS_GATEWAY_PORT=str(free_port())):
        stack.compose(*scale, "gateway=2", "gateway", limit_s=180)
        yield
        stack.compose(*scale, "gateway=1", "gateway", limit_s=180)


@pytest.fixture(scope="module")
def load(stack: Stack, two_gateways: None) -> Iterator[Load]:
    image = stack.inspect("client")["Config"]["Image"]
    mounts = ["--volume", f"{ROOT}/tests:/app/tests:ro", "--workdir", "/app"]
    container = ["docker", "run", "--rm", "--interactive", "--network", f"{PROJECT}_internal", *mounts]
    program = ["python", "-m", "tests.chaos", "dns:///gateway:8930"]
    with Load.elsewhere([*container, image, *program, *stack.users()]) as load:
        yield load


def restart(stack: Stack, service: str) -> None:
    """One replica after the other, each when the one before it is healthy again."""
    for container in stack.compose("ps", "--quiet", service).split():
        run("docker", "restart", "--time", "30", container)
        wait_until(f"{service} healthy", lambda container=container: healthy(container), RECOVERY_LIMIT_S)


def healthy(container: str) -> bool:
    return run("docker", "inspect", "--format", "{{.State.Health.Status}}", container).strip() == "healthy"


@pytest.mark.parametrize("service", SERVED)
def test_a_rolling_restart_fails_no_call(stack: Stack, load: Load, cases: list[Case], service: str) -> None:
    case = suffer(
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
