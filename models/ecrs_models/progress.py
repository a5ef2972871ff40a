"""Progress display of the offline pipeline: bars in a terminal, otherwise a line every few seconds."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

LINE_EVERY_S = 10.0
"""Interval of the lines if the output is not a terminal. CI systems kill jobs that print nothing for long."""


@dataclass
class Step:
    """One step of a run: `done` of `total` units are finished; `note` is shown next to the count."""

    name: str
    total: int
    publish: Callable[["Step"], None]
    done: int = 0
    note: str = ""
    started: float = field(default_factory=time.monotonic)

    def advance(self, units: int = 1, note: str = "") -> None:
        """Add `units` to the units done."""
        self.update(self.done + units, note)

    def update(self, done: int, note: str = "") -> None:
        """Set the number of units done. An empty `note` keeps the previous one."""
        self.done, self.note = done, note or self.note
        self.publish(self)

    def __str__(self) -> str:
        took_s = time.monotonic() - self.started
        return f"{self.name}: {self.done:,} of {self.total:,}{self.note and f', {self.note}'}, {took_s:.0f} s"


class Progress:
    """The steps of one run.

    Calls `publish` with a step each time it changes; by default nothing is shown. Use `progress()` for an
    instance that is displayed.
    """

    def __init__(self, publish: Callable[[Step], None] = lambda step: None) -> None:
        self._publish = publish
        self.steps: list[Step] = []

    def step(self, name: str, total: int, done: int = 0) -> Step:
        """Begin a step of `total` units, of which `done` are already finished."""
        step = Step(name, total, self._publish, done)
        self.steps.append(step)
        self._publish(step)
        return step


@contextmanager
def progress(console: Console | None = None) -> Iterator[Progress]:
    """Display the steps of a run on `console`, by default standard error, for the duration of the context."""
    console = console or Console(stderr=True, highlight=False)
    with _bars(console) if console.is_terminal else _lines() as run:
        yield run


@contextmanager
def _bars(console: Console) -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description:14}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=console) as bars:
        tasks = {}

        def publish(step: Step) -> None:
            if id(step) not in tasks:
                tasks[id(step)] = bars.add_task(step.name, total=step.total, note="")
            bars.update(tasks[id(step)], completed=step.done, note=step.note)

        yield Progress(publish)


@contextmanager
def _lines() -> Iterator[Progress]:
    """Print a line when a step ends, and every LINE_EVERY_S seconds one for each unfinished step."""
    ended = threading.Event()

    def publish(step: Step) -> None:
        if step.done == step.total:
            _print(step)

    def beat() -> None:
        while not ended.wait(LINE_EVERY_S):
            for step in run.steps:
                if step.done < step.total:
                    _print(step)

    run = Progress(publish)
    thread = threading.Thread(target=beat, name="progress", daemon=True)
    thread.start()
    try:
        yield run
    finally:
        ended.set()
        thread.join()


def _print(step: Step) -> None:
    print(f"  {step}", file=sys.stderr, flush=True)
