"""`python link.py down` disconnects this container from its networks, `python link.py up` connects it again.

Its addresses stay the same. `docker network connect` would give it new ones, on which it does not listen.
"""

import fcntl
import socket
import struct
import sys

GET_FLAGS, SET_FLAGS, IS_UP = 0x8913, 0x8914, 0x1

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    for _, name in socket.if_nameindex():
        if name == "lo":
            continue
        request = struct.pack("16sH14x", name.encode(), 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(control, GET_FLAGS, request), 16)
        flags = flags | IS_UP if sys.argv[1] == "up" else flags & ~IS_UP
        fcntl.ioctl(control, SET_FLAGS, struct.pack("16sH14x", name.encode(), flags))
