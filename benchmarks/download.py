"""Saving a 200 MB video from loopback, beside curl: speed, memory, and four at once.

    python benchmarks/download.py [--size MB] [--rounds N]

How to read it: each round fetches the same file once with curl and once with
``kling_integrations.core.storage.download.save``, in turn, each into a new file on the same disk,
so that a busy moment of the machine hits both. ``MB/s`` is the median over the rounds; ``ratio``
is ours over curl's and must reach 0.8. Ours does more: it hashes (SHA-256, some 0.8 ms a megabyte),
and a file of at most 64 MiB, as videos are, is on the disk (fsync) when it returns: see
``--size 60``. ``curl + sha256sum + sync`` is that work by tools. Four at once fill two cores, so
there the hash is paid for in time: ``ours without hash`` is what it would be without it.
Starting either program is not counted for ours and is (some 10 ms) for curl; ``as a program``
counts the start of Python, too. ``peak`` is what the process's resident memory grows by.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

from kling_integrations.core.storage import partial_file
from kling_integrations.core.storage.download import save

MB = 10**6


def serve(path: str) -> None:
    """A store of one file: sendfile, so that it is the client that is measured."""
    size = os.path.getsize(path)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)

    def answer(connection: socket.socket) -> None:
        with connection, open(path, "rb") as file:
            heard = b""
            while b"\r\n\r\n" not in heard:
                heard += connection.recv(65536)
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n" % size
            )
            sent = 0
            while sent < size:
                sent += os.sendfile(connection.fileno(), file.fileno(), sent, size - sent)

    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def make_video(path: Path, size: int) -> None:
    """The shell of an MP4 around noise: nothing on the way can make it shorter."""
    with path.open("wb") as file:
        file.write(b"\0\0\0\x10ftypmp42\0\0\0\0" + (size - 16).to_bytes(4, "big") + b"mdat")
        while file.tell() < size:
            file.write(os.urandom(min(2**20, size - file.tell())))


class NoHash:
    """What the checksum costs is seen where it is left out."""

    def update(self, data: bytes) -> None: ...

    def hexdigest(self) -> str:
        return ""


def timed(work: Callable[[Path], object], folder: Path) -> float:
    for old in folder.glob("saved*"):
        old.unlink()
    target = folder / "saved.mp4"
    started = time.perf_counter()
    work(target)
    return time.perf_counter() - started


def at_once(number: int, work: Callable[[Path], object]) -> Callable[[Path], None]:
    def run(target: Path) -> None:
        threads = [
            threading.Thread(target=work, args=(target.with_name(f"saved-{index}.mp4"),))
            for index in range(number)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run


def peak_growth(url: str, folder: Path, number: int) -> float:
    """Megabytes that a fresh process grows by while it downloads."""
    program = PEAK.format(url=url, folder=folder, number=number)
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True)
    return float(done.stdout)


# VmHWM begins anew with the program; the peak that getrusage tells is inherited.
PEAK = """
import re, threading, requests
from pathlib import Path
from kling_integrations.core.storage.download import save
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
threads = [
    threading.Thread(target=save, args=({url!r}, f"{folder}/peak-{{index}}.mp4"))
    for index in range({number})
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print((peak() - before) / 1000)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=200, metavar="MB")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    curl = shutil.which("curl")
    if not curl:
        sys.exit("This compares with curl, which is not installed.")

    with tempfile.TemporaryDirectory(prefix="kling-download-") as name:
        folder = Path(name)
        source = folder / "source.mp4"
        make_video(source, options.size * MB)
        server = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(source)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout
            url = f"http://127.0.0.1:{int(server.stdout.readline())}/source.mp4"
            measure(curl, url, folder, options.size, options.rounds)
        finally:
            server.terminate()
            server.wait()


def measure(curl: str, url: str, folder: Path, size: int, rounds: int) -> None:
    def with_curl(target: Path) -> None:
        subprocess.run([curl, "-sS", "-o", str(target), url], check=True)

    def with_tools(target: Path) -> None:
        with_curl(target)
        subprocess.run(["sha256sum", str(target)], stdout=subprocess.DEVNULL, check=True)
        subprocess.run(["sync", str(target)], check=True)

    def with_hash(target: Path) -> None:
        with_curl(target)
        subprocess.run(["sha256sum", str(target)], stdout=subprocess.DEVNULL, check=True)

    def as_program(target: Path) -> None:
        program = (
            "import sys; from kling_integrations.core.storage.download import save; "
            "save(*sys.argv[1:])"
        )
        subprocess.run([sys.executable, "-c", program, url, str(target)], check=True)

    def ours(target: Path) -> None:
        save(url, target)

    def four_without_hash(target: Path) -> None:
        with patch.object(partial_file, "hashlib", SimpleNamespace(sha256=NoHash)):
            at_once(4, ours)(target)

    rows: dict[str, tuple[Callable[[Path], object], int]] = {
        "curl": (with_curl, 1),
        "ours": (ours, 1),
        "curl + sha256sum + sync": (with_tools, 1),
        "ours, as a program": (as_program, 1),
        "curl, 4 at once": (at_once(4, with_curl), 4),
        "ours, 4 at once": (at_once(4, ours), 4),
        "curl + sha256sum, 4 at once": (at_once(4, with_hash), 4),
        "ours without hash, 4 at once": (four_without_hash, 4),
    }
    seconds: dict[str, list[float]] = {label: [] for label in rows}
    for group in (("curl", "ours"), tuple(rows)[2:4], tuple(rows)[4:]):
        for label in group:
            timed(rows[label][0], folder)  # warm: imports, page cache
        for _ in range(rounds):
            for label in group:
                seconds[label].append(timed(rows[label][0], folder))

    speed = {
        label: number * size / statistics.median(seconds[label])
        for label, (_, number) in rows.items()
    }
    beside = {label: "curl, 4 at once" if "4" in label else "curl" for label in rows}
    peak = {
        "ours": peak_growth(url, folder, 1),
        "ours, 4 at once": peak_growth(url, folder, 4),
    }
    print(f"{size} MB from loopback, {rounds} rounds, {os.cpu_count()} cores\n")
    print(f"{'':30}{'MB/s':>8}{'ratio':>8}{'peak MB':>9}")
    for label in rows:
        ratio = speed[label] / speed[beside[label]]
        memory = f"{peak[label]:9.1f}" if label in peak else ""
        print(f"{label:30}{speed[label]:8.0f}{ratio:8.2f}{memory}")
    reached = speed["ours"] / speed["curl"]
    print(f"\nours / curl = {reached:.2f} (wanted: 0.8 or more)")


if __name__ == "__main__":
    main()
