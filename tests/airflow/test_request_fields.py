"""From rendered fields to what the gateway gets."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG

from kling_integrations.airflow import KlingVideoOperator, KlingVideoSensor
from kling_integrations.airflow.exceptions import KlingTaskError


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


# --- what a template leaves -----------------------------------------------------------------------


def rendered(values, **fields):
    """A maker of operators whose templates are filled in from ``values``."""

    def make():
        operator = KlingVideoOperator(task_id="v", **{"prompt": "A fox", **fields})
        operator.render_template_fields(values)
        return operator

    return make


@pytest.mark.parametrize("value", [None, "", " ", "None", "nan", "<NA>"])
@pytest.mark.parametrize("field", ["image", "tail_image"])
def test_a_picture_that_was_given_and_is_lost_is_refused(sandbox, task, field, value):
    with pytest.raises(AirflowFailException, match=field):
        task(rendered({"picture": value}, **{field: "{{ picture }}"})).run()
    assert sandbox.posts == []


def test_so_is_one_that_another_tasks_output_was_to_be(sandbox, task):
    """As an XCom is resolved: the value takes the place of what the DAG named."""

    def make():
        operator = KlingVideoOperator(task_id="v", prompt="A fox", image=object())
        operator.image = None
        return operator

    with pytest.raises(AirflowFailException):
        task(make).run()
    assert sandbox.posts == []


def test_no_picture_in_the_dag_is_a_video_of_the_text(sandbox, task):
    for fields in ({}, {"image": None}, {"image": None, "tail_image": None}):
        task(rendered({}, **fields)).run()
    assert {"image_url" in post.body for post in sandbox.posts} == {False}


@pytest.mark.parametrize(("picture", "refused"), [(None, True), ("", True), ("url", False)])
@pytest.mark.parametrize("in_mappings", [False, True])
def test_a_picture_that_a_mapped_task_lost_is_refused(sandbox, task, picture, refused, in_mappings):
    """``expand(image=[…, None])`` and ``expand_kwargs``: its value is no literal of the DAG."""
    url = "https://example.com/fox.png"
    values = [{"image": url if picture == "url" else picture}]
    with DAG("dag", schedule=None):
        partial = KlingVideoOperator.partial(task_id="v", prompt="A fox")
        mapped = (
            partial.expand_kwargs(values)
            if in_mappings
            else partial.expand(image=[each["image"] for each in values])
        )
    attempt = task(lambda: mapped.unmap(values[0]), map_index=0)
    if refused:
        with pytest.raises(AirflowFailException):
            attempt.run()
    else:
        attempt.run()
    assert len(sandbox.posts) == (not refused)


def test_a_mapped_task_without_a_picture_is_a_video_of_the_text(sandbox, task):
    with DAG("dag", schedule=None):
        partial = KlingVideoOperator.partial(task_id="v", image=None)
        mapped = partial.expand(prompt=["A fox"])
    task(lambda: mapped.unmap({"prompt": "A fox"}), map_index=0).run()
    assert len(sandbox.posts) == 1


@pytest.mark.parametrize("prompt", ["None", "nan", "<NA>", "#REF!", float("nan"), " "])
def test_a_prompt_that_is_what_is_left_of_one_is_refused(sandbox, task, prompt):
    with pytest.raises(AirflowFailException, match="say what the video should show"):
        task(lambda: KlingVideoOperator(task_id="v", prompt=prompt)).run()
    assert sandbox.posts == []


@pytest.mark.parametrize("duration", [5, "5", 5.0, "5.0", "5.00"])
@pytest.mark.parametrize("model", [None, "None", "", "v2.5-turbo-pro"])
def test_a_number_of_a_form_and_a_model_that_is_left_out_are_the_same_request(
    sandbox, task, duration, model
):
    task(
        lambda: KlingVideoOperator(task_id="v", prompt="A fox", duration=duration, model=model)
    ).run()
    (post,) = sandbox.posts
    assert post.body["duration"] == 5
    assert post.body["model"] == "klingai/v2.5-turbo/pro/text-to-video"


@pytest.mark.parametrize("text", ["{'aspect_ratio': '1:1'}", '{"aspect_ratio": "1:1"}'])
def test_parameters_and_extra_may_be_the_text_of_a_template(sandbox, task, text):
    values = {"more": text, "none": None}
    task(rendered(values, parameters="{{ more }}", extra="{{ none }}")).run()
    task(rendered(values, parameters="{{ none }}", extra="{'watermark': False}")).run()
    first, second = sandbox.posts
    assert first.body["aspect_ratio"] == "1:1"
    assert second.body["watermark"] is False


def test_parameters_that_are_no_mapping_are_refused(sandbox, task):
    with pytest.raises(AirflowFailException, match="parameters is a dictionary"):
        task(rendered({}, parameters="[1, 2]")).run()
    assert sandbox.posts == []


@pytest.mark.parametrize(
    "target",
    ["None", "nan", "fox.mp4", "s3//bucket/fox.mp4", "s4://b/fox.mp4", "https://h/fox.mp4"]
    + ["gs://b/fox.mp4", "/dev/null/fox.mp4"],
)
def test_a_place_that_cannot_be_is_refused_before_it_pays(sandbox, task, target, submitted):
    with pytest.raises(AirflowFailException, match="output_path"):
        task(rendered({"path": target}, output_path="{{ path }}", durable=False)).run()
    assert len(sandbox.posts) == 1  # the fixture's own
    with pytest.raises(KlingTaskError, match="output_path"):
        task(
            lambda: KlingVideoSensor(task_id="s", generation_id=submitted, output_path=target)
        ).run()


def test_without_a_place_nothing_is_downloaded(sandbox, task):
    for path in ("", " ", None):
        made = task(rendered({"path": path or ""}, output_path="{{ path }}")).run()
        assert made["path"] is None
