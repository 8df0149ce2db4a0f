"""The documentation's pictures of Airflow, from a real one in Chromium: `make screenshots`.

No test: pytest collects it by name only, for the fixtures.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from support.notebooks import ROOT

from kling_integrations.airflow.get_provider_info import RUN_ROUTE, TASK_ROUTE

from .test_examples import examples, sandbox

__all__ = ["examples", "sandbox"]

IMAGES = ROOT / "docs" / "images"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as p:
        path = shutil.which("chromium") or shutil.which("chromium-browser")
        yield p.chromium.launch(executable_path=path, args=["--no-sandbox"])


@pytest.mark.timeout(400)
def test_take(examples: Any, browser: Any) -> None:
    single, mapped = "kling_quick_start", "kling_batch_with_pool"
    runs = {dag: examples.trigger(dag) for dag in (single, mapped)}
    assert [examples.finished(dag, run) for dag, run in runs.items()] == ["success"] * 2
    pages = {
        "video-tab": f"/dags/{single}/runs/{runs[single]}/tasks/make_video/plugin/{{tab}}",
        "gallery": f"/dags/{mapped}/runs/{runs[mapped]}/plugin/{{tab}}",
    }
    for scheme in ("light", "dark"):
        context = browser.new_context(viewport={"width": 1280, "height": 860}, color_scheme=scheme)
        page = context.new_page()
        page.goto(f"{examples.url}/")
        page.evaluate(f"localStorage.setItem('theme', '{scheme}')")
        for name, path in pages.items():
            tab = TASK_ROUTE if name == "video-tab" else RUN_ROUTE
            page.goto(examples.url + path.format(tab=tab))
            frame = page.wait_for_selector("iframe", timeout=60_000).content_frame()
            frame.wait_for_selector("video", timeout=60_000)
            page.wait_for_timeout(2500)  # players show their first frame
            page.screenshot(path=str(IMAGES / f"{name}-{scheme}.png"))
        context.close()
