"""The arrows point one way, and the package is light to carry."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kling_integrations

ROOT = Path(kling_integrations.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
HEAVY = {"requests", "aiohttp", "PIL", "av", "numpy", "IPython", "ipywidgets", "airflow", "sqlite3"}


def imports(path: Path, top_level_only: bool = False):
    """The modules that a file imports, in full."""
    tree = ast.parse(path.read_text("utf-8"))
    package = ["kling_integrations", *path.relative_to(ROOT).with_suffix("").parts[:-1]]
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)


FORBIDDEN = {
    "core": {"jupyter", "airflow", "cli", "commands", "sandbox"},
    "jupyter": {"airflow", "cli"},
    "airflow": {"jupyter", "cli", "commands", "sandbox"},
    "sandbox": {"jupyter", "airflow", "cli", "commands"},
    "commands": {"jupyter", "airflow", "cli"},
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_room_imports_against_the_arrows(path):
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for module in imports(path):
        parts = module.split(".")
        if parts[0] == "kling_integrations" and len(parts) > 1:
            assert parts[1] not in FORBIDDEN.get(room, set()), f"{path} imports {module}"


def test_the_core_knows_no_front_door_library():
    for path in (ROOT / "core").rglob("*.py"):
        found = {module.split(".")[0] for module in imports(path)}
        assert not found & {"IPython", "ipywidgets", "airflow"}, path


def test_the_wire_is_known_to_the_protocol_alone():
    for path in FILES:
        if "sandbox" in path.relative_to(ROOT).parts or path.name == "protocol.py":
            continue
        text = path.read_text("utf-8")
        for fact in ("/v2/video/generations", "/v2/billing", "generation_id="):
            assert f'"{fact}"' not in text, f"{path} knows {fact}"


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print('\\n'.join(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in out.stdout.split()}


@pytest.mark.parametrize(
    "statement",
    [
        "import kling_integrations",
        "from kling_integrations import KlingClient, AsyncKlingClient, VideoRequest",
        "from kling_integrations import VideoRequest; VideoRequest(prompt='a')",
    ],
)
def test_importing_pulls_in_nothing_heavy(statement):
    assert not loaded_by(statement) & (HEAVY - {"sqlite3"})


def test_every_public_name_is_there():
    for name in kling_integrations.__all__:
        assert getattr(kling_integrations, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        kling_integrations.nonsense  # noqa: B018


def test_a_client_makes_no_connection_when_it_is_made(monkeypatch):
    import socket

    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: pytest.fail("connected"))
    kling_integrations.KlingClient("key").close()


def test_errors_survive_pickling_for_workers_and_processes():
    import copy
    import pickle

    from kling_integrations import GenerationFailedError, SubmissionUncertainError

    error = SubmissionUncertainError("?", client_request_id="kling-1", hint="look")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.client_request_id) == (str(error), "kling-1")
    failed = GenerationFailedError("no", kind="moderation", generation_id="-x")
    assert copy.copy(failed).kind == "moderation"
