import pytest

from ecrs.bundle import Bundle
from tests.tiny import tiny_bundle


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of a small shop, trained once for the whole run."""
    return Bundle.open(tiny_bundle(tmp_path_factory.mktemp("tiny")))
