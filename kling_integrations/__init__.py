"""Kling AI video generation in notebook cells and Airflow DAGs, through the AI/ML API gateway.

In a notebook, or for a look at once:

>>> import kling_integrations as kling
>>> clip = kling.generate("A white raccoon in a forest")  # doctest: +SKIP

In a program:

>>> from kling_integrations import KlingClient, VideoRequest
>>> with KlingClient() as client:  # doctest: +SKIP
...     generation = client.generate(VideoRequest(prompt="A white raccoon in a forest"))
...     client.download(generation, "raccoon.mp4")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .core.batch.job import BadRowsError
    from .core.errors import (
        AuthenticationError,
        DownloadError,
        GenerationFailedError,
        GenerationNotFoundError,
        InsufficientCreditsError,
        InvalidRequestError,
        KlingError,
        KlingWarning,
        LedgerError,
        LinkExpiredError,
        NextStep,
        RateLimitedError,
        ServerError,
        StoppedWaiting,
        SubmissionUncertainError,
        Verb,
        WaitTimeoutError,
    )
    from .core.generation import Failure, Generation, Saved, Status, Usage, Video
    from .core.http.async_client import AsyncKlingClient
    from .core.http.client import KlingClient
    from .core.progress import Progress
    from .core.recovery import Recovered
    from .core.request import VideoRequest
    from .core.schedule import Schedule
    from .core.storage.ledger import Ledger
    from .core.submission import Decision, Entry
    from .core.waiting import Patience
    from .jupyter.api import (
        History,
        configure,
        gallery,
        generate,
        history,
        recover,
        resume,
        show,
        submit,
        use_sandbox,
    )
    from .jupyter.clips import Clips
    from .jupyter.job import Job
    from .jupyter.table import batch, contact_sheet
    from .jupyter.video import KlingVideo

# Airflow imports DAG files again and again: each name loads its module when it is first used.
_HOMES = {
    "core.errors": (
        "AuthenticationError",
        "DownloadError",
        "GenerationFailedError",
        "GenerationNotFoundError",
        "InsufficientCreditsError",
        "InvalidRequestError",
        "KlingError",
        "KlingWarning",
        "LedgerError",
        "LinkExpiredError",
        "NextStep",
        "RateLimitedError",
        "ServerError",
        "StoppedWaiting",
        "SubmissionUncertainError",
        "Verb",
        "WaitTimeoutError",
    ),
    "core.generation": ("Failure", "Generation", "Saved", "Status", "Usage", "Video"),
    "core.http.async_client": ("AsyncKlingClient",),
    "core.http.client": ("KlingClient",),
    "core.progress": ("Progress",),
    "core.recovery": ("Recovered",),
    "core.request": ("VideoRequest",),
    "core.schedule": ("Schedule",),
    "core.storage.ledger": ("Ledger",),
    "core.submission": ("Decision", "Entry"),
    "core.waiting": ("Patience",),
    "core.batch.job": ("BadRowsError",),
    "jupyter.api": (
        "History",
        "configure",
        "gallery",
        "generate",
        "history",
        "recover",
        "resume",
        "show",
        "submit",
        "use_sandbox",
    ),
    "jupyter.clips": ("Clips",),
    "jupyter.job": ("Job",),
    "jupyter.table": ("batch", "contact_sheet"),
    "jupyter.video": ("KlingVideo",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AsyncKlingClient",
    "AuthenticationError",
    "BadRowsError",
    "Clips",
    "Decision",
    "DownloadError",
    "Entry",
    "Failure",
    "Generation",
    "GenerationFailedError",
    "GenerationNotFoundError",
    "History",
    "InsufficientCreditsError",
    "InvalidRequestError",
    "Job",
    "KlingClient",
    "KlingError",
    "KlingVideo",
    "KlingWarning",
    "Ledger",
    "LedgerError",
    "LinkExpiredError",
    "NextStep",
    "Patience",
    "Progress",
    "RateLimitedError",
    "Recovered",
    "Saved",
    "Schedule",
    "ServerError",
    "Status",
    "StoppedWaiting",
    "SubmissionUncertainError",
    "Usage",
    "Verb",
    "Video",
    "VideoRequest",
    "WaitTimeoutError",
    "__version__",
    "batch",
    "configure",
    "contact_sheet",
    "gallery",
    "generate",
    "history",
    "load_ipython_extension",
    "recover",
    "resume",
    "show",
    "submit",
    "unload_ipython_extension",
    "use_sandbox",
]


def names_in(part: str) -> list[str]:
    """The public names whose home is in that part of the package, such as ``jupyter``."""
    return [name for name, home in _HOME_OF.items() if home.startswith(f"{part}.")]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext kling_integrations``: adds ``%%kling`` and ``%kling``."""
    from .jupyter import load_ipython_extension as load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """``%unload_ext kling_integrations``: removes them and ends the watcher."""
    from .jupyter import unload_ipython_extension as unload

    unload(shell)
