"""What a task may cost: asked of the gateway's price list before anything is submitted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core import cost

if TYPE_CHECKING:
    from ..core.http.client import KlingClient
    from ..core.request import VideoRequest


def within_limit(
    client: KlingClient, request: VideoRequest, max_cost_usd: object, log: Any
) -> float | None:
    """USD that the request will cost; None without a limit: the price is asked for later then.

    It must not stand in the way of a video. Raises InvalidRequestError, as ``cost.check_cost``.
    """
    limit = cost.limit(max_cost_usd)
    if limit is None:
        return None
    expected = cost.check_cost(request, client.prices(request.model), limit)
    log.info("Expected to cost %s (at most %s).", expected, cost.dollars(limit))
    return expected.usd
