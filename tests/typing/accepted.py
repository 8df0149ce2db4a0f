"""What a type checker must accept: the public names as a user writes them."""

import asyncio
from pathlib import Path

from kling_integrations import (
    AsyncKlingClient,
    Decision,
    Entry,
    Failure,
    Generation,
    KlingClient,
    KlingError,
    Ledger,
    NextStep,
    Patience,
    Progress,
    Recovered,
    Saved,
    Schedule,
    Status,
    Usage,
    Verb,
    Video,
    VideoRequest,
)

request = VideoRequest(model="v2.5-turbo-pro", prompt="A raccoon", duration=5, shot_type="single")


def show(progress: Progress) -> None:
    text: str = progress.pace
    share: float = progress.fraction
    print(text, share, progress.status is Status.QUEUED)


def received(count: int, total: int | None) -> None:
    print(count, total)


def script(ledger: Ledger) -> Path:
    with KlingClient(ledger=ledger, patience=Patience(outage=60.0), timeout=30.0) as client:
        generation: Generation = client.generate(request, on_update=show, timeout=600.0, take=2)
        video: Video | None = generation.video
        usage: Usage | None = generation.usage
        failure: Failure | None = generation.error
        print(video, usage, failure)
        saved: Saved = client.save(generation, "clip.mp4", progress=received, overwrite=False)
        print(saved.sha256.upper(), saved.size + 1)
        again = client.wait(generation.id, schedule=Schedule.fixed(5.0), elapsed=12.0)
        found: list[Recovered] = client.recover()
        print(found, client.find_submission("kling-1", 0.0), client.base_url.upper())
        decision: Decision = ledger.preview(request, client.base_url, take=2)
        entry: Entry | None = decision.entry
        print(decision.pays, entry)
        return client.download(again, Path("clip.mp4"))


async def program() -> Path:
    async with AsyncKlingClient(connections=10, max_requests_per_second=5.0) as client:
        generation: Generation = await client.submit(request, client_request_id="kling-1")
        done = await client.wait(generation.id, on_update=print, poll_interval=10.0)
        return await client.download(done.id, "clip.mp4")


def next_steps(error: KlingError) -> list[NextStep]:
    return [step for step in error.next_steps if step.verb is Verb.WAIT]


asyncio.run(program())
