"""Who pays how often, and who loses what: ours, the naive script and other services' clients.

    python -m venv /tmp/peers && /tmp/peers/bin/pip install -r benchmarks/peers.txt
    python benchmarks/faults.py --peers /tmp/peers/bin/python      # about ten minutes

One user call per row: submit a video and wait for it by the client's own helper, everything at its
default but the pause between two looks. The server is written apart from our sandbox: it imitates
the wire format of each service (``peer_server.py``), takes every POST, counts it, and then does
what the row says. *Billed* is the number of jobs that it accepted for that one call. A call that
loses a job that was billed is marked *lost*: the error names neither the job nor a way
to look for it.

The services' own servers may recognise a repeated POST where a client sends a key for it (comfy
does); ours counts what is accepted, and honours such a key. Clients that are not installed, or do
not speak to this imitation, are said to be missing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HERE = Path(__file__).resolve().parent
PROMPT = "A cheerful white raccoon running through a sequoia forest"
PAUSE = 0.2  # seconds between two looks, where a client lets one choose
LIMIT = 100.0  # seconds for one call

KINDS = ("ours", "naive", "aimlapi", "fal", "replicate", "runwayml", "lumaai", "openai")
KINDS = (*KINDS, "google", "runapi", "comfy")


@dataclass(frozen=True)
class Fault:
    name: str
    moment: str
    kind: str
    times: int | None = None  # None: each time
    value: Any = None


POSTS = [
    Fault("the connection drops", "submit", "drop"),
    Fault("the connection is reset", "submit", "reset"),
    Fault("500", "submit", "status", None, 500),
    Fault("502", "submit", "status", None, 502),
    Fault("504", "submit", "status", None, 504),
    Fault("408", "submit", "status", None, 408),
    Fault("a web page", "submit", "html"),
]
REFUSALS = [Fault("429 once, not taken", "submit", "refuse", 1, 429)]
POLLS = [
    Fault("connection dropped", "poll", "drop", 1),
    Fault("500", "poll", "status", 1, 500),
    Fault("502", "poll", "status", 1, 502),
    Fault("503 three times", "poll", "status", 3, 503),
    Fault("404 once", "poll", "status", 1, 404),
    Fault("429, Retry-After 1", "poll", "status", 1, 429),
    Fault("200 with a web page", "poll", "html", 1),
    Fault("body cut", "poll", "cut", 1),
    Fault("unknown status word", "poll", "word", 1),
]


# --- the clients, each in a process of its own ---------------------------------------------------


def call(kind: str, base: str) -> None:
    """One user call; prints how it ended as JSON."""
    try:
        make(kind)(base)
    except ImportError as missing:
        ended: dict[str, Any] = {"missing": str(missing)}
    except BaseException as error:
        words = f"{error} {vars(error)}"
        ended = {"error": type(error).__name__, "words": words[:2000]}
    else:
        ended = {}
    print("ENDED " + json.dumps(ended), flush=True)


def make(kind: str) -> Callable[[str], object]:
    if kind == "ours":
        return ours
    if kind in ("google", "runapi", "comfy"):
        return {"google": google, "runapi": runapi, "comfy": comfy}[kind]
    import waiting

    builder = getattr(waiting, kind)

    def run(base: str) -> None:
        job, _ = builder(f"{kind}-sync", base, PAUSE / {"naive": 10, "aimlapi": 10}.get(kind, 3))
        job(0)

    return run


def ours(base: str) -> None:
    sys.path.insert(0, str(HERE.parent))
    from kling_integrations import KlingClient, VideoRequest

    with KlingClient("k", base) as client:
        client.generate(VideoRequest(prompt=PROMPT), poll_interval=PAUSE, timeout=LIMIT)


def google(base: str) -> None:
    from google import genai
    from google.genai import types

    options = types.HttpOptions(base_url=f"{base}/google")
    client = genai.Client(vertexai=True, api_key="k", http_options=options)
    source = types.GenerateVideosSource(prompt=PROMPT)
    operation = client.models.generate_videos(model="veo-3.0-generate-001", source=source)
    while not operation.done:
        time.sleep(PAUSE)
        operation = client.operations.get(operation)


def runapi(base: str) -> None:
    from runapi.kling import KlingClient

    client = KlingClient(api_key="k", base_url=f"{base}/runapi")
    client.text_to_video.run(model="kling-3.0", prompt=PROMPT)


def comfy(base: str) -> None:
    import os

    from comfy_sdk import BASE_URL_ENV_VAR, Comfy

    os.environ[BASE_URL_ENV_VAR] = f"{base}/comfy"
    client = Comfy(api_key="k")
    graph = {"1": {"class_type": "KlingTextToVideo", "inputs": {"prompt": PROMPT}}}
    client.run(client.workflows.from_json(graph))


# --- the server ----------------------------------------------------------------------------------


class Service:
    """Takes every POST and does what the fault says; a job is done at its second good look."""

    def __init__(self, fault: Fault | None) -> None:
        self.fault = fault
        self.struck = 0
        self.jobs: list[str] = []  # the keys, or numbers, of what was accepted
        self.looks: dict[int, int] = {}
        self.unknown: list[str] = []
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()
        self._ready.wait(10)

    def _run(self) -> None:
        from aiohttp import web

        asyncio.set_event_loop(self._loop)

        async def begin() -> None:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", self._answer)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            assert site._server is not None
            self.port = site._server.sockets[0].getsockname()[1]
            self._ready.set()

        self._loop.run_until_complete(begin())
        self._loop.run_forever()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _answer(self, request: Any) -> Any:
        from aiohttp import web

        await request.read()
        # Google's client looks with a POST too.
        looks = request.method != "POST" or request.path.endswith(":fetchPredictOperation")
        moment = "poll" if looks else "submit"
        fault = self.fault
        strikes = (
            fault is not None
            and fault.moment == moment
            and (fault.times is None or self.struck < fault.times)
        )
        if strikes:
            self.struck += 1
        if moment == "submit" and not (strikes and fault and fault.kind == "refuse"):
            key = request.headers.get("Idempotency-Key") or str(len(self.jobs))
            if key not in self.jobs:
                self.jobs.append(key)
        number = max(0, len(self.jobs) - 1)
        body = self._body(request, number, looks, strikes)
        if not strikes or fault is None or fault.kind == "word":
            # Only comfy minds which 2xx it is.
            made = moment == "submit" and request.path.startswith("/comfy/")
            return web.json_response(body, status=201 if made else 200)
        if fault.kind in ("drop", "reset"):
            if fault.kind == "reset":
                line = request.transport.get_extra_info("socket")
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.transport.abort() if fault.kind == "reset" else request.transport.close()
            return web.Response()
        if fault.kind == "html":
            return web.Response(text="<html>Just a moment...</html>", content_type="text/html")
        if fault.kind == "cut":
            text = json.dumps(body)[:-9]
            return web.Response(text=text, content_type="application/json")
        headers = {"Retry-After": "1"} if fault.value == 429 and moment == "poll" else {}
        return web.json_response({"message": "oops"}, status=fault.value, headers=headers)

    def _body(self, request: Any, number: int, looks: bool, strikes: bool) -> Any:
        from peer_server import MOMENT, VIDEO, Services

        path = request.path
        done = False
        if looks:
            self.looks[number] = self.looks.get(number, 0) + (not strikes)
            done = self.looks[number] >= 2
        word = strikes and self.fault is not None and self.fault.kind == "word"
        service = path.split("/")[1]
        if path.startswith("/v2/"):
            shaped: dict[str, Any] = {
                "id": f"job-{number}",
                "status": "completed" if done else "queued",
            }
            if done:
                shaped["video"] = {"url": VIDEO}
        elif service == "google":
            name = f"models/veo-3.0-generate-001/operations/{number}"
            shaped = {"name": name}
            if done:
                shaped |= {"done": True, "response": {"videos": [{"gcsUri": VIDEO}]}}
        elif service == "runapi":
            shaped = {"id": f"job-{number}", "status": "completed" if done else "processing"}
            if done:
                shaped["videos"] = [{"url": VIDEO}]
        elif service == "comfy":
            links = dict.fromkeys(("self", "events", "cancel"), f"/comfy/api/v2/jobs/job-{number}")
            shaped = {
                "id": f"job-{number}",
                "status": "succeeded" if done else "running",
                **dict.fromkeys(("created_at", "started_at", "completed_at", "expires_at"), MOMENT),
                **dict.fromkeys(("queue_position", "progress", "error")),
                "outputs": [],
                "urls": links,
            }
        elif hasattr(Services, service):
            # What fal's client asks for beside the status comes when that is done.
            done = done or (service == "fal" and not path.endswith("/status"))
            host = SimpleNamespace(
                method=request.method, path=path, scheme="http", host=request.host
            )
            shaped = getattr(Services(1.0), service)(host, number, done)
        else:
            self.unknown.append(path)
            shaped = {}
        if word and isinstance(shaped, dict):
            for key in ("status", "state"):
                if key in shaped:
                    shaped[key] = "pondering"
        return shaped


# --- the table -----------------------------------------------------------------------------------


@dataclass
class Ended:
    billed: int
    error: str
    words: str
    seconds: float
    missing: str = ""
    lost: bool = False  # billed, and the error names neither the job nor what was sent with it


def play(kind: str, fault: Fault | None, peers: str) -> Ended:
    service = Service(fault)
    python = sys.executable if kind == "ours" else peers
    began = time.monotonic()
    try:
        done = subprocess.run(
            [python, __file__, "--call", kind, "--base", f"http://127.0.0.1:{service.port}"],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            cwd=HERE,
        )
        told = [line for line in done.stdout.splitlines() if line.startswith("ENDED ")]
        ended = json.loads(told[-1][6:]) if told else {"error": "crash", "words": done.stderr}
    except subprocess.TimeoutExpired:
        ended = {"error": "no end", "words": ""}
    finally:
        service.close()
    words = ended.get("words", "")
    known = (*(key for key in service.jobs if len(key) > 4), "job-", "kling-")
    return Ended(
        len(service.jobs),
        ended.get("error", ""),
        words,
        time.monotonic() - began,
        ended.get("missing", ""),
        lost=bool("error" in ended and service.jobs and not any(key in words for key in known)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peers", metavar="PYTHON", default=sys.executable)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--side-by-side", type=int, default=3)
    parser.add_argument("--call", help=argparse.SUPPRESS)
    parser.add_argument("--base", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.call:
        call(args.call, args.base)
        return
    well = {kind: play(kind, None, args.peers) for kind in args.kinds}
    able = [kind for kind in args.kinds if not well[kind].error and not well[kind].missing]
    for kind in args.kinds:
        if kind not in able:
            print(f"Not run: {kind} ({well[kind].missing or well[kind].words[:150]})")
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.platform()}, Python {platform.python_version()}"
    )

    def row(fault: Fault) -> list[Ended]:
        with ThreadPoolExecutor(args.side_by_side) as pool:
            return list(pool.map(lambda kind: play(kind, fault, args.peers), able))

    print("\nThe server takes the POST, and then, each time: jobs billed for one call\n")
    head(able)
    worst = dict.fromkeys(able, 0)
    lost = dict.fromkeys(able, 0)
    for fault in POSTS:
        ends = row(fault)
        for kind, end in zip(able, ends, strict=True):
            worst[kind] = max(worst[kind], end.billed)
            lost[kind] += end.lost
        show(fault.name, [f"{end.billed}{', lost' if end.lost else ''}" for end in ends])
    for fault in REFUSALS:
        show(fault.name, ["ends well" if not end.error else "fails" for end in row(fault)])
    print("\nOne look goes wrong, then all is well: does the call end with the video?\n")
    head(able)
    outlived = dict.fromkeys(able, 0)
    for fault in POLLS:
        ends = row(fault)
        for kind, end in zip(able, ends, strict=True):
            outlived[kind] += not end.error
        show(fault.name, ["yes" if not end.error else f"no: {end.error}" for end in ends])
    print()
    head(able)
    show("most billed for one call", [str(worst[kind]) for kind in able])
    show("looks outlived", [f"{outlived[kind]} of {len(POLLS)}" for kind in able])
    show("submits that lost a billed job", [str(lost[kind]) for kind in able])


def head(kinds: list[str]) -> None:
    print(f"| | {' | '.join(kinds)} |\n|---|{'---|' * len(kinds)}")


def show(name: str, cells: list[str]) -> None:
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
