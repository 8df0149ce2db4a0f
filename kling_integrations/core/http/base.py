"""What both clients are made of: the gateway, the key, the clock and the flows of the verbs."""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Callable
from datetime import timedelta
from numbers import Integral

from .. import settings
from ..concealed import secret
from ..errors import InvalidRequestError, StoppedWaiting, SubmittingEndedError, warn
from ..flows import Flows, SubmissionLedger
from ..generation import Status
from ..payloads import id_or_empty
from ..progress import Progress
from ..protocol import Call, Endpoint
from ..request import VideoRequest
from ..schedule import Schedule
from ..waiting import Patience, seconds
from . import network

OnUpdate = Callable[[Progress], object]
"""Called with a Progress at each change of a wait; ``print`` works."""

EXCHANGE_TIMEOUT = 60.0
"""Seconds for one HTTP exchange, where nothing else is asked for."""


class Submission:
    """A submit under way. ``stop`` asks it to end before its next POST."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.client_request_id: str | None = None
        """Of the POST that left last; None: not a byte of one has."""
        self.is_under_way = False  # a POST has left, and its reply has not come
        self.can_be_cut = False  # on an event loop, by a cancellation

    def check(self) -> None:
        """Raises StoppedWaiting once a stop was asked for: nothing was taken until here."""
        if self.stop.is_set():
            raise StoppedWaiting()

    def leave(self, call: Call) -> None:
        """Right before the first byte of a POST; raises as ``check``."""
        self.check()
        self.is_under_way, self.can_be_cut = True, False
        self.client_request_id = call.headers.get("X-Client-Request-Id")


class BaseClient:
    """A gateway, a key for it, and what is remembered of both. See the two clients."""

    def __init__(
        self,
        api_key: str | None,
        base_url: str | None,
        *,
        timeout: float | timedelta | None,
        legacy_endpoint: bool | None,
        ledger: SubmissionLedger | None,
        patience: Patience | None,
    ) -> None:
        api_key = secret(api_key)  # no traceback that shows local variables may show it
        base_url = settings.base_url(base_url)
        if ledger is not None and not hasattr(ledger, "claim"):
            raise InvalidRequestError(f"ledger is a Ledger(), not {ledger!r:.60}.")
        if patience is not None and not isinstance(patience, Patience):
            raise InvalidRequestError(f"patience is a Patience(), not {patience!r:.60}.")
        self.endpoint = Endpoint(
            base_url,
            settings.api_key(api_key, base_url),
            settings.legacy_endpoint(legacy_endpoint),
        )
        self.clock = settings.clock_for(self.endpoint.base_url)
        self.timeout = seconds(timeout, "timeout", none=EXCHANGE_TIMEOUT, above=True)
        self.ledger = ledger
        self.patience = patience or Patience()
        self._flows = Flows(self.endpoint, self.clock, self.patience, ledger)
        self._submitting_ended = threading.Event()
        _CLIENTS.add(self)

    def _check_before_submit(
        self, request: object, take: object, asked: object, new: object
    ) -> None:
        """What no record has to be written for: no POST could leave. ``asked``: its own id."""
        check_submit(request, take, asked)
        check_new(new)
        self.check_submitting()
        network.check(self.base_url)

    def end_submitting(self) -> None:
        """From now on no POST leaves: a submit raises SubmittingEndedError.

        One that has left is waited for, and its reply recorded. Any thread may call it, and the
        handler of a signal.
        """
        self._submitting_ended.set()

    def check_submitting(self) -> None:
        """Raises SubmittingEndedError after ``end_submitting``: asked before each POST."""
        if self._submitting_ended.is_set():
            raise SubmittingEndedError("Stopped before this was submitted: nothing was paid.")

    def leave(
        self, call: Call, before: Callable[[], None] | None, submission: Submission | None
    ) -> None:
        """All that is asked once the connection for a POST stands; what it raises stops it."""
        self.check_submitting()
        if before is not None:
            before()
        if submission is not None:
            submission.leave(call)

    def after_fork(self) -> None:
        """In a child process: nothing of the parent's is used, neither connections nor locks.

        Two processes on one connection would read each other's replies.
        """
        self._flows.after_fork()
        ended, self._submitting_ended = self._submitting_ended, threading.Event()
        if ended.is_set():
            self._submitting_ended.set()

    @property
    def base_url(self) -> str:
        """The gateway's address."""
        return self.endpoint.base_url

    @property
    def is_sandbox(self) -> bool:
        """Whether the gateway is the sandbox, which costs nothing."""
        return settings.is_sandbox(self.base_url)

    def __repr__(self) -> str:
        endpoint = getattr(self, "endpoint", None)  # None while it is being made
        return f"{type(self).__name__}({endpoint.base_url if endpoint else '…'!r})"


