"""From rendered fields to what the gateway gets."""

from __future__ import annotations

from kling_integrations.airflow import KlingVideoOperator


def test_templates_render_and_empty_ones_give_no_value(sandbox, task, tmp_path):
    def make() -> KlingVideoOperator:
        operator = KlingVideoOperator(
            task_id="v",
            prompt="{{ words }}",
            duration="{{ seconds }}",
            cfg_scale="{{ scale }}",
            negative_prompt="{{ nothing }}",
            parameters={"aspect_ratio": "{{ ratio }}"},
            output_path=str(tmp_path) + "/{{ words }}.mp4",
        )
        values = {"words": "fox", "seconds": 10, "scale": 0.5, "nothing": "", "ratio": "1:1"}
        operator.render_template_fields(values)
        return operator

    made = task(make).run()
    (post,) = sandbox.posts
    assert post.body["prompt"] == "fox"
    assert post.body["duration"] == 10
    assert post.body["cfg_scale"] == 0.5
    assert post.body["aspect_ratio"] == "1:1"
    assert "negative_prompt" not in post.body
    assert made["path"].endswith("/fox.mp4")


def test_an_image_of_any_store_goes_to_the_gateway(sandbox, task, tmp_path):
    from PIL import Image

    picture = tmp_path / "first.png"
    Image.new("RGB", (640, 360), "teal").save(picture)
    for image in (str(picture), picture.as_uri(), {"path": str(picture)}):
        task(lambda image=image: KlingVideoOperator(task_id="v", prompt="x", image=image)).run()
    assert len(sandbox.posts) == 3
    assert all(p.body["image_url"].startswith("data:image/png;base64,") for p in sandbox.posts)
    assert {"image-to-video" in p.body["model"] for p in sandbox.posts} == {True}
