"""A TCP proxy in front of PostgreSQL that cuts the connection at a chosen moment of a commit, once."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Literal
from urllib.parse import urlsplit

Moment = Literal["never", "before_commit_arrives", "after_commit_was_answered", "while_commit_is_stuck"]
COMMIT_SENT, COMMIT_ANSWERED = b"COMMIT\0", b"C\0\0\0\x0bCOMMIT\0"


class CuttingProxy:
    """Cuts the next commit at `moment`. With `refuses_afterwards` nobody gets through any more after the cut."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self.moment: Moment = "never"
        self.refuses_afterwards = False
        self.cuts = 0
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        port = self._listener.getsockname()[1]
        return self._parts._replace(netloc=f"{self._parts.username}@127.0.0.1:{port}").geturl()

    def close(self) -> None:
        shut(self._listener)
        for each in self._open:
            shut(each)
            each.close()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(client)
            server = self._connect()
            if server is None:
                shut(client)
                continue
            self._open.append(server)
            threading.Thread(target=self._to_server, args=(client, server), daemon=True).start()
            threading.Thread(target=self._to_client, args=(client, server), daemon=True).start()

    def _connect(self) -> socket.socket | None:
        if self.cuts and self.refuses_afterwards:
            return None
        try:
            return socket.create_connection((self._parts.hostname or "", self._parts.port or 5432))
        except OSError:
            return None  # the server is away

    def _to_server(self, client: socket.socket, server: socket.socket) -> None:
        for data in chunks(client):
            if COMMIT_SENT in data and self.moment == "before_commit_arrives":
                self._cut(client, server)
                return
            if COMMIT_SENT in data and self.moment == "while_commit_is_stuck":
                self._cut(client)  # the server knows nothing of it and holds the transaction open
                return
            send(server, data)
        shut(server)

    def _to_client(self, client: socket.socket, server: socket.socket) -> None:
        for data in chunks(server):
            if COMMIT_ANSWERED in data and self.moment == "after_commit_was_answered":
                self._cut(client, server)
                return
            send(client, data)
        shut(client)

    def _cut(self, *sockets: socket.socket) -> None:
        self.moment = "never"
        self.cuts += 1
        for each in sockets:
            shut(each)


def chunks(source: socket.socket) -> Iterator[bytes]:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            yield data


def send(target: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        target.sendall(data)


def shut(target: socket.socket) -> None:
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
