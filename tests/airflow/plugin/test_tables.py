"""The page of a table of videos: how it stands, its rows a page at a time, and nothing else."""

from __future__ import annotations

import json
import re
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest

from kling_integrations.airflow.plugin import tables
from kling_integrations.airflow.plugin.tables import NotATable, table_at
from kling_integrations.core.batch.results import Result, RowStatus

pytestmark = pytest.mark.thorough

MP4 = b"\0\0\0\x18ftypisom" + bytes(range(256)) * 40
TABLE = {"run_id": "r1", "task_id": "table"}
NOW = datetime.now(UTC)


def row(number, status="completed", **changes):
    """A line of the journal, as the operator writes it."""
    result = Result(number, f"id-{number}", RowStatus(status), **changes)
    return {"prompt": f"number <{number}>", "sku": number, **result.to_json()}


def iso(seconds):
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture
def write(database, tmp_path):
    """``write(rows)`` makes a task instance with these results, beside its videos."""

    def put(rows, *, state="success", videos=(), **instance):
        folder = tmp_path / "out"
        folder.mkdir(exist_ok=True)
        for name in videos:
            (folder / name).write_bytes(MP4)
        journal = tmp_path / "results.jsonl"
        journal.write_text("".join(json.dumps(each) + "\n" for each in rows))
        database.add(
            "table",
            operator="KlingBatchOperator",
            state=state,
            told=f"{folder}/",
            results=str(tmp_path / "results.parquet"),
            **instance,
        )
        return folder

    return put


def shown(page):
    return re.findall(r'<p class="name">([^<]*)</p>', page)


def test_while_it_runs_the_page_says_how_it_stands(browser, write, tmp_path):
    folder = tmp_path / "out"
    done = [
        row(
            n,
            path=str(folder / f"{n}.mp4"),
            size=len(MP4),
            usd=0.5,
            submitted_at=iso(-300),
            finished_at=iso(-n),
        )
        for n in range(1, 9)
    ]
    rows = [
        *done,
        row(9, "failed", error_kind="moderation", error="Failed (moderation): <no>"),
        row(10, "running", expected_usd=0.5, submitted_at=iso(-100)),
        row(11, "not_submitted"),
    ]
    write(rows, state="deferred", videos=[f"{n}.mp4" for n in range(1, 9)])
    page = browser().get("/dags/films/video", params=TABLE).text
    assert "8 of 11 done · 1 without a video · 1 running · 1 waiting" in page
    assert "<dd>$4.00</dd>" in page
    assert re.search(r"in about \d+:\d\d", page)
    assert 'data-live="yes"' in page
    assert shown(page)[:6] == [f"Row {n}" for n in range(1, 7)]  # the newest
    assert shown(page)[6:] == [f"Row {n}" for n in range(1, 12)]
    assert "Failed (moderation): &lt;no&gt;" in page
    assert "number &lt;1&gt;" in page


def test_a_hundred_and_twenty_rows_are_three_pages(browser, write):
    write([row(n, "failed" if n % 40 == 0 else "running") for n in range(1, 121)])
    texts = [browser().get("/dags/films/video", params={**TABLE, "page": n}).text for n in range(4)]
    assert [len(shown(text)) for text in texts] == [50, 50, 20, 0]
    assert "Page 2 of 3, 120 in all" in texts[1]
    assert shown(texts[2])[0] == "Row 101"


def test_rows_without_a_video_have_a_page_of_their_own(browser, write):
    bad = [row(n, "failed", error_kind="provider", error=f"why {n}") for n in (3, 7)]
    write([row(1), row(2), *bad])
    text = browser().get("/dags/films/video", params={**TABLE, "show": "bad"}).text
    assert shown(text) == ["Row 3", "Row 7"]
    assert "why 7" in text


