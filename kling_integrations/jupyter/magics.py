"""``%%kling`` and ``%kling``: thin, so that ``%load_ext`` is quick; the work is in ``cell``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, magics_class
from traitlets import Bool, CaselessStrEnum, Float, Int, TraitError, Unicode, observe, validate

from .place import notebook_folder

if TYPE_CHECKING:
    from .session import Session


@magics_class
class KlingMagics(Magics):
    """Kling videos in a notebook. ``%config KlingMagics`` lists what can be set."""

    default_model = Unicode("", help="Model id or alias where a cell names none.").tag(config=True)
    output_dir = Unicode(
        "kling_outputs", help="Folder of the videos, beside the notebook; not a hidden one."
    ).tag(config=True)
    ui = CaselessStrEnum(
        ["auto", "widget", "html", "text"],
        "auto",
        help="widget: card and live strip; html: card only; text: lines (logs, terminals).",
    ).tag(config=True)
    embed = CaselessStrEnum(
        ["auto", "always", "never"],
        "auto",
        help="Whether a notebook holds its videos' bytes. auto: only where a link cannot work.",
    ).tag(config=True)
    embed_limit_mb = Float(8.0, help="auto embeds no larger files (MB).").tag(config=True)
    width = Int(480, help="Width of a player in pixels.").tag(config=True)
    timeout = Float(3600.0, help="Seconds that a cell waits; the generation goes on.").tag(
        config=True
    )
    at_once = Int(5, help="Generations side by side; more are lined up.").tag(config=True)
    max_cost = Float(
        None, allow_none=True, help="USD that no single cell may be expected to exceed."
    ).tag(config=True)
    confirm_above = Float(1.0, help="USD above which a batch asks for --yes.").tag(config=True)
    short_errors = Bool(True, help="False shows full tracebacks.").tag(config=True)

    shell: Any

    def __init__(self, shell: Any) -> None:
        super().__init__(shell=shell)
        self.folder = notebook_folder(shell)
        self._session: Session | None = None

    @property
    def session(self) -> Session:
        """Made when it is first needed."""
        if self._session is None:
            from .session import Session

            self._session = Session(self, self.shell, self.folder)
        return self._session

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    # --- traits ----------------------------------------------------------------------------

    @validate("output_dir")
    def _check_output_dir(self, proposal: Any) -> str:
        folder = str(proposal["value"]).strip()
        parts = folder.replace("\\", "/").split("/")
        if not folder or any(part.startswith(".") and part not in (".", "..") for part in parts):
            raise TraitError("output_dir must not be hidden: Jupyter serves no such folder.")
        return folder

    @validate("width", "at_once", "timeout", "embed_limit_mb")
    def _check_positive(self, proposal: Any) -> Any:
        if proposal["value"] <= 0:
            raise TraitError(f"{proposal['trait'].name} must be more than 0.")
        return proposal["value"]

    @validate("max_cost", "confirm_above")
    def _check_sum(self, proposal: Any) -> Any:
        if proposal["value"] is not None and proposal["value"] < 0:
            raise TraitError(f"{proposal['trait'].name} must not be negative.")
        return proposal["value"]

    @observe("at_once")
    def _pass_at_once(self, change: Any) -> None:
        if getattr(self, "_session", None) is not None:
            self.session.watcher.at_once = change["new"]

    # --- the magics ------------------------------------------------------------------------

    def cell(self, text: str, body: str) -> Any:
        """``%%kling``: ``text`` is its line, ``body`` the prompt."""

        def work() -> Any:
            from . import cell

            return cell.run(self, text, body)

        return self._guarded(work)

    def line(self, text: str) -> Any:
        """``%kling SUBCOMMAND``."""

        def work() -> Any:
            from . import line

            return line.run(text, self)

        return self._guarded(work)

    def _guarded(self, work: Callable[[], Any]) -> Any:
        """Mistakes of a user or the gateway leave as short, real errors."""
        from ..core.errors import KlingError, StoppedWaiting
        from . import errors

        errors.short = self.short_errors
        try:
            return work()
        except (KlingError, StoppedWaiting) as error:
            raise errors.presentable(error) from (None if errors.short else error.__cause__)

    def register(self) -> None:
        """Adds both to the shell."""
        functions = {"cell": Magic(self.cell, _cell_help), "line": Magic(self.line, _line_help)}
        for kind, function in functions.items():
            self.shell.magics_manager.register_function(function, kind, "kling")

    def unregister(self) -> None:
        for kind in ("line", "cell"):
            self.shell.magics_manager.magics[kind].pop("kling", None)
        if self in self.shell.configurables:
            self.shell.configurables.remove(self)


class Magic:
    """A magic whose help is written when somebody asks for it (``%%kling?``)."""

    _ipython_magic_no_var_expand = True  # its own expansion is strict: see fill

    def __init__(self, function: Callable[..., Any], told: Callable[[], str]) -> None:
        self._function = function
        self._told = told
        self.__name__ = "kling"

    def __call__(self, *args: str) -> Any:
        return self._function(*args)

    def getdoc(self) -> str:
        return self._told()


def _cell_help() -> str:
    from .cell import cell_parser

    return cell_parser().format_help()


def _line_help() -> str:
    from .line import parser

    return parser().format_help()
