"""What a row's result says where its run ended before it did. No I/O."""

from __future__ import annotations

from ..errors import KlingError
from .plan import Need, Step
from .results import Result, RowStatus

Ending = tuple[RowStatus, str, str]
"""Status, kind and message of a result."""


def not_reached(
    step: Step, *, interrupted: bool, stopped: KlingError | None, trouble: str = ""
) -> Ending:
    """For a row whose turn did not come. ``stopped``: why nothing more was submitted;
    ``trouble``: why what is in doubt could not be looked up."""
    if step.need is Need.LOOK_UP:
        text = "a POST of it has no known outcome, and " + (
            trouble or "the gateway's log does not name it"
        )
        return RowStatus.UNCERTAIN, "uncertain", text
    if step.need is Need.ATTACH:
        kind = "interrupted" if interrupted else "stopped"
        return RowStatus.RUNNING, kind, "it was not waited for"
    if interrupted:
        return RowStatus.NOT_SUBMITTED, "interrupted", "the run was interrupted"
    if stopped is not None:
        return RowStatus.NOT_SUBMITTED, "stopped", stopped.message
    return RowStatus.NOT_SUBMITTED, "budget", "it does not fit into what the batch may cost"


def cut_off(result: Result) -> Ending:
    """For a row that was interrupted on its way."""
    if result.status == RowStatus.COMPLETED:
        return RowStatus.COMPLETED, "interrupted", "its video was not saved"
    if result.generation_id:
        return RowStatus.RUNNING, "interrupted", "it was not waited for"
    # in the middle of the POST
    return RowStatus.UNCERTAIN, "interrupted", "its POST was not waited for"
