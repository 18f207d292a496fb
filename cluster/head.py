"""The head node of the cluster that this process is connected to."""

import socket

import ray

from cluster.errors import CannotConnect

HEAD = "node:__internal_head__"  # a resource that Ray gives the head node alone


def head_address() -> str:
    """The address of the head node's host, as the cluster knows it. Raises CannotConnect."""
    for node in ray.nodes():
        if node["Alive"] and HEAD in node["Resources"]:
            return str(node["NodeManagerAddress"])
    raise CannotConnect("the cluster names no head node: where Ray Serve answers is not known")


def is_here(address: str) -> bool:
    """Whether an IP address is one of this machine: only then can it be listened on."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
