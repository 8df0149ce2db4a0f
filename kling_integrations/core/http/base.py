"""What both clients are made of: the gateway, the key, the clock and the flows of the verbs."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable

from .. import settings
from ..concealed import secret
from ..errors import KlingWarning, SubmittingEndedError
from ..flows import Flows, SubmissionLedger
from ..generation import Status
from ..progress import Progress
from ..protocol import Endpoint
from ..waiting import Patience

OnUpdate = Callable[[Progress], object]
"""Called with a Progress at each change of a wait; ``print`` works."""


class BaseClient:
    """A gateway, a key for it, and what is remembered of both. See the two clients."""

    def __init__(
        self,
        api_key: str | None,
        base_url: str | None,
        *,
        timeout: float,
        legacy_endpoint: bool | None,
        ledger: SubmissionLedger | None,
        patience: Patience | None,
    ) -> None:
        api_key = secret(api_key)  # no traceback that shows local variables may show it
        base_url = settings.base_url(base_url)
        self.endpoint = Endpoint(
            base_url,
            settings.api_key(api_key, base_url),
            settings.legacy_endpoint(legacy_endpoint),
        )
        self.clock = settings.clock_for(self.endpoint.base_url)
        self.timeout = timeout
        self.ledger = ledger
        self.patience = patience or Patience()
        self._flows = Flows(self.endpoint, self.clock, self.patience, ledger)
        self._submitting_ended = threading.Event()

    def end_submitting(self) -> None:
        """From now on no POST leaves: a submit raises SubmittingEndedError.

        One that has left is waited for, and its reply recorded. Any thread may call it, and the
        handler of a signal.
        """
        self._submitting_ended.set()

    def check_submitting(self) -> None:
        """Raises SubmittingEndedError after ``end_submitting``; asked before each POST."""
        if self._submitting_ended.is_set():
            raise SubmittingEndedError("Stopped before this was submitted: nothing was paid.")

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


def report(progress: Progress, on_update: OnUpdate | None) -> None:
    """Hands a progress to the caller; without ``on_update`` an odd status is a warning."""
    if on_update:
        on_update(progress)
    elif progress.note and progress.status is Status.UNKNOWN:
        warnings.warn(progress.note, KlingWarning, stacklevel=6)
