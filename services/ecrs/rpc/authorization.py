"""Authorization of the methods that change something: the caller must send the write token."""

import secrets
from collections.abc import Collection
from typing import Any

from ecrs.rpc.errors import Forbidden
from ecrs.rpc.interceptors import Context, Handler, Interceptor
from ecrs.rpc.parsing import Deserializer
from ecrs.rpc.tracing import Metadata

METADATA_KEY = "authorization"


def write_metadata(token: str | None) -> Metadata:
    """Return the metadata of a call that changes something; none without a token."""
    return ((METADATA_KEY, f"Bearer {token}"),) if token else ()


class WriteAuthorization(Interceptor):
    """Refuses calls of `methods`, by their full names, that do not have the token.

    Without a token of its own, the service refuses all of them.
    """

    def __init__(self, service: str, methods: Collection[str], token: str | None) -> None:
        super().__init__(service)
        self._methods = frozenset(methods)
        self._token = token

    def wrap(self, method: str, handler: Handler, parse: Deserializer) -> tuple[Handler, Deserializer]:
        """Return `handler` behind the check of the token, or as it is if the method changes nothing."""
        if method not in self._methods:
            return handler, parse

        async def authorized(request: Any, context: Context) -> Any:
            self._check(dict(context.invocation_metadata() or ()).get(METADATA_KEY))
            return await handler(request, context)

        return authorized, parse

    def _check(self, sent: str | bytes | None) -> None:
        if not self._token:
            raise Forbidden(
                f"{self._service} has no write token, so it changes nothing: set ECRS_WRITE_TOKEN or "
                "/run/secrets/ecrs_write_token for it and its callers"
            )
        ((_, expected),) = write_metadata(self._token)
        if sent is None:
            raise Forbidden(f"the write token is missing: send it as metadata `{METADATA_KEY}: Bearer TOKEN`")
        sent = sent.encode() if isinstance(sent, str) else sent
        if not secrets.compare_digest(sent, expected.encode()):
            raise Forbidden("the write token is not the one of this service")
