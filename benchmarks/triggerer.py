"""Thousands of triggers in one event loop, beside those of three Airflow providers.

    python -m pip install --target /tmp/providers --no-deps -r benchmarks/providers.txt
    PYTHONPATH=/tmp/providers python benchmarks/triggerer.py [--quick]      # about 9 minutes

How to read it: each row is a process of its own in which N triggers run in one event loop, as in
a triggerer, against a server (another process) that answers every poll after 300 ms with "not
done yet". All ask every 10 s and are started one after another within the first 10 s; then 15 s
are measured. *Wanted* is N / 10 polls a second, of which 97 % can be had, because the reply takes
its time, too; *asked* is what the server counted. *Lag p99* is how late the loop is for a timer
of 10 ms: what every other trigger of that triggerer suffers. *CPU* is of one core, at the polls
that were made. *kB per trigger* is what the resident memory grew by, connections included.
The last rows are ours by its own schedule, at generations of all ages up to 170 s; wanted is then
what the schedule asks for.

What it needs: OpenAI's trigger calls its client in the loop, so the loop stands still for each
reply; Anthropic's uses threads, of which the loop has (cores + 4); HttpSensor's opens a session
for each poll.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen

REPLY, INTERVAL, WINDOW = 0.3, 10.0, 15.0
OURS, OURS_OWN = "KlingVideoTrigger, every 10 s", "KlingVideoTrigger, own schedule"
OPENAI, ANTHROPIC, HTTP = "OpenAIBatchTrigger", "AnthropicBatchTrigger", "HttpSensorTrigger"
MODEL = "klingai/v2.5-turbo/pro/text-to-video"


# --- the other side ----------------------------------------------------------------------------


def serve() -> None:
    """Answers after REPLY seconds that nothing is done yet; ``/count`` tells how often."""
    from aiohttp import web

    count = 0
    soon = "2030-01-01T00:00:00Z"
    batch = {
        "id": "batch_1", "object": "batch", "endpoint": "/v1/completions", "input_file_id": "f",
        "completion_window": "24h", "status": "in_progress", "created_at": 1,
    }  # fmt: skip
    messages = {
        "id": "b", "type": "message_batch", "processing_status": "in_progress",
        "created_at": soon, "expires_at": soon, "archived_at": None, "ended_at": None,
        "cancel_initiated_at": None, "results_url": None,
        "request_counts": dict.fromkeys(
            ("processing", "succeeded", "errored", "canceled", "expired"), 0
        ),
    }  # fmt: skip

    async def answer(request: web.Request) -> web.Response:
        nonlocal count
        if request.path == "/count":
            return web.json_response(count)
        count += 1
        await asyncio.sleep(REPLY)
        if "generations" in request.path:
            generation = request.query["generation_id"]
            return web.json_response({"id": generation, "status": "generating"})
        if "messages" in request.path:
            return web.json_response(messages)
        if "batches" in request.path:
            return web.json_response(batch)
        return web.json_response({}, status=404)

    async def run() -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app, access_log=None, keepalive_timeout=75)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
        await site.start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()

    asyncio.run(run())


# --- one contender -----------------------------------------------------------------------------


def triggers_of(kind: str) -> Callable[[int], Any]:
    """Makes the trigger of that number."""
    if kind == OPENAI:
        from airflow.providers.openai.triggers.openai import OpenAIBatchTrigger

        return lambda n: OpenAIBatchTrigger("openai_x", f"batch_{n}", INTERVAL, timeout=3600)
    if kind == ANTHROPIC:
        from airflow.providers.anthropic.triggers.batch import AnthropicBatchTrigger

        end = time.time() + 3600
        return lambda n: AnthropicBatchTrigger("anthropic_x", f"batch_{n}", INTERVAL, end)
    if kind == HTTP:
        from airflow.providers.http.triggers.http import HttpSensorTrigger

        return lambda n: HttpSensorTrigger(f"x/{n}", "http_x", poke_interval=INTERVAL)
    from kling_integrations.airflow import KlingVideoTrigger
    from kling_integrations.core.schedule import Schedule

    end, schedule = time.time() + 3600, Schedule.expecting(MODEL, 5)
    if kind == OURS:
        fixed = schedule.every(INTERVAL).numbers()
        return lambda n: KlingVideoTrigger(f"{n}:{MODEL}", "kling_x", end, None, **fixed)
    numbers, rng = schedule.numbers(), random.Random(3)
    return lambda n: KlingVideoTrigger(
        f"{n}:{MODEL}", "kling_x", end, time.time() - rng.uniform(0.0, 170.0), **numbers
    )


def contend(kind: str, count: int) -> None:
    """Runs the triggers, and prints what the window showed. A thread looks at the watch: a loop
    that stands still could not.
    """
    import psutil

    logging.disable(logging.WARNING)
    make, process = triggers_of(kind), psutil.Process()
    lags: list[float] = []
    last = [time.perf_counter()]
    errors: list[str] = []

    async def tick() -> None:
        while True:
            last[0] = time.perf_counter()
            await asyncio.sleep(0.01)
            lags.append(time.perf_counter() - last[0] - 0.01)

    async def follow(number: int) -> None:
        await asyncio.sleep(INTERVAL * number / count)
        try:
            async for event in make(number).run():
                errors.append(str(event.payload)[:200])  # noqa: PERF401
        except Exception as error:
            errors.append(repr(error)[:200])

    def watch(memory: int) -> None:
        time.sleep(INTERVAL + 1.0)
        lags.clear()
        polls, cpu, start = asked(), time.process_time(), time.perf_counter()
        time.sleep(WINDOW)
        took = time.perf_counter() - start
        late = sorted([*lags, time.perf_counter() - last[0]])
        made = asked() - polls
        answer = {
            "asked": made / took,
            "lag": late[int(0.99 * (len(late) - 1))] if len(late) > 100 else late[-1],
            "cpu": (time.process_time() - cpu) / took,
            "polls": made,
            "memory": (process.memory_info().rss - memory) / count,
            "ended": len(errors),
            "error": errors[:1],
        }
        print(json.dumps(answer), flush=True)
        os._exit(0)

    async def run() -> None:
        tasks = [asyncio.ensure_future(tick())]
        memory = process.memory_info().rss
        tasks += [asyncio.ensure_future(follow(number)) for number in range(count)]
        threading.Thread(target=watch, args=(memory,), daemon=True).start()
        await asyncio.gather(*tasks)

    asyncio.run(run())


def asked() -> int:
    with urlopen(f"{os.environ['BENCHMARK_SERVER']}/count") as reply:
        return int(reply.read())


def wanted(kind: str, count: int) -> float:
    """Polls a second that the triggers would make if nothing held them up."""
    if kind != OURS_OWN:
        return count / INTERVAL
    from kling_integrations.core.schedule import Schedule

    schedule, rng, made = Schedule.expecting(MODEL, 5), random.Random(3), 0
    for number in range(count):
        age, now = rng.uniform(0.0, 170.0), INTERVAL * number / count
        while True:
            delay = schedule.next_delay(age, rng)
            now, age = now + delay, age + delay
            if now > INTERVAL + 1.0 + WINDOW:
                break
            made += now >= INTERVAL + 1.0
            now, age = now + REPLY, age + REPLY
    return made / WINDOW


# --- the table ---------------------------------------------------------------------------------


def measure(kind: str, count: int, server: str) -> str:
    port = server.rsplit(":", 1)[1]
    with tempfile.TemporaryDirectory() as home:
        environment = {
            **os.environ,
            "BENCHMARK_SERVER": server,
            "AIRFLOW_HOME": home,
            "AIRFLOW_CONN_KLING_X": json.dumps(
                {"conn_type": "kling", "password": "benchmark", "host": server}
            ),
            "AIRFLOW_CONN_OPENAI_X": json.dumps(
                {"conn_type": "openai", "password": "k", "host": f"{server}/v1"}
            ),
            "AIRFLOW_CONN_ANTHROPIC_X": json.dumps(
                {"conn_type": "anthropic", "password": "k", "host": server}
            ),
            "AIRFLOW_CONN_HTTP_X": f"http://127.0.0.1:{port}",
        }
        done = subprocess.run(
            [sys.executable, __file__, "--contend", kind, str(count)],
            env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    try:
        got = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        why = (done.stderr.strip().splitlines() or ["no output"])[-1][:120]
        return f"| {kind} | {count:,} | skipped: {why} | | | | | | |"
    want = wanted(kind, count)
    per_poll = f"{1000 * got['cpu'] * WINDOW / got['polls']:.2f}" if got["polls"] else "-"
    ended = f" ({got['ended']} ended: {got['error'][0]})" if got["ended"] else ""
    return (
        f"| {kind}{ended} | {count:,} | {want:.0f} | {got['asked']:.1f} | "
        f"{100 * got['asked'] / want:.0f} % | {1000 * got['lag']:.0f} | "
        f"{100 * got['cpu']:.1f} % | {per_poll} | {got['memory'] / 1000:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1,000 triggers only, ours only")
    parser.add_argument("--contend", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve()
    if options.contend:
        return contend(options.contend[0], int(options.contend[1]))
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        print(
            f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, "
            f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores\n"
        )
        print(
            "| trigger | triggers | wanted polls/s | asked polls/s | of wanted | lag p99 ms | "
            "CPU of a core | CPU ms per poll | kB per trigger |"
        )
        print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
        kinds = (OURS,) if options.quick else (OURS, HTTP, ANTHROPIC, OPENAI, OURS_OWN)
        for count in (1000,) if options.quick else (100, 1000, 5000):
            for kind in kinds:
                print(measure(kind, count, url), flush=True)
    finally:
        server.terminate()
        server.wait()
    return None


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    main()
