"""One run: every contender in turn, round by round, so that what disturbs one disturbs all.

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
from ecrs.ports import PORTS
from tests.bench.ancestor import ancestor
from tests.bench.direct import Settings, open_store
from tests.bench.figures import is_held, row
from tests.bench.floor import Floor, FloorWithHops, Inputs, echoes
from tests.bench.load import CLOSED, OPEN, Generator, Order, Sample
from tests.bench.machine import versions
from tests.bench.processes import cpu_s, rss_mb
from tests.bench.record import answers
from tests.bench.rest import PlatformState, metrics_url, wait_for_rest
from tests.bench.sites import Site

RAW, HOPS, ECRS, ANCESTOR = "floor", "floor with hops", "ECRS", "ancestor"
SERVED = (ECRS, ANCESTOR)
CANDIDATES = 100
CLIENTS = (1, 8, 32)
USERS = 40

RATES = (
    *(5, 6.3, 8, 10, 12.5, 16, 20, 25, 32, 40, 50, 63, 80),
    *(100, 125, 160, 200, 250, 315, 400, 500, 630, 800),
)
"""Of the open loop, calls a second: ten to a decade."""
CLIMB = 3
"""The first climb takes every third of RATES, a factor of 2, up to saturation."""
BELOW, ABOVE = 2, 3
"""So many of RATES around the highest that the climb saw held are measured in every round."""
SATURATED_MS, SATURATED_SHARE = 1000.0, 0.05
"""Saturation: a p99 above this, or a share of calls failed or shed."""


@dataclass(frozen=True)
class Plan:
    rounds: int
    seconds: float
    up_to: float
    """The open loop's highest rate."""


@dataclass
class Measured:
    """What was seen.

    `closed`, samples by `contender`, one a round; `open`, by contender and rate; `steady`, those of them that
    every round has; CPU and resident memory by contender and part; `same`, of each served contender asked
    again, the share of items that ECRS had answered in the same place.
    """

    closed: dict[str, list[Sample]] = field(default_factory=dict)
    open: dict[str, dict[float, list[Sample]]] = field(default_factory=dict)
    steady: dict[str, dict[float, list[Sample]]] = field(default_factory=dict)
    cpu_ms_per_call: dict[str, dict[str, float]] = field(default_factory=dict)
    rss_mb: dict[str, dict[str, int]] = field(default_factory=dict)
    same: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def contender(name: str, clients: int) -> str:
    return f"{name}, {clients}"


