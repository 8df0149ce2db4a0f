"""What Airflow and its users learn about the provider: guides that exist, settings that work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kling_integrations.airflow.get_provider_info import get_provider_info

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "airflow"


def test_every_guide_is_there_and_on_the_first_page():
    (integration,) = get_provider_info()["integrations"]
    index = (DOCS / "index.md").read_text("utf-8")
    for guide in integration["how-to-guide"]:
        page = ROOT / guide.lstrip("/")
        assert page.is_file(), guide
        assert page.name in index


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        assert "://" in target or (page.parent / target).resolve().exists(), target


def test_every_example_is_shown():
    text = "".join(page.read_text("utf-8") for page in DOCS.glob("*.md"))
    for example in (ROOT / "dags_examples").glob("*.py"):
        assert f"dags_examples/{example.name}" in text


def test_every_setting_is_documented_with_its_default():
    text = (DOCS / "operating.md").read_text("utf-8")
    for name, option in get_provider_info()["config"]["kling"]["options"].items():
        assert f"| `{name}` | {option['default'] or 'empty'} |" in text


def test_every_module_and_class_that_is_named_can_be_loaded():
    from importlib import import_module

    info = get_provider_info()
    names = [decorator["class-name"] for decorator in info["task-decorators"]]
    names += [plugin["plugin-class"] for plugin in info["plugins"]] + info["extra-links"]
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(import_module(module), attribute)
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for entry in info[kind]:
            for module in entry["python-modules"]:
                assert import_module(module)


def test_every_key_of_a_manifest_is_documented(sandbox, task, operator):
    made = task(operator(max_cost_usd=5)).run()
    text = (DOCS / "manifest.md").read_text("utf-8")
    assert not [key for key in made if f"`{key}`" not in text]
