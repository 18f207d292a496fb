"""Ports for the servers of tests."""

import random
import socket
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """One that nothing listens on, below those that the system hands out by itself.

    A server binds its port seconds after it was chosen, and a Ray that starts meanwhile
    takes a dozen ports of the system's choice.
    """
    first = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32768
    pick = random.SystemRandom()
    while True:
        # Ray's workers take 10002 to 19999 where `ray start` made the cluster.
        port = pick.randrange(min(20000, first - 5000), first)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
