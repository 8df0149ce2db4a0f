"""The tree of kling_integrations.airflow: which module may import which."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import kling_integrations.airflow as package

FOLDER = Path(package.__file__).parent
SOURCES = {path.stem: ast.parse(path.read_text("utf-8")) for path in FOLDER.glob("*.py")}


def imported_by(module: str) -> set[str]:
    """Siblings that a module imports, inside functions and for types as well."""
    found = set()
    for node in ast.walk(SOURCES[module]):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {name.partition(".")[0] for name in names if name}
    return found


def test_no_circle():
    graph = {name: imported_by(name) for name in SOURCES if name != "__init__"}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_the_sensor_does_not_know_the_operator():
    graph = {name: imported_by(name) for name in SOURCES}
    reached, todo = set(), ["sensors"]
    while todo:
        todo += imported_by(name := todo.pop()) - reached
        reached.add(name)
    assert "operators" not in reached
    assert graph["operators"] & graph["sensors"] >= {"deferral", "delivery", "deadlines"}


def test_differences_between_versions_of_airflow_are_in_one_module():
    for name, tree in SOURCES.items():
        caught = {
            handler.type.id
            for handler in ast.walk(tree)
            if isinstance(handler, ast.ExceptHandler) and isinstance(handler.type, ast.Name)
        }
        assert name == "version_compat" or "ImportError" not in caught, name


def test_each_module_says_what_it_is_for():
    assert all(ast.get_docstring(tree) for tree in SOURCES.values())
