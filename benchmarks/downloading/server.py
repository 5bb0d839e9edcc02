"""A web server on loopback that gives files from memory: /<anything>/<file>, on many addresses at once.

    python benchmarks/downloading/server.py FOLDER HOSTS

It listens on 127.0.0.1, 127.0.0.2 and so on, at one port, which it prints. Each address is a host of its own to those
who ask, as on the web. GET /first on any of them gives the time of the first request since the last such question.
"""

import contextlib
import socket
import sys
import threading
import time
from pathlib import Path

PENDING = 1024  # connections that wait to be accepted


class Server:
    """One thread for each connection, which sends without copying; connections are kept unless a client closes them."""

    def __init__(self, folder: Path) -> None:
        self._answers = {path.name.encode(): answer(path.read_bytes()) for path in folder.iterdir()}
        self._first = 0.0

    def accept(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while request := connection.recv(65536):  # a GET is one packet on loopback
                path = request.split(b" ", 2)[1]
                if path == b"/first":
                    connection.sendall(answer(repr(self._first).encode()))
                    self._first = 0.0
                    continue
                self._first = self._first or time.time()
                connection.sendall(self._answers[path.rpartition(b"/")[2]])
                if b"\r\nConnection: close\r\n" in request:
                    return


def answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def main(folder: Path, hosts: int) -> None:
    server = Server(folder)
    listeners = [socket.create_server(("127.0.0.1", 0), backlog=PENDING)]
    port = listeners[0].getsockname()[1]
    listeners += [socket.create_server((f"127.0.0.{i}", port), backlog=PENDING) for i in range(2, hosts + 1)]
    for listener in listeners:
        threading.Thread(target=server.accept, args=(listener,), daemon=True).start()
    print(port, flush=True)
    sys.stdin.read()  # until whoever started it goes away


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
