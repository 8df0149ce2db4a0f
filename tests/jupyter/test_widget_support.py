"""Whether the page can show the widget: JavaScript comes from where Jupyter runs."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from kling_integrations.jupyter import widget_support
from kling_integrations.jupyter.widget_support import Server, can_show_widgets


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment that this kernel's Jupyter is said to run in; it is empty."""
    later = Server([tmp_path], time.time() + 60)
    monkeypatch.setattr(widget_support, "_server", lambda: later)
    monkeypatch.setattr(widget_support, "_SYSTEM", ())
    monkeypatch.setattr(widget_support.site, "getuserbase", lambda: str(tmp_path / "user"))
    monkeypatch.setattr(widget_support, "_version", lambda: "0.11.0")
    return tmp_path


def put(prefix: Path, version: str) -> None:
    folder = prefix / "share" / "jupyter" / "labextensions" / "anywidget"
    folder.mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"version": version}))


@pytest.mark.parametrize(
    ("there", "shown"), [("0.11.0", True), ("0.11.9", True), ("0.9.21", False), ("1.11.0", False)]
)
def test_jupyters_own_environment_has_the_same_version(server, there, shown):
    put(server, there)
    assert can_show_widgets() is shown


def test_without_anywidget_where_jupyter_runs_nothing_is_shown_that_cannot_be(server):
    assert not can_show_widgets()


def test_what_is_installed_while_jupyter_runs_is_not_in_a_page_that_is_open(server, monkeypatch):
    put(server, "0.11.0")
    earlier = Server([server], time.time() - 60)
    monkeypatch.setattr(widget_support, "_server", lambda: earlier)
    assert not can_show_widgets()


def test_what_the_user_installed_for_all_environments_counts(server):
    put(server / "user", "0.11.3")
    assert can_show_widgets()


def test_without_a_jupyter_server_the_kernels_own_half_decides(monkeypatch):
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    assert can_show_widgets()


def test_the_server_is_the_process_that_started_the_kernel(tmp_path, monkeypatch):
    """Here it is this one, whose interpreter is in the environment of the tests."""
    import os

    monkeypatch.setenv("JPY_PARENT_PID", str(os.getpid()))
    found = widget_support._server()
    assert found is None or {Path(sys.prefix), Path(sys.base_prefix)} & set(found.prefixes)
    assert found is None or found.started < time.time()
    monkeypatch.setenv("JPY_PARENT_PID", "999999999")  # has ended
    assert widget_support._server() is None
