"""`python -m ecrs.probe um`: print the health of a service on this machine; exit 0 if SERVING, else 1.

Imports only the standard library, because a container's health check runs every few seconds and should start
in milliseconds.
"""

import http.client
import json
import os
import sys
from dataclasses import dataclass, field

from ecrs.ports import METRICS_OFFSET, PORTS
from ecrs.rpc.own_address import own_address


@dataclass(frozen=True)
class ServiceState:
    """The health of a service.

    `reason` is why it is not SERVING, None if it is. `missing` maps each dependency that it works without to
    the reason.
    """

    reason: str | None
    missing: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.reason:
            return self.reason
        return "SERVING" + "".join(f", without {name}: {why}" for name, why in self.missing.items())


def probe(name: str, address: str = "127.0.0.1") -> ServiceState:
    """Return the health of service `name`; a service that does not answer is not SERVING.

    `address` is the address of this machine that the service listens on.
    """
    port = PORTS[name] + METRICS_OFFSET
    connection = http.client.HTTPConnection(address, port, timeout=2)
    try:
        connection.request("GET", "/health")
        health = json.loads(connection.getresponse().read())
        return ServiceState(health["reason"], health["missing"])
    except (OSError, http.client.HTTPException, ValueError) as error:
        return ServiceState(f"no answer on port {port}: {error}")
    finally:
        connection.close()


def main() -> int:
    """Print the health of the service named on the command line, which listens on ECRS_HOST.

    Returns the exit code.
    """
    state = probe(sys.argv[1], own_address(os.environ.get("ECRS_HOST", "127.0.0.1")))
    print(state)
    return 1 if state.reason else 0


if __name__ == "__main__":
    sys.exit(main())
