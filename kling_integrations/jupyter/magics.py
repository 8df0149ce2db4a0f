"""``%%kling`` and ``%kling``: thin, so that ``%load_ext`` is quick; others do the work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from types import FrameType
from typing import Any, cast

from IPython.core.magic import Magics, magics_class
from traitlets import Bool, CaselessStrEnum, Float, Int, TraitError, Unicode, observe, validate

from ..core.errors import InvalidRequestError
from .completion import install, uninstall
from .frontend import notebook_folder
from .options import CHOICES, Notebook, Options, check, loaded, set_loaded, share_ledger

_loaded: KlingMagics | None = None


def load(shell: Any) -> None:
    """Adds the magics and the completion to a shell; again changes nothing."""
    global _loaded  # noqa: PLW0603 (one kernel, one set of magics)
    if _loaded is None or _loaded.shell is not shell:
        earlier = loaded()  # of videos that were asked for before: they keep their session
        _loaded = KlingMagics(shell)
        if earlier is not None:
            _loaded.take_over(earlier.options)
        _loaded.register()
        set_loaded(_loaded.notebook)
        install(shell)


def unload(shell: Any) -> None:
    """Takes both away and ends the watcher; generations go on at the gateway."""
    global _loaded  # noqa: PLW0603
    if _loaded is not None:
        uninstall(shell)
        _loaded.unregister()
        from .session import end

        end()
        set_loaded(None)
        _loaded = None


_OPTIONS = {
    option.name: {"default_value": option.default, "help": option.metadata["help"]}
    for option in fields(Options)
}


@magics_class
class KlingMagics(Magics):
    """Kling videos in a notebook. ``%config KlingMagics`` lists what can be set."""

    default_model = Unicode(**_OPTIONS["default_model"]).tag(config=True)
    output_dir = Unicode(**_OPTIONS["output_dir"]).tag(config=True)
    ui = CaselessStrEnum(CHOICES["ui"], **_OPTIONS["ui"]).tag(config=True)
    embed = CaselessStrEnum(CHOICES["embed"], **_OPTIONS["embed"]).tag(config=True)
    embed_limit_mb = Float(**_OPTIONS["embed_limit_mb"]).tag(config=True)
    width = Int(**_OPTIONS["width"]).tag(config=True)
    timeout = Float(**_OPTIONS["timeout"]).tag(config=True)
    at_once = Int(**_OPTIONS["at_once"]).tag(config=True)
    max_cost = Float(allow_none=True, **_OPTIONS["max_cost"]).tag(config=True)
    confirm_above = Float(**_OPTIONS["confirm_above"]).tag(config=True)
    ledger = Unicode(**_OPTIONS["ledger"]).tag(config=True)
    short_errors = Bool(**_OPTIONS["short_errors"]).tag(config=True)

    shell: Any

    def __init__(self, shell: Any) -> None:
        super().__init__(shell=shell)
        self.notebook = Notebook(
            options=cast(Options, self),  # the traits have the names of its fields
            shell=shell,
            folder=notebook_folder(shell),
            magics=True,
        )

    def take_over(self, options: Options) -> None:
        """What was set before the extension was loaded."""
        for option in fields(Options):
            value = getattr(options, option.name)
            if value != option.default:
                setattr(self, option.name, value)

    # --- traits ----------------------------------------------------------------------------

    @validate(
        "output_dir",
        "width",
        "at_once",
        "timeout",
        "embed_limit_mb",
        "max_cost",
        "confirm_above",
        "ledger",
    )
    def _check(self, proposal: Any) -> Any:
        try:
            return check(proposal["trait"].name, proposal["value"])
        except InvalidRequestError as error:
            raise TraitError(error.message) from None

    @observe("ledger")
    def _share_ledger(self, change: Any) -> None:
        share_ledger(change["new"])

    @observe("at_once")
    def _pass_at_once(self, change: Any) -> None:
        from .session import started

        if session := started():
            session.watcher.at_once = change["new"]

    # --- the magics ------------------------------------------------------------------------

    def cell(self, line: str, body: str, *, local_ns: Given | None = None) -> Any:
        """``%%kling``: flags on its line, the prompt as its body."""

        def work(names: Mapping[str, Any]) -> Any:
            from .cell_magic import run

            return run(line, body, names)

        return self._guarded(work, sys._getframe(1), local_ns)

    def line(self, line: str, *, local_ns: Given | None = None) -> Any:
        """``%kling SUBCOMMAND``."""

        def work(names: Mapping[str, Any]) -> Any:
            from .line_magic import run

            return run(line, names)

        return self._guarded(work, sys._getframe(1), local_ns)

    def _guarded(
        self,
        work: Callable[[Mapping[str, Any]], Any],
        frame: FrameType,
        local_ns: Given | None,
    ) -> Any:
        """Mistakes of a user or the gateway leave as short, real errors. ``work`` gets the names
        that the calling code sees."""
        from ..core.errors import KlingError, StoppedWaiting
        from .errors import presentable
        from .templating import names_at

        try:
            return work(names_at(frame, local_ns.get() if local_ns else None, self.shell.user_ns))
        except (KlingError, StoppedWaiting) as error:
            raise presentable(error) from (None if self.short_errors else error.__cause__)

    def register(self) -> None:
        """Adds both to the shell."""
        functions = {"cell": Magic(self.cell, _cell_help), "line": Magic(self.line, _line_help)}
        for kind, function in functions.items():
            self.shell.magics_manager.register_function(function, kind, "kling")

    def unregister(self) -> None:
        """Takes both away."""
        for kind in ("line", "cell"):
            self.shell.magics_manager.magics[kind].pop("kling", None)
        if self in self.shell.configurables:
            self.shell.configurables.remove(self)


class Given:
    """The names that IPython hands over, out of sight."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = names

    def get(self) -> Mapping[str, Any]:
        return self._names


class Magic:
    """A magic whose help is written when it is asked for (``%%kling?``)."""

    _ipython_magic_no_var_expand = True  # its own expansion is strict: see templating
    needs_local_scope = True  # IPython hands over the caller's names: of lines only, see names_at

    def __init__(self, function: Callable[..., Any], help_text: Callable[[], str]) -> None:
        self._function = function
        self._help_text = help_text
        self.__name__ = "kling"

    def __call__(self, *args: str, local_ns: Mapping[str, Any] | None = None) -> Any:
        # Tracebacks that show variables would show all of a user's, keys in the history included.
        names, local_ns = None if local_ns is None else Given(local_ns), None
        return self._function(*args, local_ns=names)

    def getdoc(self) -> str:
        return self._help_text()


def _cell_help() -> str:
    from .cell_magic import cell_parser

    return cell_parser().format_help()


def _line_help() -> str:
    from .line_magic import line_parser

    return line_parser().format_help()
