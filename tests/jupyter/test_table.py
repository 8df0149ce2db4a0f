"""Batches in a notebook: a DataFrame in, a DataFrame out."""

import json

import pytest

import kling_integrations
from kling_integrations import BadRowsError, InvalidRequestError, KlingError, StoppedWaiting
from kling_integrations.commands import UsageError

pandas = pytest.importorskip("pandas")
polars = pytest.importorskip("polars")


def frame(count=3):
    texts = [f"number {n} 🐼" for n in range(count)]
    return pandas.DataFrame(
        {"text": texts, "n": range(count)}, index=[f"i{n}" for n in range(count)]
    )


def test_a_frame_comes_back_with_its_index_its_rows_and_the_results(shell, sandbox, home):
    shell["df"] = frame()
    shell.run("table = %kling batch df --prompt text -o out/ -d 5 --yes")
    table = shell["table"]
    assert list(table.index) == ["i0", "i1", "i2"]
    assert list(table["n"]) == [0, 1, 2]
    assert list(table["status"]) == ["completed"] * 3
    assert all(path.startswith(str(home / "out")) for path in table["path"])
    assert "status" not in shell["df"].columns
    assert "3 to submit · expected cost $1.50" in shell.text
    assert "3 completed" in shell.text
    shell.run("again = %kling batch df --prompt text -o out/ -d 5")  # nothing is paid: no --yes
    assert sandbox.paid == 3
    assert list(shell["again"]["generation_id"]) == list(table["generation_id"])


def test_a_price_above_the_users_sum_needs_a_word(shell, sandbox):
    shell["df"] = frame()
    with pytest.raises(UsageError, match="expected cost .1.50.*Nothing was submitted"):
        shell.run("%kling batch df --prompt text -o out/")
    assert not sandbox.posts
    shell.run("%kling batch df --prompt text -o out/ --max-cost 1")
    assert sandbox.paid == 2


def test_polars_files_and_lists_are_tables_too(shell, sandbox, home):
    made = kling_integrations.batch(polars.DataFrame({"prompt": ["a", "b"]}), out="one", quiet=True)
    assert isinstance(made, polars.DataFrame)
    assert made["status"].to_list() == ["completed"] * 2
    made = kling_integrations.batch(["a", "c"], out="two", quiet=True)
    assert list(made["prompt"]) == ["a", "c"]
    (home / "p.jsonl").write_text(json.dumps({"prompt": "d"}))
    shell.run("made = %kling batch p.jsonl -o two --results three.jsonl")
    assert list(shell["made"]["status"]) == ["completed"]
    assert sandbox.paid == 4


def test_bad_rows_are_named_and_nothing_is_paid(shell, sandbox):
    with pytest.raises(BadRowsError, match="row 2, prompt"):
        kling_integrations.batch(pandas.DataFrame({"prompt": ["a", None]}), out="out")
    assert not sandbox.posts


def test_a_failed_row_is_data_unless_it_shall_count(shell, sandbox):
    rows = pandas.DataFrame({"prompt": ["a", "b [fail:moderation]"]})
    made = kling_integrations.batch(rows, out="out", quiet=True)
    assert list(made["error_kind"].fillna("")) == ["", "moderation"]
    with pytest.raises(KlingError, match="1 of 2 rows"):
        kling_integrations.batch(rows, out="out", quiet=True, fail_on_partial_error=True)
    assert len(sandbox.posts) == 2


def test_a_dry_run_in_a_cell_sends_nothing(shell, sandbox):
    shell["df"] = frame()
    shell.run("%kling batch df --prompt text -o out/ --dry-run")
    assert "3 × klingai/v2.5-turbo/pro/text-to-video" in shell.text
    assert not sandbox.posts


def test_an_interrupt_of_a_cell_keeps_what_runs(shell, monkeypatch):
    import signal
    import threading

    from kling_integrations.sandbox import Sandbox

    with Sandbox(speed=500, seconds=float("inf"), size=(160, 90), fps=8) as endless:
        monkeypatch.setenv("AIML_BASE_URL", endless.base_url)

        def stop():
            endless.wait_for(lambda box: box.requests["poll"] >= 2, timeout=30)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        threading.Thread(target=stop).start()
        with pytest.raises(StoppedWaiting, match="2 generations go on"):
            kling_integrations.batch(["a", "b"], out="out", quiet=True)
        endless.wait_for(lambda box: box.paid == 2)
        threading.Timer(0.5, endless.finish).start()
        made = kling_integrations.batch(["a", "b"], out="out", quiet=True)
        assert list(made["status"]) == ["completed"] * 2
        assert endless.paid == 2


def test_outside_of_a_notebook_it_says_so_in_lines(home, sandbox, capsys):
    made = kling_integrations.batch(["a"], out="out")
    assert list(made["status"]) == ["completed"]
    assert "1 of 1 done" in capsys.readouterr().err


def test_a_contact_sheet_of_what_a_batch_returned(shell, home):
    shell["made"] = kling_integrations.batch(["a", "b"], out="out", quiet=True)
    shell.run("sheet = %kling contact-sheet made -o sheet.jpg")
    assert shell["sheet"].width == 1600
    assert (home / "sheet.jpg").exists()
    shell.run("%kling contact-sheet made -o sheet.jpg")  # the cell again
    (home / "own.png").write_bytes(b"my own")
    with pytest.raises(InvalidRequestError, match="not made here"):
        kling_integrations.contact_sheet(shell["made"], "own.png")
    with pytest.raises(InvalidRequestError, match="not made here"):
        shell.run("%kling contact-sheet made -o own.png")
    assert (home / "own.png").read_bytes() == b"my own"
    shell.run("%kling contact-sheet made -o own.png --overwrite")
    assert (home / "own.png").read_bytes().startswith(b"\x89PNG")
