"""Hundreds of waits in one loop: all done, few connections, little memory, not all at once."""

import asyncio
import math
import random
import tracemalloc

from kling_integrations import AsyncKlingClient, Status
from kling_integrations.core.generation import Generation
from kling_integrations.core.payloads import Reply
from kling_integrations.core.protocol import Endpoint
from kling_integrations.core.schedule import Schedule
from kling_integrations.core.waiting import Ask, Patience, Sleep, waiting
from kling_integrations.sandbox import Sandbox


async def test_all_of_many_generations_end_completed_over_few_connections(sandbox, raccoon):
    async with AsyncKlingClient("sandbox", sandbox.base_url, connections=8) as client:
        await client.balance()
        before = sandbox.connections
        generations = await asyncio.gather(*(client.submit(raccoon) for _ in range(150)))
        # Each POST has a connection of its own; the polls share what there is.
        assert sandbox.connections - before == 150
        done = await asyncio.gather(*(client.wait(each.id) for each in generations))
        assert sandbox.connections - before <= 150 + 8
    assert {each.id for each in done} == set(sandbox.jobs)
    assert all(each.status is Status.COMPLETED for each in done)
    assert sandbox.paid == 150


def test_generations_submitted_together_are_not_asked_for_together():
    endpoint, rng = Endpoint("https://gateway.example", "key"), random.Random(4)
    schedule = Schedule.expecting("v2.5-turbo-pro", 5)
    running = Reply(200, {}, b'{"id": "x", "status": "generating"}')
    asks: dict[int, list[float]] = {1: [], 2: [], 3: []}
    for number in range(500):
        moment = [0.0]
        steps = waiting(
            endpoint,
            Generation(id=str(number), status=Status.QUEUED),
            schedule=schedule,
            now=lambda moment=moment: moment[0],
            elapsed=0.0,
            timeout=3600.0,
            patience=Patience(),
            rng=rng,
        )
        action = next(steps)
        for time in asks:
            while not isinstance(action, Ask):
                moment[0] += action.seconds if isinstance(action, Sleep) else 0.0
                action = steps.send(None)
            asks[time].append(moment[0])
            action = steps.send(running)
    for time, moments in asks.items():
        busiest = max(sum(m <= other < m + 0.1 for other in moments) for m in moments)
        assert busiest <= 500 / 10, f"{busiest} of 500 asked within 0.1 s, the {time}. time"


async def test_a_waiting_generation_takes_less_than_20_kb(raccoon):
    count, asleep, all_asleep = 200, 0, asyncio.Event()

    def look(progress):
        nonlocal asleep
        if progress.polls == 1:  # seen running once: what follows is a long sleep
            asleep += 1
            if asleep == count:
                all_asleep.set()

    with Sandbox(speed=1000, seconds=math.inf) as box:
        async with AsyncKlingClient("sandbox", box.base_url, connections=4) as client:
            generations = [await client.submit(raccoon) for _ in range(count)]
            await client.get(generations[0].id)  # the connections and the modules are there
            tracemalloc.start()
            try:
                before, _ = tracemalloc.get_traced_memory()
                waits = [
                    asyncio.ensure_future(
                        client.wait(
                            each.id, schedule=Schedule.fixed(1e9), timeout=1e9, on_update=look
                        )
                    )
                    for each in generations
                ]
                await asyncio.wait_for(all_asleep.wait(), 60)
                after, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
    assert (after - before) / count < 20_000
