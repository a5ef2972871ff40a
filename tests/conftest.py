import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from ecrs.bundle import Bundle
from tests.small_disk import Disk, small_disks
from tests.tiny import tiny_bundle

# The same examples in every run, so that a change fails only for its own faults. `make fuzz` tries more.
settings.register_profile("ci", derandomize=True, deadline=None)
FUZZ_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "2000"))
settings.register_profile("fuzz", max_examples=FUZZ_EXAMPLES, deadline=None, print_blob=True)
settings.load_profile("ci")


@pytest.fixture(scope="session", autouse=True)
def own_keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keys of this run, so that tests and the programs that they start trust the bundles that tests export.

    If the environment names trusted keys, as in the compose tier, these remain.
    """
    keys = tmp_path_factory.mktemp("keys")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECRS_BUNDLE_SIGNING_KEY", str(keys / "bundle_signing_key"))
        if "ECRS_TRUSTED_BUNDLE_KEYS" not in os.environ:
            patch.setenv("ECRS_TRUSTED_BUNDLE_KEYS", str(keys / "trusted_bundle_keys"))
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of a small shop, trained once per test session."""
    return Bundle.open(tiny_bundle(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A function that mounts small disks."""
    with small_disks(tmp_path) as mount:
        yield mount