def test_the_video_of_a_row_plays_and_no_other_file(browser, write, tmp_path):
    folder = tmp_path / "out"
    (tmp_path / "secret.mp4").write_bytes(MP4)
    rows = [
        row(1, path=str(folder / "a.mp4"), size=len(MP4)),
        row(2, path=str(tmp_path / "secret.mp4"), size=len(MP4)),
        row(3, path=str(folder / ".." / "secret.mp4"), size=len(MP4)),
        row(4, path=str(folder / "a.mp4"), size=1),  # not the one that it saved
        row(5),
    ]
    write(rows, videos=["a.mp4"])
    replies = [
        browser().get("/dags/films/file", params={**TABLE, "row": number})
        for number in (1, 2, 3, 4, 5, 6, 0, -1)
    ]
    assert [reply.status_code for reply in replies] == [200, *[404] * 7]
    assert replies[0].content == MP4
    page = browser().get("/dags/films/video", params=TABLE).text
    assert "not where this task was told to save" in page
    assert browser().get("/dags/films/file", params=TABLE).status_code == 404


@pytest.mark.parametrize("user", [None, "bob", "eve"])
@pytest.mark.parametrize("route", ["video", "file", "poster"])
def test_who_may_not_see_the_dags_results_sees_no_row(browser, write, user, route, tmp_path):
    write([row(1, path=str(tmp_path / "out" / "a.mp4"), size=len(MP4))], videos=["a.mp4"])
    reply = browser(user).get(f"/dags/films/{route}", params={**TABLE, "row": 1})
    assert reply.status_code == (403 if user else 401)
    assert "number" not in reply.text


def test_results_that_are_somebodys_own_file_are_not_shown(browser, write, tmp_path):
    write([row(1)])
    (tmp_path / "results.jsonl").write_text('{"password": "hunter2"}\n')
    page = browser().get("/dags/films/video", params=TABLE).text
    assert "no table of results" in page
    assert "hunter2" not in page


def test_before_the_first_round_there_is_nothing_to_see(browser, write, tmp_path):
    write([], state="running")
    (tmp_path / "results.jsonl").unlink()
    assert "No row has been submitted yet." in browser().get("/dags/films/video", params=TABLE).text


def test_roots_bound_the_results_too(browser, write, monkeypatch, tmp_path):
    write([row(1)])
    monkeypatch.setenv("AIRFLOW__KLING__VIDEO_ROOTS", str(tmp_path / "elsewhere"))
    assert "number" not in browser().get("/dags/films/video", params=TABLE).text


def test_the_gallery_of_the_run_leads_to_the_table(browser, write):
    made = {"rows": 12, "completed": 11, "results_path": "/x.csv", "usd": 5.5}
    write([row(1)], return_value=made)
    page = browser().get("/dags/films/gallery", params={"run_id": "r1"}).text
    assert "A table: 11 of 12 videos." in page


def test_a_table_that_changes_is_read_again_and_one_that_does_not_is_not(tmp_path):
    path, address = tmp_path / "results.jsonl", str(tmp_path / "results.jsonl")
    path.write_text(json.dumps(row(1)) + "\n")
    first = table_at(address)
    assert table_at(address) is first
    path.write_text("".join(json.dumps(row(n)) + "\n" for n in (1, 2, 3)))
    assert table_at(address).counts == {"completed": 3}


def test_a_large_table_is_kept_in_little_memory(tmp_path):
    path = tmp_path / "results.jsonl"
    with path.open("w") as file:
        for number in range(1, 10_001):
            file.write(json.dumps({**row(number, "running"), "prompt": "x" * 1000}) + "\n")
    tables._tables.clear()
    tracemalloc.start()
    table = table_at(str(path))
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert table.total == 10_000
    assert kept < 2e6
    assert peak < 8e6  # the file has 13 MB
    assert [line.result.row for line in table.lines(table.numbers(199, bad=False))][-1] == 10_000


def test_a_table_beyond_all_measure_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_MOST_ROWS", 3)
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(row(n)) + "\n" for n in range(1, 6)))
    with pytest.raises(NotATable):
        table_at(str(path))


def test_the_end_is_expected_by_what_rows_took(tmp_path):
    path = tmp_path / "results.jsonl"
    done = [row(n, submitted_at=iso(-40), finished_at=iso(-10)) for n in (1, 2, 3)]
    running = [row(n, "running", submitted_at=iso(-10)) for n in (4, 5)]
    waiting = [row(n, "not_submitted") for n in (6, 7, 8)]
    path.write_text("".join(json.dumps(each) + "\n" for each in (*done, *running, *waiting)))
    ends_at = table_at(str(path)).ends_at
    assert ends_at == pytest.approx(NOW.timestamp() + 20 + 60, abs=2)  # two more windows of 30 s
