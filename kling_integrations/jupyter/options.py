"""How the notebook of this process behaves, and where it is.

There is one ``Notebook``: made by ``%load_ext``, else by the first video that is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from math import inf
from pathlib import Path
from typing import Any

from ..core.errors import InvalidRequestError, LedgerError


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


CHOICES = {"ui": ("auto", "widget", "html", "text"), "embed": ("auto", "always", "never")}


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


def check(name: str, value: Any) -> Any:
    """The value of an option, in its normal form. Raises InvalidRequestError for what is none."""
    known = {option.name for option in fields(Options)}
    if name not in known:
        raise InvalidRequestError(f"There is no option {name}: there are {', '.join(known)}.")
    if name == "output_dir":
        return _visible_folder(value)
    kinds = {"width": int, "at_once": int, "timeout": float, "embed_limit_mb": float}
    if name in (*kinds, "confirm_above") and (
        isinstance(value, bool) or not isinstance(value, (int, kinds.get(name, float)))
    ):
        raise InvalidRequestError(f"{name} is a number, not {value!r}.")
    if name in kinds:
        if not 0 < value < inf:  # NaN is neither
            raise InvalidRequestError(f"{name} must be more than 0.")
    elif name == "confirm_above":
        if not value >= 0:  # NaN is not
            raise InvalidRequestError(f"{name} must not be negative.")
    elif name == "max_cost":
        from ..core.cost import limit  # a third of what loading the extension would take

        return limit(value, name)
    elif name == "ledger" and value:
        from ..core.storage.ledger import Ledger

        try:
            Ledger(value).history(1)
        except (InvalidRequestError, LedgerError) as error:
            raise InvalidRequestError(f"ledger: {error.message}") from None
    elif name in CHOICES and value not in CHOICES[name]:
        raise InvalidRequestError(f"{name} is one of {', '.join(CHOICES[name])}, not {value!r}.")
    return value


def share_ledger(source: str) -> None:
    """For all that asks the environment, commands in the shell of a cell included."""
    if source:
        os.environ["KLING_LEDGER"] = source
    else:
        os.environ.pop("KLING_LEDGER", None)


def _visible_folder(value: Any) -> str:
    from ..core.storage.file_names import local_target  # which few need

    if isinstance(value, str) and not value.strip():
        raise InvalidRequestError("output_dir names a folder: it is empty.")
    folder = local_target(value).strip()
    parts = folder.replace("\\", "/").split("/")
    if not folder or any(part.startswith(".") and part not in (".", "..") for part in parts):
        raise InvalidRequestError("output_dir must not be hidden: Jupyter serves no such folder.")
    return folder


@dataclass(frozen=True)
class Notebook:
    """The notebook of a process: its shell, the folder that holds it, and its options.

    ``shell`` is that of IPython, None in marimo and in a script. ``magics`` says whether
    ``%kling`` is there. ``options`` is read anew each time: they may change any time.
    """

    options: Options = field(default_factory=Options)
    shell: Any = None
    folder: Path = field(default_factory=Path.cwd)
    magics: bool = False

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
    """For ``%load_ext``, ``%unload_ext`` and the session."""
    global _loaded  # noqa: PLW0603 (one kernel, one notebook)
    _loaded = notebook


def loaded() -> Notebook | None:
    """The notebook of this process; None before ``%load_ext`` and before the first video."""
    return _loaded


def notebook() -> Notebook:
    """The notebook of this process, else one with the defaults in the current folder."""
    return _loaded or Notebook()


def options() -> Options:
    """What the user has set, else the defaults."""
    return notebook().options


_make_session: Callable[[], Any] | None = None


def set_session(make: Callable[[], Any]) -> None:
    """For the session's module, which lies above those that need it: how to get the session."""
    global _make_session  # noqa: PLW0603
    _make_session = make


def session() -> Any:
    """The Session of this process, made when it is first needed."""
    assert _make_session is not None, "every public way to a video imports the session"
    return _make_session()