def some_users(bundle: Bundle) -> list[str]:
    """Ids of USERS users, from all over the bundle's."""
    users = [line.split(":")[0] for line in bundle.lines("users.dat")]
    return users[:: max(1, len(users) // USERS)][:USERS]


def measure(site: Site, plan: Plan) -> Measured:
    users = some_users(site.bundle)
    settings = Settings(**site.settings)
    with ExitStack() as stack:
        targets = stack.enter_context(echoes(tuple(PORTS)))
        other = stack.enter_context(ancestor(site.environment, CANDIDATES))
        generator = stack.enter_context(Generator(users))
        seen = answers(users, site.targets, site.environment)
        inputs = [Inputs.of(user, *answer) for user, answer in zip(users, seen, strict=True)]
        floor = Floor(settings, site.bundle, CANDIDATES)
        metrics = [metrics_url(target) for target in site.targets.values()]
        gateways = {ECRS: site.targets["gateway"], ANCESTOR: other.gateway}
        run = _Run(
            plan,
            generator,
            {RAW: floor.answer, HOPS: FloorWithHops(floor, targets).answer},
            inputs,
            gateways,
            {ECRS: site.parts, ANCESTOR: other.processes | site.stores},
            {
                ECRS: stack.enter_context(PlatformState(gateways[ECRS], users[0], metrics)),
                ANCESTOR: stack.enter_context(PlatformState(gateways[ANCESTOR], users[0])),
            },
        )
        answered = [answer for answer, _ in seen]
        run.measured.same = {name: _same(gateway, users, answered) for name, gateway in gateways.items()}
        run.closed_loops()
        run.open_loops()
        run.measured.rss_mb = {name: rss_mb(parts) for name, parts in run.parts.items()}
        run.measured.versions = versions(open_store(settings))
        return run.measured


@dataclass
class _Run:
    """`floors` answer in this process, for `inputs` in turn; the generator calls the `gateways`.

    `parts` are the processes that a served contender uses; `states` tell whether it is at rest.
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
        served = [(name, clients) for clients in CLIENTS for name in SERVED]
        for floor in self.floors:  # warm
            self._floor(floor)
        for name, clients in served:
            self._closed(name, clients)
        cpu = {name: dict.fromkeys(self.parts[name], 0.0) for name in SERVED}
        calls = dict.fromkeys(SERVED, 0)
        for _ in range(self.plan.rounds):
            for floor in self.floors:
                self.measured.closed.setdefault(floor, []).append(self._floor(floor))
            for name, clients in served:
                self._rest()  # its calls are not counted in the CPU time
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
        """Climb to saturation once; then, every round, the rates around the highest that was held."""
        rates = [rate for rate in RATES if rate <= self.plan.up_to]
        climbing = set(SERVED)
        top = dict.fromkeys(SERVED, 0)
        for place in range(0, len(rates), CLIMB):
            for name in [name for name in SERVED if name in climbing]:
                sample = self._open(name, rates[place])
                self.measured.open.setdefault(name, {})[rates[place]] = [sample]
                if is_held([sample]):
                    top[name] = place
                if _is_saturated(sample):
                    climbing.remove(name)
        around = {name: rates[max(0, top[name] - BELOW) : top[name] + ABOVE + 1] for name in SERVED}
        for _ in range(self.plan.rounds):
            for together in itertools.zip_longest(*around.values()):
                for name, rate in zip(around, together, strict=True):
                    if rate is not None:
                        sample = self._open(name, rate)
                        self.measured.steady.setdefault(name, {}).setdefault(rate, []).append(sample)
        for name, of_rates in self.measured.steady.items():
            for rate, samples in of_rates.items():
                self.measured.open[name].setdefault(rate, []).extend(samples)

    def _rest(self) -> None:
        for name, state in self.states.items():
            wait_for_rest(name, state.unrest)

    def _floor(self, name: str) -> Sample:
        self._rest()
        sample, answer = Sample(), self.floors[name]
        begun = time.perf_counter()
        for one in itertools.cycle(self.inputs):
            due = time.perf_counter()
            if due >= begun + self.plan.seconds:
                break
            answer(one)
            sample.took_s.append(time.perf_counter() - due)
        sample.seconds = time.perf_counter() - begun
        return sample

    def _closed(self, name: str, clients: int) -> Sample:
        return self.generator.run(Order(self.gateways[name], CLOSED, self.plan.seconds, clients=clients))

    def _open(self, name: str, rate: float) -> Sample:
        self._rest()
        return self.generator.run(Order(self.gateways[name], OPEN, self.plan.seconds, rate=rate))


def _is_saturated(sample: Sample) -> bool:
    found = row([sample])
    lost = found["failed"] + found["shed"]
    return lost > SATURATED_SHARE * found["calls"] or (found["p99_ms"] or 0) > SATURATED_MS


def _same(gateway: str, users: Sequence[str], answers: Sequence[ASResponse]) -> float:
    """The share of items that the gateway answers in the same place as in `answers`."""
    same = places = 0
    with grpc.insecure_channel(gateway) as channel:
        stub = ASServiceStub(channel)
        for user, answer in zip(users, answers, strict=True):
            items = stub.as_call(ASRequest(user_id=user), timeout=10).item_infos
            same += sum(a.sku_id == b.sku_id for a, b in zip(items, answer.item_infos, strict=False))
            places += max(len(items), len(answer.item_infos))
    return same / places
