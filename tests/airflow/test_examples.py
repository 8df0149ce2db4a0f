"""The example DAGs: importable, documented, and without a secret in them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from airflow.sdk import DAG

EXAMPLES = sorted((Path(__file__).parent.parent.parent / "dags_examples").glob("*.py"))


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_those_that_the_readme_names():
    assert {path.stem for path in EXAMPLES} == {
        "quick_start",
        "submit_and_sense",
        "batch_with_pool",
        "image_to_video",
        "asset_driven",
        "prompt_from_function",
        "review_before_publishing",
    }


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_each_says_what_it_shows_and_what_it_needs(path):
    module = load(path)
    dags = [value for value in vars(module).values() if isinstance(value, DAG)]
    assert dags
    assert "**Needs:**" in (module.__doc__ or "")
    for dag in dags:
        assert dag.doc_md == module.__doc__
        assert dag.tasks
        assert "kling" in dag.tags


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_each_survives_serialisation(path):
    from airflow.serialization import serialized_objects

    newer = getattr(serialized_objects, "DagSerialization", None)
    serializer = newer or serialized_objects.SerializedDAG
    for dag in (value for value in vars(load(path)).values() if isinstance(value, DAG)):
        assert dag.dag_id in str(serializer.to_dict(dag))


def test_an_image_of_an_earlier_task_is_waited_for():
    (path,) = (path for path in EXAMPLES if path.stem == "image_to_video")
    assert load(path).dag.get_task("animate").upstream_task_ids == {"draw"}
