"""What the notebook's frontend can show, and where the notebook is."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context, ContextVar
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from . import marimo_output
from .hosts import host
from .options import notebook
from .widget_support import can_show_widgets

log = logging.getLogger(__name__)

WIDGET, HTML, TEXT = "widget", "html", "text"

Bundle = tuple[dict[str, Any], dict[str, Any]]
"""What IPython displays: data by MIME type, and metadata."""

NOTHING: Bundle = ({}, {})
"""What a display is updated to that is to leave nothing: not even an empty line."""


class Ui(NamedTuple):
    """How a generation is displayed; with ``lines``, lines of text are printed as well."""

    kind: str  # WIDGET, HTML or TEXT
    lines: bool
    own_thread: bool = False  # only the thread of the cell can draw

    @property
    def has_cards(self) -> bool:
        """Whether anything but text can be shown."""
        return self.kind != TEXT


def choose_ui() -> Ui:
    """The display that the options ask for, as far as there is a frontend for it.

    A kernel that no server started for a notebook is executed headlessly (nbclient, papermill):
    there lines of text make the log, and the card makes the notebook.
    """
    here = notebook()
    wanted = here.options.ui
    if marimo_output.running():
        return _marimo_ui(wanted)
    if wanted == TEXT or not hasattr(here.shell, "kernel"):
        return Ui(TEXT, True)
    headless = not _has_frontend(here.shell)
    if wanted == "auto":
        return Ui(HTML if headless or not can_show_widgets() else WIDGET, headless)
    return Ui(HTML if wanted == WIDGET and find_spec("anywidget") is None else wanted, False)


def _marimo_ui(wanted: str) -> Ui:
    if wanted == TEXT:
        return Ui(TEXT, True)
    kind = HTML if wanted == HTML or find_spec("anywidget") is None else WIDGET
    return Ui(kind, False, own_thread=True)


def _has_frontend(shell: Any) -> bool:
    if os.environ.get("CI"):
        return False
    if any(os.environ.get(name) for name in ("JPY_SESSION_NAME", "VOILA_REQUEST_URL")):
        return True
    known = host(shell)
    return known is not None and not known.in_batch


def publish(bundle: Bundle, *, update_later: bool = False) -> Any:
    """Displays a bundle in the running cell; the handle that updates it, when asked for."""
    data, metadata = bundle
    if marimo := marimo_output.running():
        return marimo_output.Output(marimo, data)
    from IPython.display import display

    show: Any = display  # IPython leaves it untyped
    return show(data, raw=True, metadata=metadata, display_id=update_later or None)


def publish_widget(widget: Any) -> Any:
    """Displays a widget in the running cell; the handle that puts something else in its place."""
    if marimo := marimo_output.running():
        return marimo_output.Output(marimo, widget)
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    data = {"application/vnd.jupyter.widget-view+json": view, "text/plain": "(live progress)"}
    return publish((data, {}), update_later=True)


def print_line(text: str) -> None:
    """A line in the running cell; only ever called by the main thread."""
    write(sys.stdout, text)


def print_notes(notes: Iterable[str]) -> None:
    """What deserves a look, in the running cell; only ever called by the main thread."""
    for note in notes:
        write(sys.stderr, f"Note: {note}")


def write(stream: Any, line: str) -> None:
    """A line, as far as the stream takes it: showing something never costs what is paid for.

    A script's output may be closed, full, None, of an encoding without our characters, or anything
    that somebody put in its place.
    """
    try:
        try:
            stream.write(f"{line}\n")
        except UnicodeError:
            encoding = getattr(stream, "encoding", None) or "ascii"
            stream.write(f"{line.encode(encoding, 'backslashreplace').decode(encoding)}\n")
        stream.flush()
    except Exception as error:  # noqa: BLE001 (whatever it is, it is only about showing)
        log.debug("A line cannot be shown: %s", error)


@contextmanager
def showing() -> Iterator[None]:
    """Around a display of something paid for: where it fails, the wait goes on without it."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 (a front end, a hook, a formatter)
        log.warning("It cannot be shown (%s: %s); the wait goes on.", type(error).__name__, error)


_shown_in_cell: list[Any] = []  # what the running cell has displayed already


def remember_shown(value: Any) -> None:
    """The running cell shows this already: as its last line it needs no second display."""
    events = getattr(notebook().shell, "events", None)
    if events is None:  # no cell, or one whose end is not told
        return

    def forget() -> None:
        _shown_in_cell.clear()
        events.unregister("post_execute", forget)

    if not _shown_in_cell:
        events.register("post_execute", forget)
    _shown_in_cell.append(value)


def is_shown(value: Any) -> bool:
    """Whether the running cell has displayed this value itself."""
    return any(each is value for each in _shown_in_cell)


def notebook_folder(shell: Any) -> Path:
    """The folder of the notebook where its frontend names it, else the current one.

    Asked once, when the session begins: users change the folder later, the notebook stays.
    """
    if marimo := marimo_output.running():
        return Path(marimo.notebook_dir() or Path.cwd())
    names: Mapping[str, Any] = getattr(shell, "user_ns", {})
    candidates = (os.environ.get("JPY_SESSION_NAME"), names.get("__vsc_ipynb_file__"))
    for name in map(str, filter(None, candidates)):
        path = Path(name)
        if name.endswith(".ipynb") and path.is_absolute() and path.parent.is_dir():
            return path.parent
    return Path.cwd()


def ipython_shell() -> Any:
    """The shell of the running IPython; None in marimo and in a script."""
    if "IPython" not in sys.modules:
        return None
    from IPython.core.getipython import get_ipython

    return get_ipython()


def in_notebook() -> bool:
    """Whether a cell runs this, with magics or without."""
    return marimo_output.running() is not None or ipython_shell() is not None


def background_context(shell: Any) -> Context:
    """For a thread that updates displays and widgets of cells that may have ended.

    Display updates are sent as the running cell's, which is what headless runners read. Messages
    of widgets are sent without a parent: ipykernel 7.4 hands a click back to the subshell of the
    request that the widget last spoke under, and after a reload of the page that is gone.
    """
    context = Context()
    parent = getattr(getattr(shell, "kernel", None), "_shell_parent", None)
    if isinstance(parent, ContextVar):
        context.run(parent.set, {})
    return context
