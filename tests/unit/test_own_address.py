"""A server listens on the address of this machine among those of a name."""

import socket
from typing import Any

import pytest

from ecrs.rpc.own_address import own_address
from ecrs.rpc.settings import ServerSettings

ELSEWHERE = "192.0.2.77"
"""An address for documentation, which no machine has."""


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses of the name `replicas`; empty at first."""
    found: list[str] = []

    def resolve(host: str, *_: Any, **__: Any) -> list[Any]:
        assert host == "replicas"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return found


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", ELSEWHERE, "::1"])  # noqa: S104
def test_an_address_stays_as_it_is(address: str) -> None:
    assert own_address(address) == address


def test_the_address_of_this_replica_is_chosen(addresses: list[str]) -> None:
    addresses.extend([ELSEWHERE, "127.0.0.1"])
    assert own_address("replicas") == "127.0.0.1"
    assert ServerSettings(host="replicas").host == "127.0.0.1"


def test_a_name_of_other_machines_is_refused(addresses: list[str]) -> None:
    addresses.append(ELSEWHERE)
    with pytest.raises(ValueError, match="'replicas' is not an address of this machine"):
        own_address("replicas")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be resolved"):
        own_address("nowhere.invalid")
