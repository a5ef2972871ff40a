"""Where the CPU of an answer goes: by process, and in it by which of ECRS' functions is at work.

python -m tests.bench.profile [BUNDLE] [--clients N] [--seconds S] [--out FILE]: starts the embedded platform,
asks the gateway, samples every service with py-spy, prints the table.

A process's CPU is what the kernel counted while nobody watched. A sample of it counts for the deepest
function of ECRS on the stack, with all that it calls: `recall.proposals.Proposer.merged` is that function
and the numpy in it. Where there is none, it counts for the event loop, or for the thread that it is of.
Threads that wait count for nothing.
"""

import argparse
import asyncio
import math
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from ecrs.bundle import Bundle
from tests.bench.load import CLOSED, Generator, Order
from tests.bench.measure import some_users
from tests.bench.processes import ROOT, cpu_s
from tests.bench.sites import Site, embedded

RATE = 100
"""Samples a second."""
SHOWN = 0.03
"""The least share of a process that has a row of its own."""
OTHER = "other"

ROOTS = ("ecrs/serve.py", "ecrs/rpc/server.py")
"""On every stack of a service."""
WAITING = ("selectors.py", "threading.py", "socketserver.py", "concurrent/futures/thread.py")
"""Where a thread waits that does nothing, and where gRPC's own waits in its core."""

_FRAME = re.compile(r"(?P<function>.+) \((?P<file>[^()]*?)(?::\d+)?\)")


def cost_of(stack: str) -> str | None:
    """Whose a sample is: `module.function` of ECRS, else what runs it; None if it waits."""
    frames = [match for frame in stack.split(";") if (match := _FRAME.fullmatch(frame))]
    if not frames or frames[-1]["file"].endswith(WAITING):
        return None
    for frame in reversed(frames):
        _, inside, module = frame["file"].rpartition("ecrs/")
        if inside and not frame["file"].endswith(ROOTS):
            function = frame["function"].partition(".<locals>")[0]  # whose own a comprehension is
            return f"`{module.removesuffix('.py').replace('/', '.')}.{function}`"
    if any("asyncio/" in frame["file"] for frame in frames):
        return "event loop, and gRPC in it"
    return f"`{Path(frames[-1]['file']).stem}`"


def costs(lines: Iterable[str]) -> Counter[str]:
    """Samples by whose they are, of py-spy's raw lines: `frame;frame;… count`."""
    found: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        if cost := cost_of(stack):
            found[cost] += int(count)
    return found


def table(name: str, cpu_ms: float, found: Mapping[str, int]) -> Iterator[str]:
    """Rows of one process, the dearest first; what is below SHOWN is one row."""
    yield f"| **{name}** | **{cpu_ms:.2f}** | |"
    if not (total := sum(found.values())):
        return
    shares = {cost: count / total for cost, count in found.items()}
    shown = {cost: share for cost, share in shares.items() if share >= SHOWN}
    for cost, share in sorted(shown.items(), key=lambda pair: -pair[1]):
        yield f"| {cost} | {share * cpu_ms:.2f} | {100 * share:.0f} % |"
    rest = 1 - sum(shown.values())
    yield f"| {OTHER} | {rest * cpu_ms:.2f} | {100 * rest:.0f} % |"


def profile(site: Site, clients: int, seconds: float) -> Iterator[str]:
    """The table's lines."""
    order = Order(site.targets["gateway"], CLOSED, seconds, clients=clients)
    with Generator(some_users(site.bundle)) as generator:
        generator.run(order)  # warm
        before = cpu_s(site.parts)
        calls = len(generator.run(order).took_s)
        cpu_ms = {part: (used - before[part]) / calls * 1000 for part, used in cpu_s(site.parts).items()}
        services = {part: pid for part, pid in site.parts.items() if part not in site.stores}
        samples = watched(services, seconds, lambda: generator.run(order))
    yield f"Closed loop, clients: {clients}; {calls / seconds:.0f} calls a second.\n"
    yield "| | CPU a call, ms | share |"
    yield "|---|---|---|"
    yield f"| **all** | **{sum(cpu_ms.values()):.2f}** | |"
    for part in sorted(cpu_ms, key=lambda part: -cpu_ms[part]):
        yield from table(part, cpu_ms[part], costs(samples.get(part, ())))


def watched(pids: Mapping[str, int], seconds: float, work: Callable[[], object]) -> dict[str, list[str]]:
    """py-spy's raw lines of each process and its children while they `work`."""
    spy = [str(Path(sys.executable).parent / "py-spy"), "record", "--nonblocking", "--subprocesses"]
    how = ["--format", "raw", "--function", "--rate", str(RATE), "--duration", str(math.ceil(seconds))]
    with tempfile.TemporaryDirectory() as directory:
        files = {name: Path(directory) / name for name in pids}
        spies = [
            subprocess.Popen(
                [*spy, *how, "--pid", str(pid), "--output", str(files[name])],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for name, pid in pids.items()
        ]
        work()
        for one in spies:
            if one.wait():
                raise RuntimeError(
                    "py-spy may not look: run as the services' user, with ptrace allowed, or root"
                )
        return {name: file.read_text().splitlines() for name, file in files.items()}


async def run(bundle: Bundle, clients: int, seconds: float) -> list[str]:
    async with embedded(bundle) as site:
        return await asyncio.to_thread(lambda: list(profile(site, clients, seconds)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.profile")
    parser.add_argument("bundle", nargs="?", type=Path, default=ROOT / "artifacts" / "bundles" / "current")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts" / "bench" / "profile.md")
    arguments = parser.parse_args()
    lines = asyncio.run(run(Bundle.open(arguments.bundle), arguments.clients, arguments.seconds))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    print(arguments.out)


if __name__ == "__main__":
    main()
