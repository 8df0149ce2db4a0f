"""An earlier video as the image: its last frame, for a film that goes on where it ended."""

from __future__ import annotations

import json

import pytest

from kling_integrations.airflow.exceptions import KlingFailed


@pytest.fixture
def earlier(sandbox, task, operator, tmp_path):
    return task(operator(deferrable=False, output_path=str(tmp_path / "one.mp4"))).run()


@pytest.mark.parametrize("as_text", [False, True], ids=["mapping", "text"])
def test_a_film_goes_on_with_the_last_frame_of_the_task_before(
    sandbox, task, operator, earlier, as_text
):
    image = json.dumps(earlier) if as_text else earlier
    made = task(operator(image=image, image_frame="last", deferrable=False)).run()
    sent = sandbox.posts[-1].body["image_url"]
    assert sent.startswith("data:image/")
    assert made["parameters"]["image"]["task_id"] == "video"
    assert made["parameters"]["image_frame"] == "last"
    first = task(operator(image=image, image_frame="first", deferrable=False))
    first.run()
    assert sandbox.posts[-1].body["image_url"] != sent


@pytest.mark.parametrize(
    "wrong",
    [
        {"image": None, "image_frame": "last"},
        {"image": "https://store.test/a.mp4", "image_frame": "last"},
        {"image": "/nowhere/a.mp4", "image_frame": "last"},
        {"image": {"path": None}, "image_frame": "last"},
        {"image": "/nowhere/a.mp4", "image_frame": "middle"},
    ],
)
def test_what_is_no_video_is_refused_before_the_submit(sandbox, task, operator, wrong):
    with pytest.raises(KlingFailed):
        task(operator(**wrong)).run()
    assert not sandbox.posts
