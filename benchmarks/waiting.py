"""Waiting for real over sockets: ours, the naive script, and other services' clients.

    python -m venv /tmp/peers && /tmp/peers/bin/pip install -r benchmarks/peers.txt
    python benchmarks/waiting.py --peers /tmp/peers/bin/python [--jobs 1 100 1000]   # 25 minutes

How to read it: each row is a process of its own that submits its jobs and waits for all of them
by its client's own helper at its default interval; the server is another process (our sandbox, or
``peer_server.py``, an imitation of the service's wire format). Generations take about 170 s
(log-normal, spread 20 %) on a clock that runs SPEED times as fast; intervals are divided by it,
and what is printed is in seconds of life again.

* *late* is from the end of a job to the poll that tells it, mean and p95, as the server saw it.
* *requests* are per job, submit included. *CPU per request* is what the client itself costs;
  *CPU per job* is that at the rate at which it asks. Neither holds the import.
* *kB per job* is what the resident memory grew by at most while all were waiting, connections
  included, divided by the jobs.
* For 1 job, four are waited for one after another, and all clients run side by side.
* For 1,000 jobs the peers run at their unscaled intervals, on generations of 30 s: a scaled clock
  would ask more of them than life does. Their requests per job and their lateness are those of
  such a job, ours those of 170 s.

Lateness is a matter of the interval more than of the client, and the busier the machine the later
everybody is: compare CPU and requests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.request import urlopen

MODELS = ("klingai/v2.5-turbo/pro/text-to-video", "klingai/v2-master-text-to-video")
PROMPT = "A cheerful white raccoon running through a sequoia forest"
# For 1,000 jobs: 170 s of life in 30 s.
SPEEDS = {1: 10.0, 100: 10.0, 1000: 17 / 3}
HERE = Path(__file__).resolve().parent

# kind: (the client, how it waits, who serves it)
KINDS = {
    "ours-async": ("AsyncKlingClient", "own schedule", "sandbox"),
    "ours-sync": ("KlingClient, threads", "own schedule", "sandbox"),
    "naive": ("naive script, threads", "10 s", "sandbox"),
    "aimlapi-async": ("aimlapi, async", "10 s", "sandbox"),
    "aimlapi-sync": ("aimlapi, threads", "10 s", "sandbox"),
    "fal-async": ("fal-client, async", "0.1 s", "fal"),
    "fal-sync": ("fal-client, threads", "0.1 s", "fal"),
    "google-async": ("google-genai, async", "10 s (documented loop)", "google"),
    "google-sync": ("google-genai, threads", "10 s (documented loop)", "google"),
    "lumaai-async": ("lumaai, async", "3 s (documented loop)", "lumaai"),
    "lumaai-sync": ("lumaai, threads", "3 s (documented loop)", "lumaai"),
    "openai-async": ("openai, async", "1 s", "openai"),
    "openai-sync": ("openai, threads", "1 s", "openai"),
    "replicate-async": ("replicate, async", "0.5 s", "replicate"),
    "replicate-sync": ("replicate, threads", "0.5 s", "replicate"),
    "runwayml-async": ("runwayml, async", "6 ± 1.5 s", "runwayml"),
    "runwayml-sync": ("runwayml, threads", "6 ± 1.5 s", "runwayml"),
}
BUDGETS = {
    f"{order}-{rate}": (f"{words}, {rate} requests/s", words, "sandbox")
    for rate in (10, 20)
    for order, words in (
        ("likeliest", "likeliest to be done first"),
        ("robin", "round robin of all that wait"),
    )
}

Job = Callable[[int], Any]


# --- the clients -------------------------------------------------------------------------------


def ours(kind: str, base: str, interval: float) -> tuple[Job, Any]:
    from kling_integrations import AsyncKlingClient, KlingClient, VideoRequest

    for late in ("aiohttp", "kling_integrations.core.http.requests_transport"):
        import_module(late)  # done at the first request otherwise, and the import is not measured
    requests = [VideoRequest(model=model, prompt=PROMPT, duration=5) for model in MODELS]
    if kind == "ours-sync":
        client = KlingClient("sandbox", base)
        return lambda _: client.generate(requests[0]), None
    if kind == "ours-async":
        waiter = AsyncKlingClient("sandbox", base)
        return lambda _: waiter.generate(requests[0]), waiter.close

    order, rate = kind.split("-")

    class InTurn(AsyncKlingClient):
        async def exchange(self, call: Any, likelihood: Any = None) -> Any:
            # Everybody is as likely as everybody else: the line is one of arrival.
            return await super().exchange(call, likelihood and (lambda: 0.0))

    make = AsyncKlingClient if order == "likeliest" else InTurn
    each = 1.0 if order == "robin" else None
    waiter = make("sandbox", base, max_requests_per_second=float(rate))
    return lambda n: waiter.generate(requests[n % 2], poll_interval=each), waiter.close


def naive(kind: str, base: str, interval: float) -> tuple[Job, Any]:
    """What the gateway's documentation shows, for each job: no session, a fixed interval."""
    import requests

    url, headers = f"{base}/v2/video/generations", {"Authorization": "Bearer sandbox"}

    def job(_: int) -> None:
        body = {"model": MODELS[0], "prompt": PROMPT, "duration": 5}
        made = requests.post(url, json=body, headers=headers, timeout=60).json()["id"]
        while True:
            found = requests.get(
                url, params={"generation_id": made}, headers=headers, timeout=60
            ).json()
            if found["status"] not in ("waiting", "active", "queued", "generating"):
                return
            time.sleep(interval * 10.0)

    return job, None


