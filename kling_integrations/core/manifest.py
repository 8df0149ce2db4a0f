"""What was made, as one small JSON object: ``kling --json`` and Airflow's XCom say the same."""

from __future__ import annotations

from typing import Any

from . import settings
from .generation import Generation, Saved


def manifest(
    generation: Generation,
    *,
    base_url: str,
    model: str | None = None,
    path: str | None = None,
    saved: Saved | None = None,
    elapsed: float | None = None,
    polls: int | None = None,
) -> dict[str, Any]:
    """``{generation_id, status, model, path, usage, …}``; never a URL, which is a secret.

    ``elapsed_seconds`` counts from the submit to the finish noticed, ``polls`` the requests that
    this wait took; both are null where the finish was not watched. ``path`` is null without a
    download.
    """
    expires = generation.video.expires_at if generation.video else None
    return {
        "generation_id": generation.id,
        "status": generation.status.value,
        "model": model or generation.model,
        "path": path or (str(saved.path) if saved else None),
        "size": saved.size if saved else None,
        "sha256": saved.sha256 if saved else None,
        "url_expires_at": expires.isoformat() if expires else None,
        "usage": generation.usage.to_json() if generation.usage else {},
        "elapsed_seconds": None if elapsed is None else round(elapsed, 1),
        "polls": polls,
        "sandbox": settings.is_sandbox(base_url),
    }