_CLIENTS: weakref.WeakSet[BaseClient] = weakref.WeakSet()

PARENTS: list[object] = []
"""What a child process has from its parent: kept, as closing it would disturb the parent."""


def _in_child() -> None:
    for client in list(_CLIENTS):
        client.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def check_wait(
    timeout: object,
    poll_interval: object,
    on_update: object = None,
    schedule: object = None,
    elapsed: object = None,
) -> tuple[float, float]:
    """The seconds to wait (endless for None) and those between two polls (0: as the schedule says).

    Looked at before anything is paid. Raises InvalidRequestError.
    """
    check_callable(on_update, "on_update")
    if schedule is not None and not isinstance(schedule, Schedule):
        raise InvalidRequestError(f"schedule is a Schedule, not {schedule!r:.60}.")
    seconds(elapsed, "elapsed")
    interval = seconds(poll_interval, "poll_interval", none=0.0)
    if interval == math.inf:
        raise InvalidRequestError("poll_interval is a finite number of seconds.")
    return seconds(timeout, "timeout"), interval


def check_callable(value: object, name: str) -> None:
    if value is not None and not callable(value):
        raise InvalidRequestError(f"{name} is a function to call, not {value!r:.60}.")


def check_take(take: object) -> None:
    if isinstance(take, bool) or not isinstance(take, Integral) or int(take) < 1:
        raise InvalidRequestError(f"take is a whole number from 1 on, not {take!r:.60}.")


def check_new(new: object) -> None:
    """The text "false" of an environment is true, and would pay for another video."""
    if not isinstance(new, bool):
        raise InvalidRequestError(f"new is True or False, not {new!r:.60}.")


def check_submit(request: object, take: object, client_request_id: object) -> None:
    if not isinstance(request, VideoRequest):
        raise InvalidRequestError(
            f"What is submitted is a VideoRequest(prompt=…), not {request!r:.60}."
        )
    check_take(take)
    if client_request_id is not None:
        text = client_request_id if isinstance(client_request_id, str) else ""
        if not text.isascii() or not id_or_empty(text) or text != text.strip():
            raise InvalidRequestError(
                f"client_request_id is text of one line in ASCII, not {client_request_id!r:.60}."
            )


def report(progress: Progress, on_update: OnUpdate | None) -> None:
    """Hands a progress to the caller; without ``on_update`` what is odd is a warning.

    What cannot be shown is not shown: a closed or full stdout, or one of another encoding, ends no
    wait for what is paid. Anything else that ``on_update`` raises is the caller's own.
    """
    if on_update is None:
        odd = progress.status is Status.UNKNOWN or progress.status.is_terminal
        if progress.trouble or (progress.note and odd):
            warn(progress.trouble or progress.note, stacklevel=7)
        return
    try:
        on_update(progress)
    except (OSError, ValueError) as error:
        if not _is_about_showing(error):
            raise
        warn(f"The progress cannot be shown ({error}); the wait goes on.", stacklevel=7)


def _is_about_showing(error: Exception) -> bool:
    if isinstance(error, OSError):
        return not isinstance(error, TimeoutError | InterruptedError)  # those of signal handlers
    return isinstance(error, UnicodeError) or "closed file" in str(error)
