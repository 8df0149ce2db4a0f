"""Notebooks executed without a frontend, and what they are exported to."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from support.notebooks import ROOT, kernel_environment, notebook, texts

from kling_integrations.sandbox import Sandbox

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with Sandbox(speed=500, seconds=60, size=(160, 90), fps=8) as sandbox:
        yield sandbox


@pytest.fixture
def execute(tmp_path: Path, running: Sandbox) -> Callable[..., Any]:
    """Runs a notebook in a kernel of its own; also a second time, with the same ledger."""

    def run(made: Any) -> Any:
        env = kernel_environment(tmp_path, running.base_url)
        resources = {"metadata": {"path": str(tmp_path)}}
        client = NotebookClient(made, timeout=120, resources=resources)
        client.execute(env=env)
        return made

    return run


def test_every_notebook_runs_as_it_is(tmp_path, running):
    """With nbmake; the quick start without a key, on the sandbox that it starts itself."""
    for path in NOTEBOOKS:
        shutil.copy(path, tmp_path)
    others = [path.name for path in NOTEBOOKS if path.stem != "quick_start"]
    for names, base_url in ((["quick_start.ipynb"], None), (others, running.base_url)):
        env = kernel_environment(tmp_path, base_url)
        if base_url is None:
            del env["AIML_API_KEY"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbmake",
             "--overwrite", *names],
            cwd=tmp_path, capture_output=True, text=True, env=env,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:]
    for path in NOTEBOOKS:
        assert texts(nbformat.read(tmp_path / path.name, as_version=4)).count("<video") >= 2
    assert list((tmp_path / "kling_outputs").glob("*.mp4"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_is_saved_with_posters_and_without_this_machine(path):
    made = nbformat.read(path, as_version=4)
    saved = texts(made)
    assert len(saved) < 100_000 * saved.count("<video")
    assert saved.count("data:image/jpeg") >= saved.count("<video")
    for private in (str(ROOT), str(Path.home()), "127.0.0.1", "/tmp/", "widget-view"):
        assert private not in saved
    codes = [cell for cell in made.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in codes] == list(range(1, len(codes) + 1))
    assert not [o for cell in codes for o in cell.outputs if o.output_type == "error"]


def test_restart_and_run_all_pays_nothing(execute, running):
    cells = (
        "%%kling -d 5 -o clip\nA cat restarts",
        "%%kling -d 5 --sweep x=1,2 --takes 2 --yes -o films\nDog {x} restarts",
        "%%kling --image clip -d 5 -o more\nIt goes on",
        "%%kling -d 5 -o job --bg\nA bird restarts",
        "%kling wait",
    )
    before = running.paid
    execute(notebook(*cells))
    paid = running.paid
    assert paid == before + 7
    execute(notebook(*cells))
    assert running.paid == paid


def test_a_failure_stops_the_run_with_a_short_error(execute):
    made = notebook("%%kling -d 5\nA riot [fail:moderation]", "print('not reached')")
    with pytest.raises(CellExecutionError, match="content policy"):
        execute(made)
    error = made.cells[1].outputs[-1]
    assert error.output_type == "error"
    assert error.ename == "GenerationFailedError"
    assert len(error.traceback) == 1
    assert not made.cells[2].outputs


def test_mistakes_are_real_errors_that_stop_a_run(execute):
    mistakes = ("%%kling -d 7\nA cat", "%%kling --nope\nA cat", "%kling hstory")
    made = notebook(*mistakes)
    for cell in made.cells:
        cell.metadata["tags"] = ["raises-exception"]  # so that one run shows all
    execute(made)
    for cell in made.cells[1:]:
        (error,) = cell.outputs
        assert error.output_type == "error"
        assert len(error.traceback) <= 2


def test_background_jobs_are_waited_for_at_the_end(execute):
    made = execute(notebook("%%kling -d 5 -o job --bg\nA fox in the snow", "%kling wait all"))
    card, waited = made.cells[1].outputs[0], made.cells[2].outputs[0]
    assert "<video" in waited.data["text/html"]
    assert "<video" in card.data["text/html"]
    assert waited.metadata["kling"]["status"] == "completed"


def test_a_headless_run_is_saved_with_its_card_alone(execute, tmp_path):
    made = execute(notebook("%%kling -d 5 -o clip\nA cat in a log"))
    card, *lines = made.cells[1].outputs
    assert set(card.data) == {"text/html", "text/plain", "image/jpeg"}
    assert lines
    assert all(line.data == {} for line in lines)  # they were for the log: see papermill below
    assert "widget" not in texts(made)


def test_a_dry_run_is_a_card_with_the_picture_that_would_be_sent(execute, running):
    before = running.requests["submit"]
    made = execute(
        notebook(
            "from PIL import Image\npicture = Image.new('RGB', (640, 360), 'navy')\nanimal = 'owl'",
            "%%kling --dry-run --image picture -d 5\nAn {animal} at night",
        )
    )
    (card,) = made.cells[2].outputs
    assert "An owl at night" in card.data["text/html"]
    assert "data:image/jpeg;base64," in card.data["text/html"]
    assert "Expected cost: $" in card.data["text/html"]
    assert running.requests["submit"] == before


def test_prompts_of_every_kind_arrive_and_show_as_text(execute, running, tmp_path):
    prompt = '<script>alert(1)</script> {"a": {"b": 1}} $5 \'quotes" 🦝 עברית {{x}}'
    made = execute(notebook(f"%%kling -d 5 -o clip\n{prompt}", "print(clip.prompt)"))
    wanted = prompt.replace("{{x}}", "{x}")
    assert made.cells[2].outputs[0].text.strip() == wanted
    html = made.cells[1].outputs[0].data["text/html"]
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_export_keeps_player_and_poster(execute, tmp_path):
    made = execute(notebook("%%kling -d 5 -o clip\nA cat for the printer"))
    nbformat.write(made, tmp_path / "export.ipynb")
    for kind in ("html", "latex"):
        subprocess.run(
            [sys.executable, "-m", "nbconvert", "--to", kind, "export.ipynb"],
            cwd=tmp_path, check=True, capture_output=True,
        )  # fmt: skip
    html = (tmp_path / "export.html").read_text()
    (source,) = re.findall(r'<video[^>]* src="([^"]*)"', html)
    assert (tmp_path / source).is_file()
    assert "data:image/jpeg;base64," in html
    latex = (tmp_path / "export.tex").read_text()
    assert "\\includegraphics" in latex
    assert list(tmp_path.glob("export_files/*.jpg")) or list(tmp_path.glob("export_files/*.jpeg"))


def test_papermill_runs_and_parameters_reach_the_prompt(tmp_path, running):
    made = notebook("%%kling -d 5 -o clip\nA {animal} of papermill", "print(clip.prompt)")
    made.cells.insert(
        0, nbformat.v4.new_code_cell("animal='cat'", metadata={"tags": ["parameters"]})
    )
    nbformat.write(made, tmp_path / "in.ipynb")
    done = subprocess.run(
        [sys.executable, "-m", "papermill", "in.ipynb", "out.ipynb", "-p", "animal", "newt",
         "--log-output"],
        cwd=tmp_path, capture_output=True, text=True,
        env=kernel_environment(tmp_path, running.base_url),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    saved = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert "A newt of papermill" in texts(saved)
    log = done.stderr
    assert "generating" in log or "queued" in log
    assert "✔" in log
    assert all(output.get("data") == {} for output in saved.cells[2].outputs[1:])


def test_loading_takes_less_than_150_ms():
    code = (
        "import time\n"
        "from IPython.core.interactiveshell import InteractiveShell as S\n"
        "s = S.instance(); t = time.perf_counter()\n"
        "s.run_line_magic('load_ext', 'kling_integrations')\n"
        "print(time.perf_counter() - t)"
    )
    took = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                             cwd=ROOT, check=True).stdout)
        for _ in range(3)
    ]  # fmt: skip
    assert min(took) < 0.15
