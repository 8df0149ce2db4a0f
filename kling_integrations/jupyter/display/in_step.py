"""A grid of players where it plays in step: marimo runs no script in HTML, but in a widget."""

from __future__ import annotations

from typing import Any

from .. import marimo_output
from ..frontend import WIDGET, Bundle, choose_ui, publish, publish_widget


def show(bundle: Bundle) -> None:
    """Displays a grid in the running cell."""
    if marimo_output.running() and _can_run_scripts():
        publish_widget(_widget(bundle))
    else:
        publish(bundle)


def element(bundle: Bundle) -> Any:
    """What marimo displays of a grid. An export keeps its HTML, where each plays by itself."""
    return _widget(bundle) if _can_run_scripts() else marimo_output.html(bundle[0])


def _can_run_scripts() -> bool:
    return choose_ui().kind == WIDGET and marimo_output.serves_files()


def _widget(bundle: Bundle) -> Any:
    from .live_widget import LiveWidget

    return LiveWidget(html=bundle[0]["text/html"], live=False)
