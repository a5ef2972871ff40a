"""`python -m ecrs.serve um`: run one service until SIGTERM, with its settings from the environment."""

import asyncio
import importlib
import sys
from contextlib import AsyncExitStack

import structlog

from ecrs.bundle import BundleError
from ecrs.ports import PORTS
from ecrs.rpc import log, server, tracing
from ecrs.rpc.log_file import log_output
from ecrs.rpc.settings import LogSettings


async def serve(name: str) -> None:
    """Build service `name` and run it.

    Only the package of that service is imported, so that each service needs only its own libraries. A missing
    or damaged bundle ends the program with exit code 3 and the reason in the log.
    """
    log.configure(name, log_output(LogSettings()))
    app = importlib.import_module(f"ecrs.{name}.app")
    settings = app.SETTINGS()
    async with AsyncExitStack() as stack:
        stack.enter_context(tracing.exporting_spans(name))
        try:
            service = await app.build(settings, stack)
        except BundleError as error:
            structlog.get_logger().error("cannot start", reason=str(error))
            raise SystemExit(3) from error
        await server.run(service, settings)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in PORTS:
        raise SystemExit(f"usage: python -m ecrs.serve {{{'|'.join(PORTS)}}}")
    asyncio.run(serve(sys.argv[1]))
