"""The address that a server listens on, found by a name that its replicas share.

A container is on several networks: that of its callers and those of the servers that it calls. A server that
listens on the address of the first one only cannot be reached from the others.
"""

import ipaddress
import socket
from contextlib import suppress


def own_address(host: str) -> str:
    """Return the IPv4 address of this machine among those of the name `host`; an IP address stays as it is.

    Raises ValueError if the name is unknown or none of its addresses is this machine's.
    """
    with suppress(ValueError):
        return str(ipaddress.ip_address(host))
    try:
        found = socket.getaddrinfo(host, 0, family=socket.AF_INET, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ValueError(f"{host!r} is no address and cannot be resolved: {error.strerror}") from error
    for *_, address in found:
        with suppress(OSError), socket.socket() as probe:
            probe.bind(address)  # fails for an address of another machine
            return str(address[0])
    raise ValueError(f"{host!r} is not an address of this machine")
