"""What a worker that is stopped says about what goes on without it."""

from __future__ import annotations

from typing import Any

from ..core.errors import NextStep, Verb
from ..core.submission import Record
from .hints import Kept, render


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