def aimlapi(kind: str, base: str, interval: float) -> tuple[Job, Any]:
    import aimlapi as module
    from aimlapi.resources import videos

    # The client drops the path of its base URL; the sandbox lives under one.
    videos._video_api_url = lambda _, path: base + path
    make = module.AsyncAIMLAPI if "async" in kind else module.AIMLAPI
    client = make(api_key="sandbox", base_url=base)
    options = {"model": MODELS[0], "prompt": PROMPT, "duration": 5, "poll_timeout": None}
    return (
        lambda _: client.videos.generate_with_polling(poll_interval=10.0 * interval, **options),
        None,
    )


def fal(kind: str, base: str, interval: float) -> tuple[Job, Any]:
    import fal_client
    from fal_client import client as module

    module.QUEUE_URL_FORMAT = f"{base}/fal/"
    client = (fal_client.AsyncClient if "async" in kind else fal_client.SyncClient)(key="k")
    arguments = {"prompt": PROMPT}
    return lambda _: client.subscribe("fal-ai/kling", arguments, interval=0.1 * interval), None


def google(kind: str, base: str, interval: float) -> tuple[Job, Any]:
    from google import genai
    from google.genai import types

    # The version at hand makes videos from a prompt in this mode only.
    options = types.HttpOptions(base_url=f"{base}/google")
    client = genai.Client(enterprise=True, api_key="k", http_options=options)
    video = {"model": "veo-2.0-generate-001", "prompt": PROMPT}
    if "async" in kind:

        async def wait(_: int) -> None:
            found = await client.aio.models.generate_videos(**video)
            while not found.done:
                await asyncio.sleep(10.0 * interval)
                found = await client.aio.operations.get(found)

        return wait, None

    def job(_: int) -> None:
        found = client.models.generate_videos(**video)
        while not found.done:
            time.sleep(10.0 * interval)
            found = client.operations.get(found)

    return job, None


def lumaai(kind: str, base: str, interval: float) -> tuple[Job, Any]:
    from lumaai import AsyncLumaAI, LumaAI

    options = {"prompt": PROMPT, "model": "ray-2"}
    if "async" in kind:
        waiter = AsyncLumaAI(auth_token="k", base_url=f"{base}/lumaai")

        async def wait(_: int) -> None:
            found = await waiter.generations.create(**options)
            while found.state != "completed":
                await asyncio.sleep(3.0 * interval)
                found = await waiter.generations.get(found.id)

        return wait, None
    client = LumaAI(auth_token="k", base_url=f"{base}/lumaai")

    def job(_: int) -> None:
        found = client.generations.create(**options)
        while found.state != "completed":
            time.sleep(3.0 * interval)
            found = client.generations.get(found.id)

    return job, None


def openai(kind: str, base: str, interval: float) -> tuple[Job, Any]:
    from openai import AsyncOpenAI, OpenAI

    client = (AsyncOpenAI if "async" in kind else OpenAI)(api_key="k", base_url=f"{base}/openai")
    every = max(1, round(1000 * interval))
    return (
        lambda _: client.videos.create_and_poll(
            prompt=PROMPT, model="sora-2", poll_interval_ms=every
        ),
        None,
    )


