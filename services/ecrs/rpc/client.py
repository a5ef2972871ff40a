"""Calls to other services: one channel per target, a deadline on every call, failures raised as faults."""

import json
from typing import Any, Protocol, TypeVar

import grpc
from grpc.aio import AioRpcError, UnaryUnaryMultiCallable

from ecrs.rpc import tracing
from ecrs.rpc.errors import (
    BadRequest,
    DeadlineExceeded,
    Fault,
    Forbidden,
    MalformedData,
    NotFound,
    Unavailable,
)
from ecrs.rpc.interceptors import SUCCESS
from ecrs.rpc.tracing import Metadata

# Not methodConfig.timeout: in Python it fires about a second early (grpc/grpc#34547).
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.01s",
                "maxBackoff": "0.1s",
                "backoffMultiplier": 2,
                # A stopping server ends calls that it accepted but never started with CANCELLED
                # (grpc/grpc#41785). A call that its own caller cancels is not retried.
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
}

Request = TypeVar("Request")
Reply = TypeVar("Reply")


class ReplyWithError(Protocol):
    """A reply message of one of the platform's services."""

    @property
    def error(self) -> Any:
        """The message `error {code, text}`; code 200, or 0 if unset, means success."""


ErrorReply = TypeVar("ErrorReply", bound=ReplyWithError)

OPTIONS = [
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.enable_retries", 1),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Reconnect to a restarted service within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Resolve the name again soon, in case the service moved. The default is 30 s, during which every replica
    # may have moved.
    ("grpc.dns_min_time_between_resolutions_ms", 500),
]
"""Options of a channel; a `dns:///` target balances calls over all addresses of the name."""

_FAULTS: dict[int, type[Fault]] = {
    kind.code: kind
    for kind in (BadRequest, Forbidden, NotFound, MalformedData, Unavailable, DeadlineExceeded)
}


def open_channel(target: str) -> grpc.aio.Channel:
    """Return a channel to `target`, to be opened once and kept; it is an async context manager."""
    return grpc.aio.insecure_channel(target, options=OPTIONS)


async def call(
    peer: str,
    method: "UnaryUnaryMultiCallable[Request, ErrorReply]",
    request: Request,
    timeout_s: float,
    metadata: Metadata = (),
) -> ErrorReply:
    """Call `method` of the service `peer`, with `metadata`, and return its reply.

    Raises DeadlineExceeded past the deadline, Unavailable if the call failed, MalformedData if the reply
    cannot be parsed, and the fault in the reply's `error` field, with its code and text, if it is set.
    """
    reply = await send(peer, method, request, timeout_s, metadata)
    if reply.error.code not in (0, SUCCESS):
        raise _FAULTS.get(reply.error.code, Fault)(reply.error.text, reply.error.code)
    return reply


async def send(
    peer: str,
    method: "UnaryUnaryMultiCallable[Request, Reply]",
    request: Request,
    timeout_s: float,
    metadata: Metadata = (),
) -> Reply:
    """Call `method` of `peer`, whose replies have no `error` field, with `metadata`, and return its reply.

    Raises the same faults as `call`, except those of the `error` field.
    """
    try:
        metadata = (*tracing.metadata(), *metadata)
        reply = await method(request, timeout=timeout_s, metadata=metadata or None)
    except AioRpcError as error:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise DeadlineExceeded(f"{peer} did not answer within {timeout_s * 1000:.0f} ms") from error
        raise Unavailable(f"{peer} is unavailable ({error.code().name})") from error
    if reply is None:  # grpc.aio logs the parser's exception and returns None
        raise MalformedData(f"the reply of {peer} cannot be parsed")
    return reply
