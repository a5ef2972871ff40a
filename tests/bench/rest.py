"""Waits between two measurements until the platform has recovered from the earlier load.

After an overload, calls are still in flight, circuit breakers are open and the gateway ranks fewer
candidates. A measurement that began at that time would count this against its own rate.
"""

import time
import urllib.request
from collections.abc import Callable, Sequence
from typing import Self

import grpc
from prometheus_client.parser import text_string_to_metric_families

from ecrs.contract.as_pb2 import ASRequest
from ecrs.contract.as_pb2_grpc import ASServiceStub
from ecrs.ports import METRICS_OFFSET
from tests.bench.load import OPEN, TIMEOUT_S

LIMIT_S = 60.0
POLL_S = 0.02
IN_FLIGHT, RANKING_DEPTH = "ecrs_in_flight", "ecrs_ranking_depth"


def _print(line: str) -> None:
    print(line, flush=True)


def wait_for_rest(
    name: str,
    unrest: Callable[[], str | None],
    *,
    limit_s: float = LIMIT_S,
    say: Callable[[str], None] = _print,
) -> None:
    """Wait until `unrest()` is None; until then, it gives the reason why platform `name` is not at rest.

    Reports by `say` that it waits and, at the end, how long it waited. Raises RuntimeError with the last
    reason after `limit_s`.
    """
    if (reason := unrest()) is None:
        return
    say(f"waiting until {name} is at rest: {reason}")
    begun = time.monotonic()
    while (reason := unrest()) is not None:
        if time.monotonic() - begun > limit_s:
            raise RuntimeError(f"{name} is not at rest after {limit_s:g} s: {reason}")
        time.sleep(POLL_S)
    say(f"{name} is at rest after {time.monotonic() - begun:.1f} s")


def metrics_url(target: str) -> str:
    """Return the metrics URL of the service at `target`, host:port."""
    host, _, port = target.rpartition(":")
    return f"http://{host}:{int(port) + METRICS_OFFSET}/metrics"


class PlatformState:
    """Tells whether a platform is at rest, by a call to its gateway and by the metrics of its services.

    `metrics` are URLs; without any, only the call decides.
    """

    def __init__(self, gateway: str, user: str, metrics: Sequence[str] = ()) -> None:
        self._channel = grpc.insecure_channel(gateway)
        self._stub = ASServiceStub(self._channel)
        self._user = user
        self._metrics = metrics

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def unrest(self) -> str | None:
        """Return why the platform is not at rest, or None if it is.

        The call also helps to restore the ranking depth, which rises with every answer in time.
        """
        try:
            reply = self._stub.as_call(ASRequest(user_id=self._user), timeout=TIMEOUT_S[OPEN])
        except grpc.RpcError as error:
            return f"a call ended as {error.code().name}"
        if reply.error.code != 200:
            return f"a call was answered with {reply.error.code}: {reply.error.text}"
        if reply.degraded:
            return "a call was degraded: " + ", ".join(degradation.stage for degradation in reply.degraded)
        samples = [sample for url in self._metrics for sample in _samples(url)]
        if in_flight := sum(value for name, value in samples if name == IN_FLIGHT):
            return f"{in_flight:.0f} calls are in flight"
        if (depth := min((value for name, value in samples if name == RANKING_DEPTH), default=1.0)) < 1:
            return f"the ranking depth is {depth:.2f}"
        return None


def _samples(url: str) -> list[tuple[str, float]]:
    """Return the name and value of every sample that a service exposes at `url`."""
    with urllib.request.urlopen(url, timeout=TIMEOUT_S[OPEN]) as reply:  # noqa: S310 - http, see metrics_url
        text = reply.read().decode()
    families = text_string_to_metric_families(text)
    return [(sample.name, sample.value) for family in families for sample in family.samples]
