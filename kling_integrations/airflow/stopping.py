"""The end of an attempt from outside: nothing is submitted from then on, and what goes on is said.

Airflow sends SIGTERM to a task that was marked, cleared or timed out. The handler calls the task's
``on_kill`` and returns, and the task goes on until SIGKILL, five seconds later: long enough for a
POST whose video no task waits for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from ..core.errors import NextStep, Verb
from ..core.submission import Record
from .hints import Kept, render

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ..core.http.base import BaseClient

    C = TypeVar("C", bound=BaseClient)
else:
    C = TypeVar("C")


class Stopping:
    """Whether the attempt that runs is over, and the clients that hear of it."""

    def __init__(self) -> None:
        self._is_over = False
        self._clients: list[BaseClient] = []
        self._attempt: tuple[Any, Any] | None = None

    def begin(self, context: Context) -> None:
        """At the start of an attempt: ``dag.test()`` has them all in one process."""
        ti: Any = context["ti"]
        attempt = (getattr(ti, "id", None), getattr(ti, "try_number", None))
        if self._attempt not in (None, attempt):  # on_kill may also come before the first begins
            self._is_over, self._clients = False, []
        self._attempt = attempt

    def watch(self, client: C) -> C:
        """The client, which submits no more once the attempt is over."""
        self._clients.append(client)
        if self._is_over:
            client.end_submitting()
        return client

    def end(self) -> None:
        """From a signal's handler, too."""
        self._is_over = True
        for client in self._clients:
            client.end_submitting()


def end_with_task(client: BaseClient, context: Context) -> None:
    """Lets a client that a task of the user's own uses submit no more once the task is killed."""
    task: Any = getattr(context["ti"], "task", None) or context.get("task")
    before = getattr(task, "on_kill", None)
    if before is None:
        return

    def on_kill() -> None:
        client.end_submitting()
        before()

    task.on_kill = on_kill


def what_goes_on(
    log: Any,
    kling_conn_id: str,
    kept: Kept | None,
    *,
    pending: Record | None,
    generation_id: str | None,
    delivered: bool,
) -> None:
    """Logs it: ``pending`` is a POST without an outcome, ``generation_id`` what is paid for."""
    if delivered:
        log.info("Generation %s is finished and delivered.", generation_id)
    elif pending:
        step = NextStep(Verb.RECOVER, client_request_id=pending.client_request_id)
        log.warning(
            "Stopped while a submission has no known outcome (client request id %s): it may "
            "have been taken and paid. %s",
            pending.client_request_id,
            render(step, kling_conn_id, kept=kept),
        )
    elif generation_id:
        log.warning(
            "Generation %s goes on at the gateway (there is no cancel) and is billed when it "
            "completes. %s",
            generation_id,
            render(NextStep(Verb.WAIT, generation_id), kling_conn_id, kept=kept),
        )
    else:
        log.warning("Stopped before anything was submitted.")
