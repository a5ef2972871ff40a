"""`python -m ecrs.probe um`: is the service on this machine SERVING? Exit 0, or 1; prints what it says.

Standard library alone: a health check runs every few seconds and should cost milliseconds.
"""

import http.client
import json
import sys
from dataclasses import dataclass, field

from ecrs.ports import METRICS_OFFSET, PORTS


@dataclass(frozen=True)
class ServiceState:
    """Of a service: why it is not SERVING, or None; what it does without, and why."""

    reason: str | None
    missing: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.reason:
            return self.reason
        return "SERVING" + "".join(f", without {name}: {why}" for name, why in self.missing.items())


def probe(name: str) -> ServiceState:
    """Of service `name` on this machine."""
    port = PORTS[name] + METRICS_OFFSET
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health")
        said = json.loads(connection.getresponse().read())
        return ServiceState(said["reason"], said["missing"])
    except (OSError, http.client.HTTPException, ValueError) as error:
        return ServiceState(f"no answer on port {port}: {error}")
    finally:
        connection.close()


def main() -> int:
    found = probe(sys.argv[1])
    print(found)
    return 1 if found.reason else 0


if __name__ == "__main__":
    sys.exit(main())
