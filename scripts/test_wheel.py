"""The built packages, and what a wheel brings with each extra alone:

    python scripts/test_wheel.py [EXTRA …]         # the default: all of EXTRAS

Builds wheel and sdist twice (they must be the same bytes), checks their contents and what PyPI
would make of them, then installs the wheel with one extra in a bare environment and tries what the
README promises of that extra. Nothing of this checkout can be imported meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("build", "twine", "hatchling", "moto[s3]", "flask", "flask-cors")
GIT = shutil.which("git") or "git"
RACCOON = "A white raccoon in a forest"

# What a wheel is not complete without, and what has no place in it.
NEEDED = (
    "py.typed",
    "core/models.json",
    "airflow/plugin/static/page.js",
    "jupyter/display/live.js",
    "jupyter/display/live.css",
)
STRANGE = ("tests/", "docs/", "benchmarks/", ".pyc", ".ipynb", ".venv", "__pycache__")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        tools = environment(work / "tools", *TOOLS)
        wheel = check_packages(tools, work)
        for extra in sys.argv[1:] or EXTRAS:
            python = environment(work / extra, f"{wheel}[{extra}]")
            place = work / f"{extra}-films"
            place.mkdir()
            try_it = EXTRAS[extra]
            with sandbox(python, place) as variables:
                try_it(Bare(python, place, variables, tools))
            print(f"[{extra}]: {(try_it.__doc__ or '').strip()}", flush=True)
            shutil.rmtree(work / extra)


# --- the packages ------------------------------------------------------------------------------


def check_packages(tools: Path, work: Path) -> Path:
    made = [build(tools, work / name) for name in ("first", "second")]
    for one, other in zip(*made, strict=True):
        assert digest(one) == digest(other), f"{one.name} is another one each time"
    wheel, sdist = made[0]
    run([tools, "-m", "twine", "check", "--strict", wheel, sdist])
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for needed in NEEDED:
        assert any(f"kling_integrations/{needed}" in name for name in names), needed
    tops = {name.split("/")[0] for name in names}
    assert all(top.startswith("kling_integrations") for top in tops), tops
    strange = [name for name in names for piece in STRANGE if piece in name]
    assert not strange, strange
    with tarfile.open(sdist) as source:
        inside = {name.split("/", 1)[-1] for name in source.getnames()}
    for needed in ("README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "tests/conftest.py"):
        assert needed in inside, f"the sdist lacks {needed}"
    assert not [name for name in inside if ".venv" in name or name.startswith("build/")]
    print(f"{wheel.name}, {sdist.name}: the same bytes twice, contents as they should be")
    return wheel


def build(tools: Path, folder: Path) -> tuple[Path, Path]:
    """A copy of what is checked in is built, at a fixed time."""
    source = folder / "source"
    source.mkdir(parents=True)
    archive = folder / "source.zip"
    run([GIT, "archive", "-o", archive, "HEAD"], cwd=ROOT)
    shutil.unpack_archive(archive, source)
    when = {**os.environ, "SOURCE_DATE_EPOCH": "1767225600"}
    run([tools, "-m", "build", "--no-isolation", "-o", folder / "dist", source], env=when)
    (wheel,), (sdist,) = (list((folder / "dist").glob(end)) for end in ("*.whl", "*.tar.gz"))
    return wheel, sdist


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- a bare environment ------------------------------------------------------------------------


def environment(folder: Path, *requirements: str) -> Path:
    """The interpreter of a new environment that holds these, in the versions of constraints.txt."""
    run([sys.executable, "-m", "venv", "--without-pip", folder])
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    known = ["--disable-pip-version-check", "-c", ROOT / "constraints.txt"]
    run([*pip, *known, *requirements])
    return python


class Bare:
    """Runs what is installed there, in a folder of its own, against a sandbox."""

    def __init__(self, python: Path, place: Path, env: Mapping[str, str], tools: Path) -> None:
        self.python, self.place, self.tools = python, place, tools
        self.env = dict(env)

    def kling(self, *words: str) -> str:
        return run([self.python.with_name("kling"), *words], env=self.env, cwd=self.place)

    def run(self, code: str) -> str:
        return run([self.python, "-c", code], env=self.env, cwd=self.place)

    def lacks(self, *modules: str) -> None:
        for module in modules:
            code = f"import importlib.util as u; assert u.find_spec({module!r}) is None"
            self.run(code)


@contextmanager
def sandbox(python: Path, place: Path) -> Iterator[dict[str, str]]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("KLING", "AIML", "AIRFLOW", "PYTHON", "AWS"))
    }
    env = {**kept, "KLING_HOME": str(place / "home"), "AIRFLOW_HOME": str(place / "airflow")}
    command = [python.with_name("kling"), "sandbox", "--port", "0", "--speed", "300"]
    server = subprocess.Popen(command, env=env, cwd=place, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        for line in server.stdout:
            if "export AIML_BASE_URL=" in line:
                yield {**env, "AIML_BASE_URL": line.split("AIML_BASE_URL=")[1].strip()}
                return
        raise AssertionError("the sandbox ended by itself")
    finally:
        server.terminate()
        server.communicate(timeout=30)


def run(
    command: Sequence[object], env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        check=False,
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout


def is_video(path: Path) -> bool:
    return path.read_bytes()[4:8] == b"ftyp"


# --- what each extra promises ------------------------------------------------------------------


def try_jupyter(bare: Bare) -> None:
    """a cell makes a video, and made again it is the same one"""
    bare.lacks("airflow", "s3fs", "pandas")
    cell = (
        "from IPython.core.interactiveshell import InteractiveShell as S; s = S.instance()\n"
        "s.run_line_magic('load_ext', 'kling_integrations')\n"
        f"for _ in range(2): s.run_cell_magic('kling', '-d 5 -o clip', {RACCOON!r})\n"
        "clip = s.user_ns['clip']; print(clip.path); clip.last_frame()\n"
    )
    path = bare.run(cell).strip().splitlines()[-1]
    assert is_video(bare.place / path)
    assert bare.kling("history", "--json").count('"generation_id"') == 1


def try_airflow(bare: Bare) -> None:
    """the provider is found, and a task of the README makes its video"""
    bare.lacks("IPython", "s3fs")
    airflow = bare.python.with_name("airflow")
    bare.env |= {"AIRFLOW__CORE__LOAD_EXAMPLES": "False", "HOME": str(bare.place)}
    run([airflow, "db", "migrate"], env=bare.env, cwd=bare.place)
    found = run([airflow, "providers", "list"], env=bare.env, cwd=bare.place)
    assert "kling-integrations" in found
    connection = '{"conn_type": "kling", "password": "sandbox", "host": "%s"}'
    bare.env["AIRFLOW_CONN_KLING_DEFAULT"] = connection % bare.env["AIML_BASE_URL"]
    dag = bare.place / "teaser.py"
    dag.write_text(
        "from airflow.sdk import DAG\n"
        "from kling_integrations.airflow import KlingVideoOperator\n"
        "with DAG('teaser') as dag:\n"
        f"    KlingVideoOperator(task_id='teaser', prompt={RACCOON!r}, duration=5,\n"
        f"        output_path={str(bare.place / 'teaser.mp4')!r}, deferrable=True, retries=3)\n"
        "if __name__ == '__main__':\n"
        "    from airflow.dag_processing.dagbag import DagBag\n"
        "    dag.test()\n"
    )
    bare.env["AIRFLOW__CORE__DAGS_FOLDER"] = str(bare.place)
    run([airflow, "dags", "reserialize"], env=bare.env, cwd=bare.place)
    run([airflow, "dags", "test", "teaser"], env=bare.env, cwd=bare.place)
    assert is_video(bare.place / "teaser.mp4")


def try_sandbox(bare: Bare) -> None:
    """videos show their prompts, and one goes on from another's last frame"""
    bare.lacks("airflow", "IPython", "s3fs")
    assert is_video(bare.place / bare.kling("generate", RACCOON, "-o", "raccoon.mp4").strip())
    assert is_video(bare.place / bare.kling("extend", "last", "It jumps over a log").strip())


