"""The pages of the Video tab: who sees what, and nothing else can be fetched through them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

pytestmark = pytest.mark.thorough

MP4 = b"\0\0\0\x18ftypisom" + bytes(range(256)) * 40

VIDEO = {"run_id": "r1", "task_id": "video"}
ROUTES = ["video", "gallery", "file", "poster"]


@pytest.mark.parametrize("route", ROUTES)
def test_without_a_session_nothing_is_seen(browser, saved, route):
    saved()
    reply = browser(None).get(f"/dags/films/{route}", params=VIDEO)
    assert reply.status_code == 401
    assert "fox" not in reply.text


@pytest.mark.parametrize("user", ["bob", "eve"])
@pytest.mark.parametrize("route", ROUTES)
def test_who_may_not_see_the_dags_results_sees_no_video(browser, saved, route, user):
    saved()
    reply = browser(user).get(f"/dags/films/{route}", params=VIDEO)
    assert reply.status_code == 403
    assert "fox" not in reply.text


def test_the_dag_of_the_address_decides_not_one_beside_it(browser, saved):
    saved()
    reply = browser("bob").get("/dags/films/file", params={**VIDEO, "dag_id": "dogs"})
    assert reply.status_code == 403
    reply = browser("bob").get("/dags/dogs/file", params={**VIDEO, "dag_id": "films"})
    assert reply.status_code == 404
    assert browser("ada").get("/dags/~/file", params=VIDEO).status_code == 404


def test_the_session_cookie_is_enough_for_a_player(browser, saved):
    saved()
    player = browser(None)
    player.cookies.set("_token", "ada")
    reply = player.get("/dags/films/file", params=VIDEO, headers={"Range": "bytes=4-11"})
    assert (reply.status_code, reply.content) == (206, b"ftypisom")


def test_the_file_is_that_of_the_task_instance(browser, saved):
    saved()
    assert browser().get("/dags/films/file", params=VIDEO).content == MP4
    assert browser().head("/dags/films/file", params=VIDEO).headers["content-length"] == str(
        len(MP4)
    )


@pytest.mark.parametrize(
    "params",
    [
        {"run_id": "r2", "task_id": "video"},
        {"run_id": "r1", "task_id": "other"},
        {"run_id": "r1", "task_id": "video", "map_index": 0},
        {"run_id": "../r1", "task_id": "video"},
        {"run_id": "r1", "task_id": "video", "path": "/etc/passwd"},
        {"run_id": "%", "task_id": "%"},
    ],
)
def test_no_parameter_names_a_file(browser, saved, params):
    saved()
    reply = browser().get("/dags/films/file", params=params)
    assert reply.status_code == 404 or reply.content == MP4
    assert "path" in params or reply.status_code == 404


@pytest.mark.parametrize("route", ["file", "poster"])
@pytest.mark.parametrize(
    "path", ["/etc/passwd", "{}/../secret.mp4", "s3://secrets/a.mp4", "{}/other.mp4", ""]
)
def test_an_edited_manifest_opens_no_other_file(browser, database, tmp_path, path, route):
    """XComs can be edited by more people than may read every file."""
    (tmp_path / "other.mp4").write_bytes(MP4)
    made = {"generation_id": "g", "status": "completed", "path": path.format(tmp_path)}
    database.add(told=str(tmp_path / "a.mp4"), return_value=made)
    assert browser().get(f"/dags/films/{route}", params=VIDEO).status_code == 404
    page = browser().get("/dags/films/video", params=VIDEO).text
    assert "<video" not in page


def test_what_is_no_video_is_not_sent(browser, saved):
    saved().write_text("a key: 1234567890123456")
    assert browser().get("/dags/films/file", params=VIDEO).status_code == 404


def test_a_file_that_is_gone_is_said_to_be_without_its_stores_words(browser, saved):
    saved().unlink()
    reply = browser().get("/dags/films/file", params=VIDEO)
    assert reply.status_code == 404
    assert reply.json() == {
        "detail": "The file cannot be read by the API server (FileNotFoundError)."
    }


def test_an_old_run_is_shown_below_the_configured_folders_only(
    browser, saved, database, tmp_path, monkeypatch
):
    saved(told=None)
    assert browser().get("/dags/films/file", params=VIDEO).status_code == 404
    assert "[kling] video_roots" in browser().get("/dags/films/video", params=VIDEO).text
    monkeypatch.setenv("AIRFLOW__KLING__VIDEO_ROOTS", f"/films, {tmp_path}")
    assert browser().get("/dags/films/file", params=VIDEO).status_code == 200
    (tmp_path / "a.mp4").write_bytes(MP4 + b"another one")
    assert browser().get("/dags/films/file", params=VIDEO).status_code == 404


def test_the_page_shows_what_was_made(browser, saved):
    saved()
    reply = browser().get("/dags/films/video", params=VIDEO)
    text = reply.text
    assert "A fox &lt;b&gt;in&lt;/b&gt; the snow" in text
    assert "$0.50" in text
    assert "1:45, asked 3×" in text
    assert "within 4 s" in text
    assert "from task draw: /pictures/a.png" in text
    assert "ab" * 32 in text
    assert "script-src 'self'" in reply.headers["content-security-policy"]
    assert reply.headers["cache-control"] == "no-store"


def test_where_airflow_names_no_index_the_page_is_the_tasks(browser, saved):
    saved()
    page = browser().get("/dags/films/video", params={**VIDEO, "map_index": "{MAP_INDEX}"})
    assert "<video" in page.text


def test_a_mapped_task_shows_its_grid(browser, saved):
    for index in range(3):
        saved(f"{index}.mp4", map_index=index)
    saved("other.mp4", task_id="other")
    page = browser().get("/dags/films/video", params={**VIDEO, "map_index": "{MAP_INDEX}"}).text
    assert page.count("<video") == 3
    assert "video[2]" in page
    assert browser().get("/dags/films/video", params={**VIDEO, "map_index": 7}).status_code == 404


def test_a_task_that_waits_tells_since_when_and_how_long(browser, database):
    facts = {
        "generation_id": "g",
        "prompt": "A fox",
        "submitted_at": datetime.now(UTC).isoformat(),
        "expected_seconds": 170.0,
        "expected_usd": 0.5,
    }
    database.add(state="deferred", kling_generation=facts)
    page = browser().get("/dags/films/video", params=VIDEO).text
    assert "Waiting for the video, in the triggerer." in page
    assert "of about 2:50" in page
    assert "about $0.50" in page
    assert 'data-live="yes"' in page


def test_a_failure_says_why_and_what_to_do(browser, database):
    failure = {
        "message": "Failed (moderation): <i>risk control</i>.",
        "advice": ["Ask again."],
        "kind": "moderation",
        "error": "GenerationFailedError",
    }
    facts = {"generation_id": "g", "prompt": "A fox", "expected_usd": 0.5}
    database.add(state="failed", kling_failure=failure, kling_generation=facts)
    page = browser().get("/dags/films/video", params=VIDEO).text
    assert "&lt;i&gt;risk control&lt;/i&gt;" in page
    assert "Change the prompt or the image" in page
    assert "a failed generation is not billed" in page


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("running", "Nothing has been submitted yet."),
        ("failed", "The task failed. Its log tells why."),
        ("upstream_failed", "A task before this one failed"),
        ("skipped", "No video: the task is skipped."),
        ("success", "This task made no video."),
        ("awaiting_input", "Waits for a person"),
    ],
)
def test_each_state_has_its_words(browser, database, state, words):
    database.add(state=state)
    assert words in browser().get("/dags/films/video", params=VIDEO).text


def test_the_gallery_has_fifty_to_a_page_and_asks_the_database_a_few_times_only(
    browser, database, saved
):
    for index in range(60):
        saved(f"{index}.mp4", map_index=index)
    database.add("report", operator="PythonOperator", return_value={"generation_id": "no"})
    queries = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *args: queries.append(args[2]))
    first = browser().get("/dags/films/gallery", params={"run_id": "r1"}).text
    assert first.count("<video") == 50
    assert "Page 1 of 2, 60 in all" in first
    assert len(queries) <= 5
    second = browser().get("/dags/films/gallery", params={"run_id": "r1", "page": 1}).text
    assert second.count("<video") == 10
    assert "report" not in first + second
    other = browser().get("/dags/films/gallery", params={"run_id": "r2"}).text
    assert "No task of this run has made a video" in other


def test_a_task_of_ones_own_class_is_in_the_gallery(browser, database):
    database.add("mine", operator="MyFilms", kling_generation={"generation_id": "g"})
    assert "mine" in browser().get("/dags/films/gallery", params={"run_id": "r1"}).text


def test_the_poster_is_the_first_picture_and_is_decoded_once(browser, saved, monkeypatch):
    from kling_integrations.airflow.plugin import app
    from kling_integrations.sandbox.video import ready_made

    path = saved()
    path.write_bytes(Path(ready_made.__file__).with_name("ready_made.mp4").read_bytes())
    reply = browser().get("/dags/films/poster", params=VIDEO)
    assert reply.content[:2] == b"\xff\xd8"
    assert reply.headers["content-type"] == "image/jpeg"
    monkeypatch.setattr(app, "_poster_of", lambda file: pytest.fail("decoded again"))
    assert browser().get("/dags/films/poster", params=VIDEO).content == reply.content


def test_without_a_picture_there_is_no_poster(browser, saved):
    saved(name="broken.mp4")
    assert browser().get("/dags/films/poster", params=VIDEO).status_code == 404


def test_odd_xcoms_break_no_page(browser, database):
    for index, value in enumerate([None, "text", 3, [], {"path": 3}, {"generation_id": 4}]):
        database.add(map_index=index, return_value=value, kling_generation=value, told="x")
    assert browser().get("/dags/films/gallery", params={"run_id": "r1"}).status_code == 200


@pytest.mark.parametrize("name", ["page.css", "page.js", "icon.svg"])
def test_style_and_script_come_from_airflow_itself(browser, name):
    reply = browser(None).get(f"/static/{name}")
    assert reply.status_code == 200
    assert "http" not in reply.text.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("name", ["../app.py", "..%2fapp.py", "templates", "%2e%2e/app.py"])
def test_nothing_else_is_static(browser, name):
    assert browser(None).get(f"/static/{name}").status_code == 404


def test_no_page_holds_an_address_of_the_gateway_or_a_key(browser, database):
    made = {"generation_id": "g", "status": "completed", "gateway_url": "https://gateway.test/x"}
    database.add(told="/a.mp4", return_value=made)
    page = browser().get("/dags/films/video", params=VIDEO).text
    assert "gateway.test" not in page


def test_the_plugin_is_known_to_airflow_and_light_to_load():
    from importlib.metadata import entry_points

    from kling_integrations.airflow.plugin import KlingPlugin

    (entry,) = [e for e in entry_points(group="airflow.plugins") if e.name == "kling"]
    assert entry.load() is KlingPlugin
    views = {view["destination"]: view for view in KlingPlugin.external_views}
    assert views.keys() == {"task_instance", "dag_run"}
    for view in views.values():
        assert not view["href"].startswith("/")  # so that a base path works
    assert "KlingVideoOperator" in json.dumps(views["task_instance"]["applies_to"])


def test_the_picture_of_a_review_is_that_of_the_newest_take(browser, saved, database, tmp_path):
    """Of a review without files of its own it is the reviewed task's; no browser keeps it."""
    film = saved()
    made = {"generation_id": "g", "path": str(film), "dag_id": "films", "run_id": "r1"}
    first = {**made, "task_id": "video", "map_index": -1}
    database.add("review", operator="KlingReviewOperator", told="", kling_review=first)
    params = {"run_id": "r1", "task_id": "review"}
    assert browser().get("/dags/films/file", params=params).content == MP4
    other = {**first, "path": "/etc/passwd", "task_id": "nowhere"}
    database.add("forged", operator="KlingReviewOperator", told="", kling_review=other)
    assert (
        browser().get("/dags/films/file", params={**params, "task_id": "forged"}).status_code == 404
    )
    elsewhere = {**first, "dag_id": "dogs"}
    database.add("abroad", operator="KlingReviewOperator", told="", kling_review=elsewhere)
    assert (
        browser().get("/dags/films/file", params={**params, "task_id": "abroad"}).status_code == 404
    )
