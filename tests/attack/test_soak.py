"""Runs the platform for a long time with ordinary calls, product changes and random attacks.

At the end, no acknowledged change is lost, no process has leaked memory, threads or files, and background
tasks have ended unexpectedly during attacks only.
"""

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ecrs.bundle import Bundle
from ecrs.ports import PORTS
from tests.attack.attack import Attack
from tests.attack.changes import ProductChanges
from tests.attack.matrix import ATTACKS
from tests.attack.samples import Held, ProcessSamples
from tests.attack.shop import Shop
from tests.attack.trial import RESULTS, Process, Trial, ordinary_callers, print_trials, tried
from tests.chaos import print_table
from tests.resources import metric

pytestmark = pytest.mark.soak

PAUSE_S = (2.0, 10.0)
"""Shortest and longest pause between two attacks."""
MINUTE_S = 60.0


@dataclass
class Soak:
    """The results of a run; `problems` tell what must not be."""

    minutes: float
    rate: float
    seed: int
    changes: int = 0
    trials: list[Trial] = field(default_factory=list)
    processes: dict[str, Held] = field(default_factory=dict)
    task_failures: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


class TaskFailures:
    """Counts the background tasks that ended unexpectedly, which a restarted process forgets."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._last: dict[Process, float] = {}
        self.since_last()

    def since_last(self) -> int:
        """Return how many have ended since the last call, in processes that still run."""
        now = {}
        for name, pid in self._shop.pids.items():
            if name in PORTS:
                with suppress(OSError):
                    now[name, pid] = metric(name, "ecrs_task_failures_total")
        new = sum(count - self._last.get(process, 0.0) for process, count in now.items())
        self._last |= now
        return round(new)


@pytest.fixture
def soak(request: pytest.FixtureRequest) -> Iterator[Soak]:
    """A soak as the command line asks for it; its results are printed and written to a file at the end."""
    option = request.config.getoption
    seed = random.randrange(10**6) if option("--seed") is None else option("--seed")
    soak = Soak(option("--minutes"), option("--rate"), seed)
    print(f"\nseed {seed}: {soak.minutes:g} minutes at {soak.rate:g} calls per second")
    yield soak
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "soak.json").write_text(json.dumps(asdict(soak), indent=1) + "\n")
    print_trials(soak.trials)
    print_table(("process", "MB/h", "threads", "files", "problems"), map(_row, soak.processes.items()))
    print(f"\n{soak.changes} changes acknowledged; task failures: {dict(soak.task_failures) or 'none'}")


def _row(process: tuple[str, Held]) -> dict[str, Any]:
    name, held = process
    found = held.slope
    return {
        "process": name,
        "MB/h": f"{found.mb_per_h:.1f} ± {found.half_width:.1f}" if found else "too few samples",
        "threads": "{} -> {}".format(*held.threads),
        "files": "{} -> {}".format(*held.files),
        "problems": "; ".join(held.problems),
    }


def in_random_order(seed: int, attacks: list[Attack]) -> Iterator[Attack]:
    """Yield all attacks in random order, again and again."""
    chosen = random.Random(seed)
    while True:
        yield from chosen.sample(attacks, len(attacks))


def test_a_long_run_loses_no_change_and_leaks_nothing(soak: Soak, bundle: Bundle, tmp_path: Path) -> None:
    ends_at = time.monotonic() + soak.minutes * MINUTE_S
    pause = random.Random(soak.seed).uniform
    with (
        Shop.running(bundle, tmp_path / "shop") as shop,
        ordinary_callers(shop, soak.rate) as load,
        ProductChanges.running(shop, soak.seed) as changes,
        ProcessSamples.of(shop) as samples,
    ):
        attacks = [attack for attack in ATTACKS if shop.log_disk or not attack.needs_disk]
        failures = TaskFailures(shop)
        for attack in in_random_order(soak.seed, attacks):
            time.sleep(pause(*PAUSE_S))
            if time.monotonic() > ends_at:
                break
            if count := failures.since_last():
                soak.problems.append(f"{count} background tasks ended before {attack.name!r}, without cause")
            soak.trials.append(tried(attack, shop, load))
            soak.task_failures[attack.name] += failures.since_last()
            if lost := changes.lost():
                soak.problems.append(f"after {attack.name!r}: {'; '.join(lost)}")
                break
        soak.changes = changes.acknowledged
        soak.processes = samples.judge(soak.rate)
    soak.task_failures += Counter()  # drops the attacks without a failure
    soak.problems += [
        f"{name}: {problem}" for name, held in soak.processes.items() for problem in held.problems
    ]
    assert not soak.problems
