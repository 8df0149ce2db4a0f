"""A coroutine run to its end from ordinary code, also where an event loop runs already."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_to_end(
    work: Callable[[], Coroutine[Any, Any, T]],
    meanwhile: Callable[[], object] | None = None,
    every: float = 0.25,
) -> T:
    """Runs it in a loop and thread of its own, and returns or raises what it does.

    ``meanwhile`` is called by the caller's thread, every so many seconds while it waits.

    A KeyboardInterrupt cancels it, as often as one comes, and is not raised: the work says what it
    left. A notebook's thread has a loop already, and one of the user's signals may come at any
    moment; in a thread neither gets in the way.
    """
    ended: list[T] = []
    raised: list[BaseException] = []
    started, over = threading.Event(), threading.Event()
    loop: asyncio.AbstractEventLoop | None = None
    task: asyncio.Task[T] | None = None

    async def main() -> T:
        nonlocal loop, task
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work())
        started.set()
        return await task

    def body() -> None:
        try:
            ended.append(asyncio.run(main()))
        except BaseException as error:  # noqa: BLE001 (raised in the caller's thread)
            raised.append(error)
        finally:
            started.set()
            over.set()

    threading.Thread(target=body, name="kling-batch", daemon=True).start()
    while not over.is_set():  # not join(): interrupted, it can take a thread for ended
        try:
            over.wait(every if meanwhile else None)
            if meanwhile and not over.is_set():
                meanwhile()
        except KeyboardInterrupt:
            started.wait()
            if loop is not None and task is not None and not task.done():
                loop.call_soon_threadsafe(task.cancel)
    if raised:
        if isinstance(raised[0], asyncio.CancelledError):
            raise KeyboardInterrupt
        raise raised[0]
    return ended[0]
