"""`python reach.py ADDRESS:PORT …`: print the addresses that accept a TCP connection from this container."""

import socket
import sys
from concurrent.futures import ThreadPoolExecutor


def accepts(target: str) -> bool:
    """True if a connection is accepted within a second."""
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


with ThreadPoolExecutor(64) as pool:
    targets = sys.argv[1:]
    print(*(target for target, accepted in zip(targets, pool.map(accepts, targets), strict=True) if accepted))
