"""With compose.tls.yaml the stores accept encrypted connections only, and everything works over them."""

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.compose.conftest import ROOT, Stack, run, wait_until

STORES = {"redis": 6379, "milvus": 19530}
CALLERS = ("um", "cm", "recall", "gateway")


@pytest.fixture(scope="module")
def encrypted(stack: Stack) -> Iterator[Path]:
    """Encrypt the connections to the stores; yields the CA of their certificates."""
    run("images/certificates", cwd=ROOT, env=os.environ | {"ECRS_SECRETS": str(stack.secrets)})
    start = partial(stack.compose, "up", "--detach", "--no-build", "--no-deps", "--wait", limit_s=180)
    with stack.overlaid("compose.tls.yaml"):
        start(*STORES, *CALLERS)
        yield stack.secrets / "stores_ca"
    start(*STORES, *CALLERS)


def handshake(stack: Stack, store: str, ca: Path, name: str) -> None:
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((stack.address(store), STORES[store]), timeout=5) as connection:
        context.wrap_socket(connection, server_hostname=name).close()


@pytest.mark.parametrize("store", STORES)
def test_a_store_has_a_certificate_for_its_name(stack: Stack, encrypted: Path, store: str) -> None:
    handshake(stack, store, encrypted, store)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(stack, store, encrypted, "other")


@pytest.mark.parametrize("store", STORES)
def test_a_store_answers_nothing_in_plain_text(stack: Stack, encrypted: Path, store: str) -> None:
    with socket.create_connection((stack.address(store), STORES[store]), timeout=5) as connection:
        connection.sendall(b"PING\r\n" * 3)
        answer = b""
        with suppress(ConnectionResetError):
            answer = connection.recv(100)
    assert b"PONG" not in answer
    assert b"NOAUTH" not in answer


def test_the_platform_answers_over_encrypted_connections(
    stack: Stack, encrypted: Path, stored: dict[str, Any]
) -> None:
    def full() -> bool:
        answer = stack.client("as", stored["user"], "--full")
        return "code: 200" in answer and "degraded" not in answer

    wait_until("a full answer", full, 60)


@pytest.mark.parametrize("seed", ["seed-redis", "milvus-users", "seed-milvus"])
def test_the_stores_are_seeded_over_encrypted_connections(stack: Stack, encrypted: Path, seed: str) -> None:
    said = stack.compose("run", "--rm", "-T", "--no-deps", seed, limit_s=120)
    assert "is already loaded" in said or "none created or changed" in said
