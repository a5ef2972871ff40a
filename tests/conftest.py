import pytest
from hypothesis import settings

from ecrs.bundle import Bundle
from tests.tiny import tiny_bundle

# The same examples each time: no change fails by another's bad luck. `make fuzz` looks for more.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("fuzz", max_examples=2_000, deadline=None, print_blob=True)
settings.load_profile("ci")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of a small shop, trained once for the whole run."""
    return Bundle.open(tiny_bundle(tmp_path_factory.mktemp("tiny")))
