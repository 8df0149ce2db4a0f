"""The catalogue: every documented model, found by id, other spelling and alias."""

import json
from pathlib import Path

import pytest

from kling_integrations.core import catalog


def test_all_46_documented_models_are_there_with_unique_ids():
    ids = [model.id for model in catalog.models()]
    assert len(ids) == len(set(ids)) == 46


@pytest.mark.parametrize("model", catalog.models(), ids=lambda model: model.id)
def test_every_model_is_found_by_its_id_and_its_other_spellings(model):
    for name in (model.id, *model.spellings):
        assert catalog.find(name) is model


OFFERED = [model for model in catalog.models() if not model.deprecated]


@pytest.mark.parametrize("model", OFFERED, ids=lambda model: model.id)
def test_every_model_is_reached_by_its_alias_when_its_inputs_are_given(model):
    given = {name for name, parameter in model.parameters.items() if parameter.required}
    if model.task == "video-to-video-reference":
        given.add("aspect_ratio")  # the edit model takes the same inputs: the full alias tells
        assert catalog.find(f"{model.alias}-{model.task}", given) is model
    else:
        assert catalog.find(model.alias, given) is model


@pytest.mark.parametrize(
    ("alias", "given", "model_id"),
    [
        ("v2.5-turbo-pro", [], "klingai/v2.5-turbo/pro/text-to-video"),
        ("v2.5-turbo/pro", ["image_url"], "klingai/v2.5-turbo/pro/image-to-video"),
        ("V2.5 Turbo", [], "klingai/v2.5-turbo/pro/text-to-video"),
        ("v2.6-pro", ["image_url"], "klingai/video-v2-6-pro-image-to-video"),
        ("v2.6-pro", ["image_url", "video_url"], "klingai/video-v2-6-pro-motion-control"),
        ("v2-master", [], "klingai/v2-master-text-to-video"),
        ("o1", ["image_url"], "klingai/video-o1-image-to-video"),
        ("o1", ["image_list"], "klingai/video-o1-reference-to-video"),
        ("o1", ["video_url"], "klingai/video-o1-video-to-video-edit"),
        ("v3-pro", [], "klingai/video-v3-pro-text-to-video"),
        ("v3-std", [], "klingai/video-v3-standard-text-to-video"),
        ("v1.6-standard", ["image_list"], "kling-video/v1.6/standard/multi-image-to-video"),
        ("v1.6-pro", ["image_url", "effect_scene"], "klingai/kling-video-v1.6-pro-effects"),
    ],
)
def test_an_alias_names_a_family_and_the_inputs_choose_the_task(alias, given, model_id):
    assert catalog.find(alias, given).id == model_id


def test_an_alias_that_leaves_the_tier_open_names_the_choices():
    with pytest.raises(ValueError, match="v2.1-master, v2.1-pro, v2.1-standard"):
        catalog.find("v2.1")


def test_an_unknown_name_is_unknown_and_not_an_error():
    assert catalog.find("klingai/video-v9-ultra") is None


def test_a_near_miss_gets_a_suggestion():
    assert "v2.5-turbo-pro" in catalog.did_you_mean("v2.5-trubo-pro")
    assert catalog.did_you_mean("xyzzy") == ""


def test_expected_seconds_are_those_of_the_documents():
    master = catalog.find("klingai/v2-master-text-to-video")
    assert (master.expected_seconds(5), master.expected_seconds(10)) == (330, 750)
    assert catalog.find("klingai/video-v2-6-pro-text-to-video").expected_seconds(5) == 152
    assert catalog.find("klingai/video-v3-motion-control").expected_seconds(5) is None


def test_documented_defaults_have_the_documented_type():
    for model in catalog.models():
        for parameter in model.parameters.values():
            if parameter.default is not None and parameter.enum:
                assert parameter.default in parameter.enum, (model.id, parameter.name)


def test_models_json_is_sorted_into_parameters_that_the_package_understands():
    facts = json.loads(Path(catalog.__file__).with_name("models.json").read_text("utf-8"))
    types = {p["type"] for model in facts for p in model["parameters"].values()}
    assert types <= {"string", "integer", "number", "boolean", "array", "object", "string or array"}
