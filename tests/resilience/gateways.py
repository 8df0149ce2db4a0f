"""Gateways with bad intentions, made of raw sockets: what no server library would send."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator

from support.raw_gateway import _hear as hear

Script = Callable[[bytes], Iterable[bytes]]


class Drip:
    """Answers each request with the pieces that ``script(request)`` gives, ``pause`` s apart."""

    def __init__(self, script: Script, pause: float = 0.05) -> None:
        self.heard: list[bytes] = []
        self._script = script
        self._pause = pause
        self._closed = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def _serve(self) -> None:
        while not self._closed.is_set():
            try:
                line, _ = self._socket.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._answer, args=(line,), daemon=True))
            self._threads[-1].start()

    def _answer(self, line: socket.socket) -> None:
        with line, contextlib.suppress(OSError):
            request = hear(line)
            self.heard.append(request)
            for piece in self._script(request):
                line.sendall(piece)
                if self._closed.wait(self._pause):
                    return

    def __enter__(self) -> Drip:
        return self

    def __exit__(self, *exc: object) -> None:
        self._closed.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(timeout=5)


def endless(head: bytes, piece: bytes) -> Script:
    """``head``, then ``piece`` for ever."""

    def script(_: bytes) -> Iterator[bytes]:
        yield head
        while True:
            yield piece

    return script
