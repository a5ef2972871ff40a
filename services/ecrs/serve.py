"""Serve one service: settings from the environment, until SIGTERM."""

import importlib
from contextlib import AsyncExitStack

import structlog

from ecrs.bundle import BundleError
from ecrs.kit import log, server, tracing


async def serve(name: str) -> None:
    """Build service `name` and run it.

    Imports that service's package alone, so each needs only its own libraries. A bundle that is
    missing or damaged ends the program with its reason.
    """
    log.configure(name)
    app = importlib.import_module(f"ecrs.{name}.app")
    settings = app.Settings()
    async with AsyncExitStack() as stack:
        stack.enter_context(tracing.traced(name))
        try:
            service = await app.build(settings, stack)
        except BundleError as error:
            structlog.get_logger().error("cannot start", reason=str(error))
            raise SystemExit(3) from error
        await server.run(service, settings)
