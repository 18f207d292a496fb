"""Where a server listens: on this machine, or on the head node of a cluster elsewhere."""

from dataclasses import dataclass

from pipelines.serve.config import ServeConfig
from pipelines.serve.door.access import is_loopback

ALL = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """`note`: what to know of the URL; mostly empty."""

    url: str
    note: str = ""


def address_of(config: ServeConfig, head: str | None) -> Address:
    """`head`: the address of the host with Ray Serve's proxy; None: it is this machine."""
    host, note = config.host.strip("[]"), ""
    if head is not None and is_loopback(host):
        note = f" on the cluster's head node {head}, from there only (see --host),"
    elif head is not None and host in ALL:
        host = head
    host = f"[{host}]" if ":" in host else host
    return Address(url=f"http://{host}:{config.port}", note=note)