def replicate(kind: str, base: str, interval: float) -> tuple[Job, Any]:
    from replicate.client import Client

    client = Client(api_token="k", base_url=f"{base}/replicate")
    client.poll_interval = 0.5 * interval
    options = {"model": "kwaivgi/kling", "input": {"prompt": PROMPT}}
    if "async" in kind:

        async def wait(_: int) -> None:
            found = await client.models.predictions.async_create(**options)
            await found.async_wait()

        return wait, None

    def job(_: int) -> None:
        client.models.predictions.create(**options).wait()

    return job, None


def runwayml(kind: str, base: str, interval: float) -> tuple[Job, Any]:
    from runwayml import AsyncRunwayML, RunwayML
    from runwayml.lib import polling

    polling.POLL_TIME, polling.POLL_JITTER = 6 * interval, 3 * interval
    options = {
        "model": "kling2.5_turbo_pro", "prompt_text": PROMPT, "ratio": "1280:720", "duration": 5,
    }  # fmt: skip
    if "async" in kind:
        waiter = AsyncRunwayML(api_key="k", base_url=f"{base}/runwayml")

        async def wait(_: int) -> None:
            made = await waiter.text_to_video.create(**options)
            await made.wait_for_task_output()

        return wait, None
    client = RunwayML(api_key="k", base_url=f"{base}/runwayml")
    return lambda _: client.text_to_video.create(**options).wait_for_task_output(), None


def contend(kind: str, jobs: int, base: str, interval: float) -> None:
    """In the client's own process: does the jobs, and prints what they cost."""
    import psutil

    make: Any = globals().get(kind.split("-")[0], ours)
    process, failures = psutil.Process(), []
    peak, stop = [0], threading.Event()

    def look() -> None:
        while not stop.wait(0.25):
            peak[0] = max(peak[0], process.memory_info().rss)

    def costs(before: tuple[float, float, int]) -> dict[str, Any]:
        stop.set()
        return {
            "cpu": time.process_time() - before[0],
            "wall": time.perf_counter() - before[1],
            "memory": max(0, peak[0] - before[2]),
            "done": jobs - len(failures),
            "why": failures[:1],
        }

    def start() -> tuple[float, float, int]:
        if jobs > 1:  # looking costs as much as a job's polls
            threading.Thread(target=look, daemon=True).start()
        return time.process_time(), time.perf_counter(), process.memory_info().rss

    rounds = 4 if jobs == 1 else 1
    if "sync" in kind.split("-")[-1:] or kind == "naive":
        job, _ = make(kind, base, interval)

        def attempt(number: int) -> None:
            try:
                job(number)
            except Exception as error:
                failures.append(f"{type(error).__name__}: {error}"[:80])

        before = start()
        threading.stack_size(256 * 1024)
        for _ in range(rounds):
            with ThreadPoolExecutor(jobs) as pool:
                list(pool.map(attempt, range(jobs)))
        print(json.dumps(costs(before)))
        os._exit(0)

    async def run() -> None:
        job, close = make(kind, base, interval)

        async def attempt(wait: Awaitable[Any]) -> None:
            try:
                await wait
            except Exception as error:
                failures.append(f"{type(error).__name__}: {error}"[:80])

        before = start()
        for _ in range(rounds):
            await asyncio.gather(*(attempt(job(number)) for number in range(jobs)))
        print(json.dumps(costs(before)), flush=True)
        if close:
            await close()
        os._exit(0)

    asyncio.run(run())


# --- the servers -------------------------------------------------------------------------------


def sandbox(speed: float) -> None:
    from peer_server import seconds_of

    from kling_integrations.sandbox import Sandbox

    rng = random.Random(5)
    with Sandbox(
        speed, seconds=lambda model, _: seconds_of(model, rng), size=(160, 90), fps=4
    ) as box:
        print(box.base_url, flush=True)
        sys.stdin.read()


def statistics_of(base: str, service: str) -> dict[str, Any]:
    """Requests, connections, jobs, and how late each end was seen, in seconds on the fast clock."""
    if service != "sandbox":
        with urlopen(f"{base}/stats") as reply:
            return dict(json.load(reply))
    with urlopen(f"{base}/_jobs") as reply:
        found = json.load(reply)
    return {
        "requests": found["requests"].get("submit", 0) + found["requests"].get("poll", 0),
        "connections": found["connections"],
        "jobs": len(found["jobs"]),
        "late": [job["lateness"] for job in found["jobs"] if job["lateness"] is not None],
    }


