"""Starts the platform that is attacked, and reports on all attacks of the run."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ecrs.bundle import Bundle
from tests.attack.attack import Attack
from tests.attack.shop import Shop
from tests.attack.trial import Trial, ordinary_callers, tried
from tests.chaos import Load


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bundle", type=Path, help="bundle to serve instead of the tiny one")
    parser.addoption("--minutes", type=float, default=30.0, help="duration of the soak")
    parser.addoption("--rate", type=float, default=10.0, help="ordinary calls per second of the soak")
    parser.addoption("--seed", type=int, help="order of the soak's attacks and changes")


@pytest.fixture(scope="session")
def bundle(request: pytest.FixtureRequest) -> Bundle:
    path = request.config.getoption("--bundle")
    return Bundle.open(path.resolve()) if path else request.getfixturevalue("tiny")


class AttackedShop:
    """A shop with ordinary callers; a new one after each attack that it did not withstand."""

    def __init__(self, bundle: Bundle, directory: Path) -> None:
        self._bundle = bundle
        self._directory = directory
        self._started = 0
        self._stack = ExitStack()
        self._running: tuple[Shop, Load] | None = None

    @classmethod
    @contextmanager
    def closing(cls, bundle: Bundle, directory: Path) -> Iterator["AttackedShop"]:
        shop = cls(bundle, directory)
        try:
            yield shop
        finally:
            shop.stop()

    @property
    def has_log_disk(self) -> bool:
        return self.running()[0].log_disk is not None

    def running(self) -> tuple[Shop, Load]:
        """Return the shop and its callers, started if necessary."""
        if self._running is None:
            self._started += 1
            directory = self._directory / str(self._started)
            shop = self._stack.enter_context(Shop.running(self._bundle, directory))
            self._running = shop, self._stack.enter_context(ordinary_callers(shop))
        return self._running

    def stop(self) -> None:
        self._running = None
        self._stack.close()

    def withstand(self, attack: Attack) -> Trial:
        """Perform an attack and return its result."""
        trial = None
        try:
            trial = tried(attack, *self.running())
        finally:
            if trial is None or trial.problems:
                self.stop()
        return trial
