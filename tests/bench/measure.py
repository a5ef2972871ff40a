"""Measures all contenders in turn, round by round, so that disturbances of the machine affect all of them.

Each measurement begins with both platforms at rest.
"""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import grpc

from ecrs.bundle import Bundle
from ecrs.contract.as_pb2 import ASRequest, ASResponse
from ecrs.contract.as_pb2_grpc import ASServiceStub
from ecrs.gateway.app import GatewaySettings
from ecrs.ports import PORTS
from tests.bench.ancestor import ancestor
from tests.bench.direct import Settings, open_store
from tests.bench.figures import is_held, row
from tests.bench.floor import Floor, FloorWithHops, Inputs, echoes
from tests.bench.load import CLOSED, OPEN, Generator, LoadPlan, Sample
from tests.bench.machine import versions
from tests.bench.processes import cpu_s, rss_mb
from tests.bench.record import answers
from tests.bench.rest import PlatformState, metrics_url, wait_for_rest
from tests.bench.sites import Site

RAW, HOPS, ECRS, ANCESTOR = "floor", "floor with hops", "ECRS", "ancestor"
SERVED = (ECRS, ANCESTOR)
CANDIDATES = GatewaySettings().candidates
"""Candidates per request of all contenders: the gateway's default, or ECRS_CANDIDATES."""
CLIENTS = (1, 8, 32)
USERS = 40

RATES = (
    *(5, 6.3, 8, 10, 12.5, 16, 20, 25, 32, 40, 50, 63, 80),
    *(100, 125, 160, 200, 250, 315, 400, 500, 630, 800),
)
"""Rates of the open loop in calls per second, ten per decade."""
CLIMB = 3
"""The first climb to saturation uses every third of RATES, a factor of 2."""
BELOW, ABOVE = 2, 3
"""How many of RATES below and above the highest rate held in the climb are measured in every round."""
SATURATED_MS, SATURATED_SHARE = 1000.0, 0.05
"""A contender is saturated if its p99 is above this, or a larger share of its calls failed or was shed."""


@dataclass(frozen=True)
class Plan:
    rounds: int
    seconds: float
    up_to: float
    """The highest rate of the open loop, calls per second."""


@dataclass
class Measured:
    """The measurements of a run.

    `closed` has the samples by `contender`, one per round; `open`, by name and rate; `steady`, the samples of
    the rates that were measured in every round. CPU time and resident memory are by name and part. `same` is
    the share of items that a served contender returned at the same position as an earlier answer of ECRS.
    """

    closed: dict[str, list[Sample]] = field(default_factory=dict)
    open: dict[str, dict[float, list[Sample]]] = field(default_factory=dict)
    steady: dict[str, dict[float, list[Sample]]] = field(default_factory=dict)
    cpu_ms_per_call: dict[str, dict[str, float]] = field(default_factory=dict)
    rss_mb: dict[str, dict[str, int]] = field(default_factory=dict)
    same: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def contender(name: str, clients: int) -> str:
    """Return the key of a served contender's closed loop with `clients` clients."""
    return f"{name}, {clients}"


