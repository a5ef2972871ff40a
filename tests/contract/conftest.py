"""The five services on real servers, as a client of the original system would reach them."""

from collections.abc import Iterator

import pytest

from ecrs.bundle import Bundle
from tests.platform import Platform


@pytest.fixture(scope="session")
def platform(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform.running(tiny, tmp_path_factory.mktemp("items")) as platform:
        yield platform
