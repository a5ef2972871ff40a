from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from ecrs.bundle import Bundle
from tests.small_disk import Disk, small_disks
from tests.tiny import tiny_bundle

# The same examples in every run, so that a change fails only for its own faults. `make fuzz` tries more.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("fuzz", max_examples=2_000, deadline=None, print_blob=True)
settings.load_profile("ci")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of a small shop, trained once per test session."""
    return Bundle.open(tiny_bundle(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A function that mounts small disks."""
    with small_disks(tmp_path) as mount:
        yield mount
