"""The id, the link, the manifest and the assets of a finished generation."""

from __future__ import annotations

import json

from airflow.providers.common.compat.sdk import Asset, AssetAlias, TaskDeferred

from kling_integrations.airflow import KlingVideoOperator
from kling_integrations.airflow.version_compat import HAS_TABS

RACCOON = "A cheerful white raccoon"


def test_the_file_is_announced_to_the_outlets(sandbox, task, operator, tmp_path):
    asset, alias = Asset("teaser"), AssetAlias("teasers")
    attempt = task(operator(outlets=[asset, alias]))
    made = attempt.run()
    extra = attempt.outlet_events[asset].extra
    assert extra["generation_id"] == made["generation_id"]
    assert extra["uri"] == (tmp_path / "video.mp4").as_uri()
    ((added, its_extra),) = attempt.outlet_events[alias].added
    assert added.uri == extra["uri"]
    assert its_extra == extra


def test_without_an_output_path_nothing_is_downloaded(sandbox, task, operator):
    made = task(operator(output_path=None)).run()
    assert made["path"] is None
    assert sandbox.requests["download"] == 0


def test_the_id_and_the_link_are_there_before_the_wait(sandbox, task):
    waiting = task(lambda: KlingVideoOperator(task_id="v", prompt=RACCOON, deferrable=True))
    assert isinstance(waiting.start(), TaskDeferred)
    (generation_id,) = sandbox.jobs
    assert waiting.xcom["generation_id"] == generation_id
    link = waiting.xcom["_link_KlingVideoLink"]
    assert link.endswith(f"/dags/dag/runs/{waiting.run_id}/tasks/video/plugin/kling-video") or (
        not HAS_TABS and sandbox.base_url in link
    )


def test_nothing_that_airflow_keeps_holds_a_url_of_the_video_or_the_key(
    sandbox, task, operator, deferrable, logged
):
    attempt = task(operator())
    made = attempt.run()
    kept = [json.dumps(made), json.dumps(attempt.xcom), str(attempt.store.rows), logged()]
    if deferrable:
        kept += [json.dumps(attempt.event), json.dumps(attempt.trigger.serialize())]
    (job,) = sandbox.jobs.values()
    for text in kept:
        assert job.slug not in text or "X-Amz" not in text
        assert "Signature" not in text
        assert "Bearer" not in text


def test_what_is_paid_for_is_delivered_though_its_image_is_gone(sandbox, task, tmp_path):
    from PIL import Image

    picture = tmp_path / "first.png"
    Image.new("RGB", (640, 360), "teal").save(picture)
    attempt = task(
        lambda: KlingVideoOperator(
            task_id="v",
            prompt=RACCOON,
            image=picture.as_uri(),
            output_path=str(tmp_path / "v.mp4"),
            deferrable=True,
        )
    )
    attempt.start()
    picture.unlink()
    made = attempt.resume()
    assert made["size"] == (tmp_path / "v.mp4").stat().st_size
    assert made["model"] == sandbox.posts[0].body["model"]
