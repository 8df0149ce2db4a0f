"""The public face, as a type checker sees it."""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def mypy(file: Path) -> str:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(file)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout


def test_a_type_checker_accepts_the_public_names_as_users_write_them():
    assert mypy(HERE / "accepted.py") == ""


def test_a_type_checker_finds_each_mistake_and_no_other():
    file = HERE / "refused.py"
    lines = file.read_text("utf-8").splitlines()
    marked = {number for number, line in enumerate(lines, 1) if "# refused:" in line}
    found = {int(number) for number in re.findall(r"refused\.py:(\d+): error", mypy(file))}
    assert found == marked
