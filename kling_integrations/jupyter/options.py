"""How the notebook of this kernel behaves, and where it is.

``%load_ext`` sets the one ``Notebook`` that a kernel has; everything else here may ask for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import InvalidRequestError


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class Options:
    """The options and their defaults; ``%config KlingMagics`` sets traits of the same names."""

    default_model: str = _option("", "Model id or alias where a cell names none.")
    output_dir: str = _option(
        "kling_outputs", "Folder of the videos, beside the notebook; not a hidden one."
    )
    ui: str = _option(
        "auto",
        "widget: card and live strip; html: card only; text: lines (logs, terminals).",
    )
    embed: str = _option(
        "auto",
        "Whether a notebook holds its videos' bytes. auto: only where a link cannot work.",
    )
    embed_limit_mb: float = _option(8.0, "auto embeds no larger files (MB).")
    width: int = _option(480, "Width of a player in pixels.")
    timeout: float = _option(3600.0, "Seconds that a cell waits; the generation goes on.")
    at_once: int = _option(5, "Generations side by side; more wait for a slot.")
    max_cost: float | None = _option(None, "USD that no single cell may be expected to exceed.")
    confirm_above: float = _option(1.0, "USD above which a batch asks for --yes.")
    ledger: str = _option(
        "", "A ledger that a team shares (s3://bucket/prefix, file:///…), as KLING_LEDGER does."
    )
    short_errors: bool = _option(True, "False shows full tracebacks.")


def _no_session() -> Any:
    raise InvalidRequestError(
        "There is no session yet.", hint="Run this first: %load_ext kling_integrations"
    )


@dataclass(frozen=True)
class Notebook:
    """The notebook of a kernel: its shell, the folder that holds it, and its options.

    ``options`` is read anew each time: they may change any time. ``session()`` gives the Session,
    which lies above this module and is made when it is first needed.
    """

    options: Options = field(default_factory=Options)
    shell: Any = None
    folder: Path = field(default_factory=Path.cwd)
    session: Callable[[], Any] = _no_session

    @property
    def variables(self) -> dict[str, Any]:
        """The user's variables."""
        names: dict[str, Any] = self.shell.user_ns
        return names

    def assign(self, name: str | None, value: Any) -> None:
        """Puts a result or a job into the variable, where one is named, and into ``_kling``."""
        self.shell.push({"_kling": value} | ({name: value} if name else {}))


_loaded: Notebook | None = None


def set_loaded(notebook: Notebook | None) -> None:
    """For ``%load_ext`` and ``%unload_ext``."""
    global _loaded  # noqa: PLW0603 (one kernel, one notebook)
    _loaded = notebook


def loaded() -> Notebook | None:
    """The notebook of this kernel; None before ``%load_ext``."""
    return _loaded


def notebook() -> Notebook:
    """The notebook of this kernel, else one with the defaults in the current folder."""
    return _loaded or Notebook()


def options() -> Options:
    """What the user has set, else the defaults."""
    return notebook().options
