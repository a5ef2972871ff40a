"""Performs one attack beside ordinary callers, and judges what they observed and what it left behind."""

import asyncio
import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ecrs.domain.sizes import DEFAULT_ITEMS
from ecrs.ports import PORTS
from tests.attack.attack import Attack
from tests.attack.shop import Shop
from tests.chaos import FULL_ANSWERS_REQUIRED, RATE, Call, Load, Observed, print_table
from tests.resources import Resources, status_number

DEADLINE_S = 0.25
"""Deadline of ordinary calls."""
WHOLE_SHARE = 0.99
"""Least share of ordinary calls that are answered in time, with as many items as requested and without a
fallback that the attack does not explain. One call may always fail: fifty calls are too few to tell 99 %."""
RECOVERY_S = 2.0
"""Longest time from the end of an attack to full service."""
RECOVERY_LIMIT_S = 20.0
"""After this time, full service will not come back by itself."""
SETTLE_LIMIT_S = 10.0
"""Longest wait after an attack for its connections and tasks to end."""
GROWTH = Resources(tasks=3, files=16, threads=8, memory_mb=64.0)
"""What a process may hold more after an attack, and its memory also during it: pools of connections, threads
and memory grow to the largest number of calls at a time. The memory is a quarter of a container's least
limit.
"""
RESULTS = Path(__file__).parents[2] / "artifacts" / "attack"
COLUMNS = ("case", "calls", "valid", "in_deadline", "degraded", "peak_rss_mb", "recovered_s", "problems")


@dataclass(frozen=True, kw_only=True)
class Trial(Observed):
    """The result of one attack.

    `whole` counts the calls that satisfy WHOLE_SHARE's conditions, `peak_rss_mb` the highest resident memory
    of each process meanwhile. `problems` tell what must not be; empty if the platform withstood the attack.
    """

    case: str
    whole: int
    peak_rss_mb: dict[str, int]
    problems: list[str]


@contextmanager
def ordinary_callers(shop: Shop, rate: float = RATE) -> Iterator[Load]:
    """Make `rate` ordinary calls per second from another process, which the attacker does not slow down."""
    limits = ["--deadline-s", str(DEADLINE_S), "--rate", str(rate)]
    command = [sys.executable, "-m", "tests.chaos", *limits, f"127.0.0.1:{PORTS['gateway']}", *shop.users]
    with Load.in_subprocess(command, DEADLINE_S) as load:
        load.full_service(time.monotonic(), RECOVERY_LIMIT_S)
        yield load


def tried(attack: Attack, shop: Shop, load: Load) -> Trial:
    """Perform `attack` and return its result. Raises AssertionError without full service before it."""
    load.full_service(time.monotonic() - FULL_ANSWERS_REQUIRED / RATE, RECOVERY_LIMIT_S)
    before = _resources(shop)
    _reset_peaks(before)
    started = time.monotonic()
    problems = _perform(attack, shop)
    ended = time.monotonic()
    peaks = _peaks(before)
    recovered_s = _recovery_s(load, ended)
    if recovered_s is None:
        problems.append(f"no full service within {RECOVERY_LIMIT_S:.0f} s")
    elif recovered_s > RECOVERY_S:
        problems.append(f"full service after {recovered_s:.1f} s")
    calls = [call for call in load.calls if started <= call.at <= ended]
    whole = sum(_is_whole(call, attack) for call in calls)
    if len(calls) - whole > max(1, math.floor((1 - WHOLE_SHARE) * len(calls))):
        problems.append(
            f"{len(calls) - whole} of {len(calls)} ordinary answers were not whole or not in time"
        )
    problems += _growth(attack, shop, before, peaks)
    return Trial(
        case=attack.name,
        whole=whole,
        peak_rss_mb={name: round(peak) for (name, _), peak in peaks.items()},
        recovered_s=None if recovered_s is None else round(recovered_s, 2),
        problems=problems,
        **Observed.counts(calls, DEADLINE_S),
    )


def _perform(attack: Attack, shop: Shop) -> list[str]:
    """Perform the attack; return what it found that must not be."""
    try:
        asyncio.run(attack.perform(shop))
    except AssertionError as error:
        return [str(error)]
    return []


def _is_whole(call: Call, attack: Attack) -> bool:
    return (
        call.valid
        and call.items == DEFAULT_ITEMS
        and call.took_s <= DEADLINE_S
        and all(fallback in attack.degraded for fallback in call.degraded)
    )


def _recovery_s(load: Load, since: float) -> float | None:
    """Return the seconds from `since` to full service, None if it does not come back."""
    try:
        return load.full_service(since, RECOVERY_LIMIT_S)
    except AssertionError:
        return None


Process = tuple[str, int]
"""A process of the platform: its name and id."""


def _resources(shop: Shop) -> dict[Process, Resources]:
    """Return the resources of all running processes."""
    found = {}
    for name, pid in shop.pids.items():
        with suppress(OSError):
            found[name, pid] = Resources.of(name, pid)
    return found


def _reset_peaks(processes: Iterable[Process]) -> None:
    """Make the kernel forget the peak of each process's resident memory, see proc(5), clear_refs."""
    for _, pid in processes:
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def _peaks(processes: Iterable[Process]) -> dict[Process, float]:
    """Return the highest resident memory in MiB, since `_reset_peaks`, of each process that still runs."""
    peaks = {}
    for name, pid in processes:
        with suppress(OSError, ValueError):  # without memory, it has ended
            peaks[name, pid] = status_number(pid, "VmHWM") / 1024
    return peaks


def _growth(
    attack: Attack, shop: Shop, before: dict[Process, Resources], peaks: dict[Process, float]
) -> list[str]:
    """Return what is wrong with the processes after the attack, once its connections and tasks have ended."""
    problems = [
        f"{name} took {peaks[name, pid] - held.memory_mb:.0f} MB more"
        for (name, pid), held in before.items()
        if peaks.get((name, pid), 0.0) > held.memory_mb + GROWTH.memory_mb
    ]
    deadline = time.monotonic() + SETTLE_LIMIT_S
    while (growing := _growing(shop, before)) and time.monotonic() < deadline:
        time.sleep(0.2)
    running = {(name, pid) for name, pid in shop.pids.items() if Path(f"/proc/{pid}").exists()}
    ended = {name for name, _ in before.keys() - running} - attack.ends
    return problems + growing + [f"{name} ended" for name in sorted(ended)]


def _growing(shop: Shop, before: dict[Process, Resources]) -> list[str]:
    """Return which processes hold more than before."""
    after = _resources(shop)
    return [
        f"{name} grew from {held} to {after[name, pid]}"
        for (name, pid), held in before.items()
        if (name, pid) in after and not after[name, pid].is_within(held, GROWTH)
    ]


def print_trials(trials: Sequence[Trial]) -> None:
    """Print trials as a table."""
    print_table(COLUMNS, [_cells(asdict(trial)) for trial in trials])


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as it is printed: of the processes' memory, only the largest."""
    peaks = row["peak_rss_mb"]
    largest = max(peaks, key=peaks.__getitem__, default=None)
    return row | {
        "degraded": sum(row["degraded"].values()),
        "peak_rss_mb": f"{largest} {peaks[largest]}" if largest else "",
        "problems": "; ".join(row["problems"]),
    }