def some_users(bundle: Bundle) -> list[str]:
    """Return the ids of USERS users, spread evenly over the bundle's users."""
    users = [line.split(":")[0] for line in bundle.lines("users.dat")]
    return users[:: max(1, len(users) // USERS)][:USERS]


def measure(site: Site, plan: Plan) -> Measured:
    """Start the other contenders and measure all of them against the platform that runs at `site`."""
    users = some_users(site.bundle)
    settings = Settings(**site.settings)
    with ExitStack() as stack:
        targets = stack.enter_context(echoes(tuple(PORTS)))
        running_ancestor = stack.enter_context(ancestor(site.environment, CANDIDATES))
        generator = stack.enter_context(Generator(users))
        recorded = answers(users, site.targets, site.environment)
        inputs = [Inputs.of(user, *recording) for user, recording in zip(users, recorded, strict=True)]
        floor = Floor(settings, site.bundle, CANDIDATES)
        metrics = [metrics_url(target) for target in site.targets.values()]
        gateways = {ECRS: site.targets["gateway"], ANCESTOR: running_ancestor.gateway}
        run = _Run(
            plan,
            generator,
            {RAW: floor.answer, HOPS: FloorWithHops(floor, targets).answer},
            inputs,
            gateways,
            {ECRS: site.parts, ANCESTOR: running_ancestor.processes | site.stores},
            {
                ECRS: stack.enter_context(PlatformState(gateways[ECRS], users[0], metrics)),
                ANCESTOR: stack.enter_context(PlatformState(gateways[ANCESTOR], users[0])),
            },
        )
        expected = [answer for answer, _ in recorded]
        run.rest()
        run.measured.same = {
            name: _share_of_same_items(gateway, users, expected) for name, gateway in gateways.items()
        }
        run.closed_loops()
        run.open_loops()
        run.measured.rss_mb = {name: rss_mb(parts) for name, parts in run.parts.items()}
        run.measured.versions = versions(open_store(settings))
        return run.measured


@dataclass
class _Run:
    """One run of the benchmark.

    `floors` run in this process, with each of `inputs` in turn; the generator calls the `gateways`. `parts`
    are the processes that a served contender uses, and `states` tell whether it is at rest.
    """

    plan: Plan
    generator: Generator
    floors: Mapping[str, Callable[[Inputs], None]]
    inputs: Sequence[Inputs]
    gateways: Mapping[str, str]
    parts: Mapping[str, Mapping[str, int]]
    states: Mapping[str, PlatformState]
    measured: Measured = field(default_factory=Measured)

    def closed_loops(self) -> None:
        """Measure all contenders in a closed loop in every round, after a warm-up of each."""
        served = [(name, clients) for clients in CLIENTS for name in SERVED]
        for floor in self.floors:  # warm-up
            self._floor(floor)
        for name, clients in served:
            self._closed(name, clients)
        cpu = {name: dict.fromkeys(self.parts[name], 0.0) for name in SERVED}
        calls = dict.fromkeys(SERVED, 0)
        for _ in range(self.plan.rounds):
            for floor in self.floors:
                self.measured.closed.setdefault(floor, []).append(self._floor(floor))
            for name, clients in served:
                self.rest()  # before the CPU time is read, so that its calls do not count
                before = cpu_s(self.parts[name])
                sample = self._closed(name, clients)
                for part, used in cpu_s(self.parts[name]).items():
                    cpu[name][part] += used - before[part]
                calls[name] += len(sample.took_s)
                self.measured.closed.setdefault(contender(name, clients), []).append(sample)
        self.measured.cpu_ms_per_call = {
            name: {part: round(used / max(calls[name], 1) * 1000, 2) for part, used in cpu[name].items()}
            for name in SERVED
        }

    def open_loops(self) -> None:
        """Climb to saturation once; then measure the rates around the highest held one in every round."""
        rates = [rate for rate in RATES if rate <= self.plan.up_to]
        climbing = set(SERVED)
        highest = dict.fromkeys(SERVED, 0)
        for index in range(0, len(rates), CLIMB):
            for name in [name for name in SERVED if name in climbing]:
                sample = self._open(name, rates[index])
                self.measured.open.setdefault(name, {})[rates[index]] = [sample]
                if is_held([sample]):
                    highest[name] = index
                if _is_saturated(sample):
                    climbing.remove(name)
        around = {name: rates[max(0, highest[name] - BELOW) : highest[name] + ABOVE + 1] for name in SERVED}
        for _ in range(self.plan.rounds):
            for rates_in_turn in itertools.zip_longest(*around.values()):
                for name, rate in zip(around, rates_in_turn, strict=True):
                    if rate is not None:
                        sample = self._open(name, rate)
                        self.measured.steady.setdefault(name, {}).setdefault(rate, []).append(sample)
        for name, samples_by_rate in self.measured.steady.items():
            for rate, samples in samples_by_rate.items():
                self.measured.open[name].setdefault(rate, []).extend(samples)

    def rest(self) -> None:
        """Wait until every platform is at rest."""
        for name, state in self.states.items():
            wait_for_rest(name, state.unrest)

    def _floor(self, name: str) -> Sample:
        self.rest()
        sample, answer = Sample(), self.floors[name]
        begun = time.perf_counter()
        for inputs in itertools.cycle(self.inputs):
            started = time.perf_counter()
            if started >= begun + self.plan.seconds:
                break
            answer(inputs)
            sample.took_s.append(time.perf_counter() - started)
        sample.seconds = time.perf_counter() - begun
        return sample

    def _closed(self, name: str, clients: int) -> Sample:
        return self.generator.run(LoadPlan(self.gateways[name], CLOSED, self.plan.seconds, clients=clients))

    def _open(self, name: str, rate: float) -> Sample:
        self.rest()
        return self.generator.run(LoadPlan(self.gateways[name], OPEN, self.plan.seconds, rate=rate))


def _is_saturated(sample: Sample) -> bool:
    figures = row([sample])
    lost = figures["failed"] + figures["shed"]
    return lost > SATURATED_SHARE * figures["calls"] or (figures["p99_ms"] or 0) > SATURATED_MS


def _share_of_same_items(gateway: str, users: Sequence[str], expected: Sequence[ASResponse]) -> float:
    """Call the gateway for each user; return the share of items at the same position as in `expected`."""
    same = total = 0
    with grpc.insecure_channel(gateway) as channel:
        stub = ASServiceStub(channel)
        for user, answer in zip(users, expected, strict=True):
            items = stub.as_call(ASRequest(user_id=user), timeout=10).item_infos
            same += sum(a.sku_id == b.sku_id for a, b in zip(items, answer.item_infos, strict=False))
            total += max(len(items), len(answer.item_infos))
    return same / total
