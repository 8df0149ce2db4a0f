"""A session without an IPython: ``import kling_integrations as kling`` in any Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import kling_integrations as kling
from kling_integrations.jupyter import session as session_module
from kling_integrations.jupyter.options import loaded, set_loaded

pytestmark = pytest.mark.thorough


@pytest.fixture
def plain(home: Path) -> Iterator[Path]:
    """No magics, no shell: what a script and marimo have."""
    from IPython.core.interactiveshell import InteractiveShell

    InteractiveShell.clear_instance()
    set_loaded(None)
    yield home
    session_module.end()
    set_loaded(None)


def test_a_script_makes_a_video_and_says_how_far_it_is(plain, sandbox, capsys):
    clip = kling.generate("A cat", duration=5)
    assert clip.path.parent == plain / "kling_outputs"
    assert "queued" in (text := capsys.readouterr().out)
    assert "✔" in text
    assert kling.generate("A cat", duration=5).id == clip.id
    assert "new=True makes another one" in (again := capsys.readouterr().out)
    assert "--new" not in again
    assert sandbox.paid == 1


def test_jobs_extensions_and_galleries_need_no_magics(plain, sandbox):
    jobs = [kling.submit(f"A {animal}", duration=5) for animal in ("cat", "dog")]
    videos = [job.result(20) for job in jobs]
    more = videos[0].extend("It jumps")
    assert more.prompt == "It jumps"
    shown = kling.gallery([*jobs, more])
    assert shown._repr_mimebundle_()[0]["text/html"].count("<video") == 3
    assert sandbox.paid == 3


def test_history_is_a_table_of_what_was_submitted(plain):
    assert "No generation fits" in repr(kling.history())
    clip = kling.generate("A cat", duration=5)
    kling.generate("A dog", duration=5)
    found = kling.history(search="cat")
    assert [entry.generation_id for entry in found] == [clip.id]
    assert [video.id for video in found.videos] == [clip.id]
    data, _ = found._repr_mimebundle_()
    assert "<table" in data["text/html"]
    assert clip.id in data["text/plain"]
    assert len(kling.history(limit=1)) == 1


def test_an_earlier_generation_is_resumed_by_its_id_and_pays_nothing(plain, sandbox):
    job = kling.submit("A cat", duration=5)
    assert job.wait_for_id(10)
    assert kling.resume(job.id).id == job.id
    assert kling.resume("last", file="elsewhere/").path.parent == plain / "elsewhere"
    assert sandbox.paid == 1


def test_a_post_in_doubt_is_looked_up(plain, sandbox):
    sandbox.fault("submit", "drop-after")
    with pytest.raises(kling.SubmissionUncertainError, match=r"kling_integrations\.recover\(\)"):
        kling.generate("A cat", duration=5)
    sandbox.clear_faults()
    sandbox.finish()  # what still runs is not in the log
    (found,) = kling.recover()
    assert kling.resume(found.generation_id).prompt == "A cat"
    assert (sandbox.paid, sandbox.requests["submit"]) == (1, 1)


def test_errors_name_calls_that_are_there(plain, sandbox):
    sandbox.fault("poll", "odd-status", None, word="queued")
    with pytest.raises(kling.WaitTimeoutError) as caught:
        kling.generate("A cat", duration=5, timeout=1)
    assert f"kling_integrations.resume({caught.value.generation_id!r})" in str(caught.value)


def test_a_traceback_ends_at_the_call_unless_a_full_one_is_wanted(plain, sandbox):
    with pytest.raises(kling.GenerationFailedError) as caught:
        kling.generate("A riot [fail:moderation]", duration=5)
    assert len(caught.traceback) == 2  # here, and the function that was called
    kling.configure(short_errors=False)
    with pytest.raises(kling.GenerationFailedError) as caught:
        kling.generate("A riot [fail:moderation]", duration=5)
    assert len(caught.traceback) > 2


def test_options_are_set_by_a_call_and_all_or_none(plain):
    assert kling.configure(width=640, max_cost="2").width == 640
    assert loaded().options.max_cost == 2
    for wrong in (
        {"width": 0},
        {"width": "wide"},
        {"at_once": 1.5},
        {"ui": "odd"},
        {"nope": 1},
        {"output_dir": ".hidden"},
    ):
        with pytest.raises(kling.InvalidRequestError):
            kling.configure(timeout=7, **wrong)
    assert loaded().options.timeout != 7


def test_loading_the_extension_later_keeps_session_and_options(plain, sandbox, capsys):
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    kling.configure(width=333)
    job = kling.submit("A cat", duration=5)
    before = session_module.current()
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config)
    try:
        shell.run_line_magic("load_ext", "kling_integrations")
        assert session_module.current() is before
        assert loaded().options.width == 333
        shell.run_cell_magic("kling", "-d 5 -o clip", "A cat")
        assert shell.user_ns["clip"].id == job.result(20).id
        shell.run_line_magic("config", "KlingMagics.at_once = 2")
        assert before.watcher.at_once == 2
    finally:
        shell.run_line_magic("unload_ext", "kling_integrations")
        InteractiveShell.clear_instance()
    assert sandbox.paid == 1


def test_a_sandbox_is_started_once(plain, sandbox, monkeypatch):
    assert kling.use_sandbox() == sandbox.base_url  # it is in use already
    monkeypatch.setenv("AIML_BASE_URL", "https://api.aimlapi.com")
    monkeypatch.delenv("AIML_API_KEY")
    address = kling.use_sandbox(speed=1000, size=(160, 90), fps=8)
    assert kling.use_sandbox() == address
    assert kling.generate("A cat", duration=5).sandbox


def test_a_tag_is_kept_for_the_history_and_is_neither_sent_nor_another_request(plain, sandbox):
    clip = kling.generate("A cat", duration=5, tag="spring campaign")
    kling.generate("A dog", duration=5)
    assert kling.generate("A cat", duration=5, tag="another word").id == clip.id
    assert "tag" not in sandbox.posts[0].body
    (found,) = kling.history(tag="spring campaign")
    assert (found.generation_id, found.tag) == (clip.id, "spring campaign")
    assert list(kling.history(tag="spring")) == []
    with pytest.raises(kling.InvalidRequestError, match="tag"):
        kling.submit("A cat", tag="two\nlines")
    assert sandbox.paid == 2


def test_history_is_narrowed_to_a_day_before_it_is_cut(plain):
    kling.generate("A cat", duration=5)
    kling.generate("A dog", duration=5)
    assert len(kling.history(day="today")) == 2
    assert len(kling.history(day="today", limit=1)) == 1
    assert len(kling.history(day="2001-01-01")) == 0
    with pytest.raises(kling.InvalidRequestError, match="is not a day"):
        kling.history(day="someday")
