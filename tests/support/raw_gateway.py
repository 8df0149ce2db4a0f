"""A gateway made of raw bytes, written apart from the sandbox so that it has other habits."""

from __future__ import annotations

import contextlib
import socket
import threading


class RawGateway:
    """Answers each connection with the next of the given byte strings, then hangs up.

    b"" closes without a reply.
    """

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.heard: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._socket.accept()
            except OSError:
                return
            with line, contextlib.suppress(OSError):  # a client may hang up in the middle
                self.heard.append(_hear(line))
                if self.answers:
                    line.sendall(self.answers.pop(0))

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread; nobody listens any more
        self._socket.close()
        self._thread.join(timeout=5)


def _hear(line: socket.socket) -> bytes:
    heard = b""
    while b"\r\n\r\n" not in heard:
        chunk = line.recv(65536)
        heard += chunk
        if not chunk or heard[:1] == b"\x16":  # the end, or a TLS client that we do not understand
            return heard
    head, _, body = heard.partition(b"\r\n\r\n")
    lengths = [
        int(row.split(b":")[1])
        for row in head.split(b"\r\n")
        if row.lower().startswith(b"content-length")
    ]
    while lengths and len(body) < lengths[0]:
        chunk = line.recv(65536)
        if not chunk:
            break
        body += chunk
    return head + b"\r\n\r\n" + body


def http(status: str, body: bytes = b"", **headers: str) -> bytes:
    """An HTTP reply; underscores in header names are dashes."""
    head = {"content-length": str(len(body)), "connection": "close", **headers}
    rows = [f"HTTP/1.1 {status}", *(f"{n.replace('_', '-')}: {v}" for n, v in head.items())]
    return "\r\n".join(rows).encode() + b"\r\n\r\n" + body
