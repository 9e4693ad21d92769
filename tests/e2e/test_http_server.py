from __future__ import annotations

import socket

from minion_server.http import bind


def test_answers_are_not_held_back() -> None:
    with bind(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
