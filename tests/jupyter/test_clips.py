"""Results that one works with: tables with posters, rows that play, GIFs and small copies."""

from __future__ import annotations

import pytest

import kling_integrations as kling
from kling_integrations.jupyter.frame_posters import frame_html

pd = pytest.importorskip("pandas")


@pytest.fixture
def clips(shell):
    shell.run("%%kling --sweep light=dawn,noon -d 5 --yes -o clips\nA heron, {light}")
    return shell["clips"]


def test_a_batch_is_a_list_that_shows_its_videos_and_makes_a_table(clips):
    assert isinstance(clips, list)
    assert clips._repr_mimebundle_()[0]["text/html"].count("<video") == 2
    frame = clips.to_frame()
    assert list(frame["clip"]) == list(clips)
    assert list(frame["prompt"]) == ["A heron, dawn", "A heron, noon"]
    assert frame["duration"].tolist() == pytest.approx([5, 5], abs=0.2)
    assert all(path.endswith(".mp4") for path in frame["path"])


def test_a_job_that_is_not_finished_has_a_row_without_a_file(shell, sandbox):
    sandbox.fault("poll", "odd-status", None, word="queued")
    job = kling.submit("A cat", duration=5)
    frame = kling.Clips([job]).to_frame()
    assert frame["path"].tolist() == [None]
    assert frame["clip"].tolist() == [job]
    assert kling.Clips([job]).videos == []
    job.stop_waiting()


def test_a_frame_shows_posters_and_all_else_as_pandas_does(clips, shell):
    frame = clips.to_frame()
    frame["score"] = 1 / 3
    html = frame_html(frame)
    assert html.count('<img alt="A heron, ') == 2
    assert "KlingVideo(" not in html
    assert "0.333333<" in html  # numbers as always
    frame["note"] = "<script>"
    assert "<script>" not in frame_html(frame)
    plain = pd.DataFrame({"a": [1, 2]})
    assert frame_html(plain) == plain._repr_html_()
    data, _ = shell.ip.display_formatter.format(frame)
    assert "data:image/jpeg;base64," in data["text/html"]
    shell.run("%unload_ext kling_integrations")
    data, _ = shell.ip.display_formatter.format(frame)
    assert "data:image/jpeg;base64," not in data["text/html"]
    shell.run("%load_ext kling_integrations")


def test_a_long_frame_is_shortened_as_pandas_does(clips):
    frame = pd.concat([clips.to_frame()] * 100, ignore_index=True)
    html = frame_html(frame)
    assert html.count("<img") == pd.get_option("display.min_rows")
    assert "200 rows" in html
    assert len(html) < 200_000


def test_show_takes_one_several_or_a_list(clips, monkeypatch):
    shown = []
    monkeypatch.setattr("kling_integrations.jupyter.display.in_step.publish", shown.append)
    kling.show(clips[0])
    kling.show(*clips, columns=2)
    kling.show(clips, labels=["Tom", "Rex"])
    counts = [bundle[0]["text/html"].count("<video") for bundle in shown]
    assert counts == [1, 2, 2]
    assert "onplay" in shown[1][0]["text/html"]
    with pytest.raises(kling.InvalidRequestError, match="no video"):
        kling.show("clip")


def test_a_clip_as_pictures_an_array_a_gif_and_a_small_copy(clips, tmp_path):
    clip = clips[0]
    assert len(list(clip.frames(fps=2))) == 10
    assert clip.to_numpy(fps=2, width=80).shape[0] == 10
    gif = clip.gif(width=120)
    assert '<img alt="A heron, dawn"' in gif._repr_mimebundle_()[0]["text/html"]
    assert gif.save(tmp_path / "a.gif").read_bytes()[:4] == b"GIF8"
    small = clip.preview(most_mb=0.1)
    assert len(small.data) <= 100_000
    assert 'src="data:video/mp4;base64,' in small.html
    assert "video/mp4 of 'A heron, dawn'" in repr(small)
