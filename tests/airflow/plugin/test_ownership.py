"""Only the file that a task was told to write is opened for it."""

from __future__ import annotations

import pytest

from kling_integrations.airflow.plugin.ownership import is_allowed, leads_to

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize(
    ("told", "path"),
    [
        ("/videos/run/a.mp4", "/videos/run/a.mp4"),
        ("file:///videos/run/a.mp4", "/videos/run/a.mp4"),
        ("/videos/run/", "/videos/run/fox-1a2b.mp4"),
        ("s3://films/run/a.mp4", "s3://films/run/a.mp4"),
        ("s3://aws@films/run/", "s3://aws@films/run/fox.mp4"),
        ("videos/a.mp4", "/opt/airflow/videos/a.mp4"),
        ("/data/***/run/a.mp4", "/data/sandbox/run/a.mp4"),  # a word that Airflow masks
    ],
)
def test_the_told_path_leads_to_its_file(told, path):
    assert leads_to(told, path)


@pytest.mark.parametrize(
    ("told", "path"),
    [
        ("/videos/run/a.mp4", "/videos/other/a.mp4"),
        ("/videos/run/a.mp4", "/etc/passwd"),
        ("/videos/run/a.mp4", "/videos/run/a.mp4/../../../etc/passwd"),
        ("/videos/run/../a.mp4", "/videos/run/../a.mp4"),
        ("/videos/run/", "/videos/run/deeper/a.mp4"),
        ("/videos/run/", "/videos/run/"),
        ("/videos/run/", "/videos/run/../other.mp4"),
        ("/videos/run", "/videos/run2"),
        ("s3://films/run/a.mp4", "s3://secrets/run/a.mp4"),
        ("s3://films/run/a.mp4", "s3://other_connection@films/run/a.mp4"),
        ("s3://films/run/a.mp4", "gs://films/run/a.mp4"),
        ("s3://films/a.mp4", "/films/a.mp4"),
        ("/data/***/a.mp4", "/data/b/c/a.mp4"),
        ("/data/a.mp4", "/data/a_mp4"),
        ("", "/etc/passwd"),
        ("/videos/a.mp4", "/videos/a.mp4\0"),
    ],
)
def test_it_leads_nowhere_else(told, path):
    assert not leads_to(told, path)
    assert not is_allowed(path, told)


def test_a_task_that_saved_nothing_allows_nothing():
    assert not is_allowed("/videos/a.mp4", "")


def test_roots_bound_what_is_opened():
    assert is_allowed("/videos/a.mp4", "/videos/a.mp4", ["/videos"])
    assert is_allowed("/videos/a.mp4", "/videos/a.mp4", ["file:///videos/"])
    assert not is_allowed("/videos/a.mp4", "/videos/a.mp4", ["/films"])
    assert not is_allowed("/videosecrets/a.mp4", "/videosecrets/a.mp4", ["/videos"])
    assert not is_allowed("/videos/b.mp4", "/videos/a.mp4", ["/videos"])


def test_a_run_whose_fields_are_gone_is_shown_below_the_roots_only():
    assert is_allowed("/videos/a.mp4", None, ["/videos"])
    assert not is_allowed("/videos/a.mp4", None)
    assert not is_allowed("/videos/../etc/a.mp4", None, ["/videos"])
