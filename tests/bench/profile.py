"""Profiles the CPU time of a request: by process, and within a process by function of ECRS.

python -m tests.bench.profile [BUNDLE] [--clients N] [--seconds S] [--out FILE]: starts the embedded platform,
calls the gateway, samples every service with py-spy and prints a table.

The CPU time of a process is the kernel's count from a run without the profiler. A sample counts for the
deepest function of ECRS on the stack, including everything that it calls:
`recall.blending.CandidateGenerator.blend` means that function and the numpy code that it calls. A sample
without a function of ECRS counts for the event loop, or else for the innermost module on its stack.
Waiting threads do not count.
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
from tests.bench.load import CLOSED, Generator, LoadPlan
from tests.bench.measure import some_users
from tests.bench.processes import ROOT, cpu_s
from tests.bench.sites import Site, embedded

RATE = 100
"""Samples per second."""
MIN_SHOWN_SHARE = 0.03
"""Functions with a smaller share of their process are summed up in one row."""
OTHER = "other"

ROOTS = ("ecrs/serve.py", "ecrs/rpc/server.py")
"""Files that are on every stack of a service."""
WAITING = ("selectors.py", "threading.py", "socketserver.py", "concurrent/futures/thread.py")
"""Files in which idle threads wait, those of gRPC's core included."""

_FRAME = re.compile(r"(?P<function>.+) \((?P<file>[^()]*?)(?::\d+)?\)")


def cost_of(stack: str) -> str | None:
    """Return what a sample counts for: `module.function` of ECRS, else what runs it; None if it waits."""
    frames = [match for frame in stack.split(";") if (match := _FRAME.fullmatch(frame))]
    if not frames or frames[-1]["file"].endswith(WAITING):
        return None
    for frame in reversed(frames):
        _, inside, module = frame["file"].rpartition("ecrs/")
        if inside and not frame["file"].endswith(ROOTS):
            function = frame["function"].partition(".<locals>")[0]  # a comprehension counts for its function
            return f"`{module.removesuffix('.py').replace('/', '.')}.{function}`"
    if any("asyncio/" in frame["file"] for frame in frames):
        return "event loop, and gRPC in it"
    return f"`{Path(frames[-1]['file']).stem}`"


def costs(lines: Iterable[str]) -> Counter[str]:
    """Sum up samples as `cost_of` attributes them. `lines` are py-spy's raw output: `frame;frame;… count`."""
    samples: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        if cost := cost_of(stack):
            samples[cost] += int(count)
    return samples


def table(name: str, cpu_ms: float, samples: Mapping[str, int]) -> Iterator[str]:
    """Yield the rows of one process, most expensive first; shares below MIN_SHOWN_SHARE are one row."""
    yield f"| **{name}** | **{cpu_ms:.2f}** | |"
    if not (total := sum(samples.values())):
        return
    shares = {cost: count / total for cost, count in samples.items()}
    shown = {cost: share for cost, share in shares.items() if share >= MIN_SHOWN_SHARE}
    for cost, share in sorted(shown.items(), key=lambda pair: -pair[1]):
        yield f"| {cost} | {share * cpu_ms:.2f} | {100 * share:.0f} % |"
    rest = 1 - sum(shown.values())
    yield f"| {OTHER} | {rest * cpu_ms:.2f} | {100 * rest:.0f} % |"


def profile(site: Site, clients: int, seconds: float) -> Iterator[str]:
    """Yield the lines of the report."""
    plan = LoadPlan(site.targets["gateway"], CLOSED, seconds, clients=clients)
    with Generator(some_users(site.bundle)) as generator:
        generator.run(plan)  # warm-up
        before = cpu_s(site.parts)
        calls = len(generator.run(plan).took_s)
        cpu_ms = {part: (used - before[part]) / calls * 1000 for part, used in cpu_s(site.parts).items()}
        services = {part: pid for part, pid in site.parts.items() if part not in site.stores}
        samples = sampled(services, seconds, lambda: generator.run(plan))
    yield f"Closed loop, clients: {clients}; {calls / seconds:.0f} calls per second.\n"
    yield "| | CPU per call, ms | share |"
    yield "|---|---|---|"
    yield f"| **all** | **{sum(cpu_ms.values()):.2f}** | |"
    for part in sorted(cpu_ms, key=lambda part: -cpu_ms[part]):
        yield from table(part, cpu_ms[part], costs(samples.get(part, ())))


def sampled(pids: Mapping[str, int], seconds: float, work: Callable[[], object]) -> dict[str, list[str]]:
    """Run `work` while py-spy samples each process and its children; return its raw lines by process."""
    spy = [str(Path(sys.executable).parent / "py-spy"), "record", "--nonblocking", "--subprocesses"]
    options = ["--format", "raw", "--function", "--rate", str(RATE), "--duration", str(math.ceil(seconds))]
    with tempfile.TemporaryDirectory() as directory:
        files = {name: Path(directory) / name for name in pids}
        spies = [
            subprocess.Popen(
                [*spy, *options, "--pid", str(pid), "--output", str(files[name])],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for name, pid in pids.items()
        ]
        work()
        for process in spies:
            if process.wait():
                raise RuntimeError(
                    "py-spy failed: run it as the services' user with ptrace allowed, or as root"
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
