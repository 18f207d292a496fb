import socket

import pytest

from cluster.connect import connected
from cluster.errors import CannotConnect


def test_an_address_where_nothing_listens_is_refused_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(CannotConnect, match=f"{address}': Connection refused; give HOST:PORT"),
            connected(address),
        ):
            pass
