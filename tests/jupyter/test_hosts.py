"""Hosted notebooks: recognised by their environment, and served with what they can show."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from support.html import Tags

from kling_integrations.jupyter import hosts
from kling_integrations.jupyter.display import source
from kling_integrations.jupyter.display.player import screen
from kling_integrations.jupyter.display.source import source_of
from kling_integrations.jupyter.hosts import host
from kling_integrations.jupyter.options import options
from kling_integrations.jupyter.video import KlingVideo
from kling_integrations.sandbox.video.encode import encode
from kling_integrations.sandbox.video.scene import Scene

SIGNS = {
    "Colab": "COLAB_RELEASE_TAG",
    "Databricks": "DATABRICKS_RUNTIME_VERSION",
    "Kaggle": "KAGGLE_KERNEL_RUN_TYPE",
    "Deepnote": "DEEPNOTE_PROJECT_ID",
    "VS Code": "VSCODE_PID",
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (*SIGNS.values(), "JPY_SESSION_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def film() -> bytes:
    return encode(Scene("a-model", ("A lighthouse",), 5), size=(320, 180), fps=12)


def video_of(path: Path) -> KlingVideo:
    return KlingVideo(id="an-id", saved_as=path, model="a-model", prompt="A lighthouse")


@pytest.mark.parametrize(("name", "sign"), SIGNS.items())
def test_a_host_is_known_by_its_sign_and_gets_bytes(here, monkeypatch, film, name, sign):
    path = here / "kling_outputs" / "a.mp4"
    path.parent.mkdir()
    path.write_bytes(film)
    assert source_of(path).url == "kling_outputs/a.mp4"
    monkeypatch.setenv(sign, "1")
    assert host(None).name == name
    assert source_of(path).url.startswith("data:video/mp4;base64,")
    assert source_of(path, "never").url == "kling_outputs/a.mp4"  # at the user's word


def test_vs_code_and_sagemaker_leave_other_signs(here, monkeypatch):
    assert host(None) is None
    assert host(SimpleNamespace(user_ns={"__vsc_ipynb_file__": "a.ipynb"})).name == "VS Code"
    sign = here / "resource-metadata.json"
    sign.touch()
    monkeypatch.setattr(hosts, "_SAGEMAKER", sign)
    assert host(None).name == "SageMaker"


def test_a_jupyter_server_that_was_started_in_vs_code_is_a_jupyter_server(here, monkeypatch):
    monkeypatch.setenv("VSCODE_PID", "1")
    monkeypatch.setenv("JPY_SESSION_NAME", str(here / "a.ipynb"))
    assert host(None) is None


def test_a_batch_run_on_kaggle_has_no_frontend(monkeypatch):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    assert host(None).in_batch
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    assert not host(None).in_batch


def test_the_videos_of_one_cell_stay_below_what_a_cell_may_hold(here, monkeypatch, film):
    """Databricks cuts a cell's output off at 10 MB of text."""
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "16.4")
    path = here / "a.mp4"
    path.write_bytes(film + bytes(6_000_000))
    assert not source_of(path).is_copy
    for players in (2, 9, 30):
        made = source_of(path, players=players)
        assert made is None or made.is_copy
        assert players * len(made.url if made else "") < 10e6
    assert source_of(path, players=9).is_copy


def test_what_is_too_large_plays_as_a_small_copy_that_says_so(here, monkeypatch, film):
    path = here / "large.mp4"
    path.write_bytes(film + bytes(9_000_000))
    monkeypatch.setenv("COLAB_RELEASE_TAG", "1")
    made = source_of(path)
    assert made.is_copy
    assert len(made.url) < 1.4e6  # 1 MB in base64
    page = Tags(screen(video_of(path)))
    assert dict(page.tags)["video"]["src"] == made.url
    assert "A small copy without sound; the whole is large.mp4" in page.text
    monkeypatch.setattr(source, "options", lambda: options().__class__(embed_limit_mb=20))
    assert not source_of(path).is_copy


def test_a_small_copy_is_made_once_for_each_version_of_a_file(here, monkeypatch, film):
    from kling_integrations.core import media

    made = []
    real = media.small_copy
    monkeypatch.setattr(media, "small_copy", lambda *a: made.append(a) or real(*a))
    path = here / "large.mp4"
    path.write_bytes(film + bytes(9_000_000))
    monkeypatch.setenv("COLAB_RELEASE_TAG", "1")
    assert source_of(path) == source_of(path)
    assert len(made) == 1