# --- the table ---------------------------------------------------------------------------------


def measure(kind: str, jobs: int, speed: float, peers: str) -> str:
    name, how, service = (KINDS | BUDGETS)[kind]
    mine = kind.startswith(("ours", "likeliest", "robin"))
    # 1,000 jobs: peers as in life, on short jobs.
    scaled = jobs != 1000 or mine
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    serve = (
        [sys.executable, __file__, "--sandbox", str(speed)]
        if service == "sandbox"
        else [sys.executable, str(HERE / "peer_server.py"), str(speed)]
    )
    server = subprocess.Popen(
        serve, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert server.stdout is not None
        base = server.stdout.readline().strip()
        python = sys.executable if mine or kind == "naive" else peers
        interval = 1.0 / speed if scaled else 1.0
        done = subprocess.run(
            [python, __file__, "--run", kind, str(jobs), base, str(interval)],
            env=environment, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        try:
            got = json.loads(done.stdout.strip().splitlines()[-1])
        except (IndexError, ValueError):
            why = (done.stderr.strip().splitlines() or ["no output"])[-1][:100]
            return f"| {name} | {how} | skipped: {why} | | | | | | | | |"
        seen = statistics_of(base, service)
    except subprocess.TimeoutExpired:
        return f"| {name} | {how} | gave up after 10 minutes | | | | | | | | |"
    finally:
        server.terminate()
        server.wait()
    total = 4 if jobs == 1 else jobs
    finished = total - (jobs - got["done"])
    unit = 1.0 if scaled else 1.0 / speed
    late = sorted(unit * each for each in seen["late"]) or [float("nan")]
    why = f" ({got['why'][0]})" if got["why"] else ""
    memory = f"{got['memory'] / total / 1000:.1f}" if jobs > 1 else "-"
    return (
        f"| {name} | {how} | {finished:,} of {total:,}{why} | {seen['requests'] / total:.1f} | "
        f"{statistics.fmean(late):.1f} / {late[int(0.95 * (len(late) - 1))]:.1f} | "
        f"{1000 * got['cpu'] / total:.1f} | {1000 * got['cpu'] / seen['requests']:.2f} | "
        f"{got['cpu']:.1f} | {memory} | {seen['connections']:,} | "
        f"{got['wall']:.0f} |"
    )


HEAD = (
    "client | interval | done | requests per job | late s, mean / p95 | CPU ms per job | "
    "CPU ms per request | CPU s | kB per job | connections | wall s"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default=sys.executable, help="the Python that has the peers")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 100, 1000])
    parser.add_argument("--only", nargs="+", choices=[*KINDS, *BUDGETS])
    parser.add_argument("--no-budget", action="store_true")
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--sandbox", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.sandbox:
        return sandbox(options.sandbox)
    if options.run:
        kind, jobs, base, interval = options.run
        return contend(kind, int(jobs), base, float(interval))
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    )

    def table(title: str, kinds: list[str], jobs: int, speed: float, together: bool) -> None:
        chosen = [kind for kind in kinds if not options.only or kind in options.only]
        if not chosen:
            return
        print(
            f"\n**{title}**\n\n| {HEAD} |\n|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
        )
        with ThreadPoolExecutor(len(chosen) if together else 1) as pool:
            for row in pool.map(lambda kind: measure(kind, jobs, speed, options.peers), chosen):
                print(row, flush=True)

    for jobs in options.jobs:
        speed = SPEEDS.get(jobs, 10.0)
        many = [kind for kind in KINDS if kind in ("ours-sync", "naive") or "-sync" not in kind]
        kinds = list(KINDS) if jobs == 1 else many
        title = f"{jobs:,} at once" if jobs > 1 else "1 at a time"
        table(f"{title}, clock × {speed:.3g}", kinds, jobs, speed, jobs == 1)
    if not options.no_budget:
        title = f"{1000:,} under a shared budget, half {MODELS[0]}, half {MODELS[1]}, clock × 20"
        table(title, list(BUDGETS), 1000, 20.0, together=False)
    return None


if __name__ == "__main__":
    main()