def try_s3(bare: Bare) -> None:
    """two machines share a ledger in a bucket: one payment"""
    bare.lacks("airflow", "IPython", "av")
    sys.path.insert(0, str(ROOT))
    from tests.support import object_storage

    with object_storage.s3_server(str(bare.tools)) as s3:
        bare.env |= {**s3, "KLING_LEDGER": f"s3://{object_storage.BUCKET}/kling"}
        first = json.loads(bare.kling("generate", RACCOON, "--json", "-o", "anna.mp4"))
        bare.env["KLING_HOME"] = str(bare.place / "another")
        second = json.loads(bare.kling("generate", RACCOON, "--json", "-o", "ben.mp4"))
        assert second["generation_id"] == first["generation_id"]
        assert is_video(bare.place / "ben.mp4")


def try_tables(bare: Bare) -> None:
    """a table of prompts becomes a table of videos, as Parquet and as a DataFrame"""
    bare.lacks("airflow", "IPython", "av", "s3fs")
    (bare.place / "prompts.csv").write_text("prompt,sku\nA fox,1\nAn owl,2\n")
    bare.kling("batch", "prompts.csv", "-o", "videos/", "--results", "results.parquet")
    read = "import pandas; t = pandas.read_parquet('results.parquet'); print(*t.path, sep='\\n')"
    paths = bare.run(read).split()
    assert len(paths) == 2
    assert all(is_video(bare.place / path) for path in paths)


EXTRAS: dict[str, Callable[[Bare], None]] = {
    "jupyter": try_jupyter,
    "airflow": try_airflow,
    "sandbox": try_sandbox,
    "s3": try_s3,
    "tables": try_tables,
}


if __name__ == "__main__":
    main()
