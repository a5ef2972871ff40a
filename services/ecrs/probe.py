"""`python -m ecrs.probe um`: is the service on this machine SERVING? Exit 0, or 1 with the reason.

Standard library alone: a health check runs every few seconds and should cost milliseconds.
"""

import http.client
import json
import sys

from ecrs.kit.ports import METRICS_OFFSET, PORTS


def reason(name: str) -> str | None:
    """Why service `name` on this machine is not SERVING; None when it is."""
    port = PORTS[name] + METRICS_OFFSET
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health")
        reply = connection.getresponse()
        return None if reply.status == 200 else json.loads(reply.read())["reason"]
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"no answer on port {port}: {error}"
    finally:
        connection.close()


def main() -> int:
    why = reason(sys.argv[1])
    print(why or "SERVING")
    return 1 if why else 0


if __name__ == "__main__":
    sys.exit(main())
