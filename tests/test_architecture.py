"""The arrows point one way, without a circle, and the package is light to carry."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import kling_integrations

ROOT = Path(kling_integrations.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
HEAVY = {
    "requests",
    "aiohttp",
    "PIL",
    "av",
    "numpy",
    "IPython",
    "ipywidgets",
    "anywidget",
    "airflow",
    "sqlite3",
}


def module_of(path: Path) -> str:
    parts = ["kling_integrations", *path.relative_to(ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports(path: Path, top_level_only: bool = False):
    """The modules that a file imports, in full: also inside functions and for types only."""
    tree = ast.parse(path.read_text("utf-8"))
    package = ["kling_integrations", *path.relative_to(ROOT).with_suffix("").parts[:-1]]
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{name}.{alias.name}"
                yield full if full in MODULES else name


def graph() -> dict[str, set[str]]:
    """Each module of the package and the modules of the package that it imports.

    The lazy names of a package's ``__init__`` are its public face, not its work: only what it
    imports at the top counts, so that a public face may name what is above it.
    """
    arrows = {}
    for name, path in MODULES.items():
        found = set(imports(path, top_level_only=path.name == "__init__.py"))
        arrows[name] = {each for each in found if each in MODULES and each != name}
    return arrows


def circle_in(arrows: dict[str, set[str]]) -> list[str]:
    """One circle as the modules on it; empty where there is none."""
    state: dict[str, int] = {}
    trail: list[str] = []

    def visit(module: str) -> list[str]:
        state[module] = 1
        trail.append(module)
        for other in sorted(arrows.get(module, ())):
            if state.get(other) == 1:
                return [*trail[trail.index(other) :], other]
            if other not in state and (found := visit(other)):
                return found
        state[module] = 2
        trail.pop()
        return []

    for module in sorted(arrows):
        if module not in state and (found := visit(module)):
            return found
    return []


def test_a_circle_would_be_found():
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_module_imports_itself_by_way_of_others():
    assert circle_in(graph()) == []


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


FLAT = [path for path in (ROOT / "core").glob("*.py") if path.name != "__init__.py"]
DRIVERS = ("requests", "aiohttp", "urllib3", "sqlite3", "filelock", "fsspec")


@pytest.mark.parametrize("path", FLAT, ids=lambda path: path.name)
def test_a_flat_module_of_the_core_has_no_network_no_database_and_no_disk(path):
    for module in imports(path):
        assert module.split(".")[0] not in DRIVERS, f"{path.name} imports {module}"
        for room in ("http", "storage", "media"):
            assert not module.startswith(f"kling_integrations.core.{room}"), module


def test_the_core_knows_no_integrations_library():
    for path in (ROOT / "core").rglob("*.py"):
        found = {module.split(".")[0] for module in imports(path)}
        assert not found & {"IPython", "ipywidgets", "airflow"}, path


def test_command_modules_import_helpers_and_never_each_other():
    commands = "kling_integrations.commands"
    for path in (ROOT / "commands").glob("*.py"):
        if path.name in ("__init__.py", "_parser.py"):
            continue
        for module in imports(path):
            if module.startswith(f"{commands}."):
                name = module.removeprefix(f"{commands}.").split(".")[0]
                assert name.startswith("_"), f"{path.name} imports {name}"
                assert name != "_parser", f"{path.name} imports upwards"


def test_the_notebook_sees_the_commands_through_their_public_face_only():
    for path in (ROOT / "jupyter").rglob("*.py"):
        for module in imports(path):
            assert not module.startswith("kling_integrations.commands."), f"{path}: {module}"


def test_the_displays_of_the_notebook_never_import_its_session():
    for path in (ROOT / "jupyter" / "display").glob("*.py"):
        assert "kling_integrations.jupyter.session" not in set(imports(path)), path


def test_the_sensor_never_imports_the_operator():
    found = set(imports(ROOT / "airflow" / "sensors.py"))
    assert "kling_integrations.airflow.operators" not in found


def texts_of(path: Path):
    """The string literals of a file, docstrings and comments left out."""
    tree = ast.parse(path.read_text("utf-8"))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if text and id(node) not in docstrings:
            yield node.value


SHELL = re.compile(
    r"(?<![\w/.-])kling (?=[a-z-])|(?<![\w-])--[a-z][a-z-]+|%%?kling|KlingVideoSensor"
)


@pytest.mark.parametrize("path", sorted((ROOT / "core").rglob("*.py")), ids=lambda path: path.name)
def test_no_message_of_the_core_speaks_the_language_of_an_integration(path):
    for text in texts_of(path):
        assert not SHELL.search(text), f"{path.name} says {text!r}"


def test_the_wire_is_known_to_the_protocol_alone():
    for path in FILES:
        if "sandbox" in path.relative_to(ROOT).parts or path.name == "protocol.py":
            continue
        text = path.read_text("utf-8")
        for fact in ("/v2/video/generations", "/v2/billing", "generation_id="):
            assert f'"{fact}"' not in text, f"{path} knows {fact}"


PRIVATE_WORDS = re.compile(
    r"\b(whoever|nobody|wonders?|minding|filing|upkeep|verdicts?|discreet|seconds of the wall"
    r"|front doors?)\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_comments_and_docstrings_use_the_terms_of_the_field(path):
    text = path.read_text("utf-8")
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    for token in tokens:
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            found = PRIVATE_WORDS.search(token.string)
            assert not found, f"{path}:{token.start[0]} says {found[0] if found else ''!r}"


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


def test_loading_the_extension_reads_neither_the_catalogue_nor_a_request():
    """What a notebook waits for before its first cell; each of them takes as long as the rest."""
    code = (
        "import sys; from IPython.core.interactiveshell import InteractiveShell as Shell;"
        "Shell.instance().run_line_magic('load_ext', 'kling_integrations');"
        "print('\\n'.join(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = {name.removeprefix("kling_integrations.") for name in out.stdout.split()}
    assert not names & {"anywidget", "ipywidgets", "psutil", "importlib.metadata", "email"}
    assert "jupyter.magics" in names
    assert not names & {"core.catalog", "core.request", "core.cost", "commands", "jupyter.session"}


def test_the_names_of_the_notebook_are_listed_once():
    from kling_integrations import jupyter

    own = {"load_ipython_extension", "unload_ipython_extension"}
    assert set(jupyter.__all__) == own | set(kling_integrations.names_in("jupyter"))
    assert {"generate", "batch", "KlingVideo"} < set(jupyter.__all__)
    assert set(jupyter.__all__) <= set(kling_integrations.__all__)
    assert jupyter.generate is kling_integrations.generate


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

    from kling_integrations import GenerationFailedError, NextStep, SubmissionUncertainError, Verb

    step = NextStep(Verb.RECOVER, client_request_id="kling-1")
    error = SubmissionUncertainError("?", client_request_id="kling-1", next_steps=[step])
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.client_request_id) == (str(error), "kling-1")
    assert again.next_steps == (step,)
    failed = GenerationFailedError("no", kind="moderation", generation_id="-x")
    assert copy.copy(failed).kind == "moderation"
