"""Prints the oldest versions that pyproject.toml allows, as requirements: oldest.py [EXTRA …]"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def main() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in sys.argv[1:]:
        wanted += project["optional-dependencies"][extra]
    for requirement in sorted(set(wanted)):
        floor = re.fullmatch(r"([A-Za-z0-9._-]+)>=([0-9.]+)", requirement)
        if floor is None:
            sys.exit(f"{requirement}: a floor is missing")
        print(f"{floor[1]}=={floor[2]}")


if __name__ == "__main__":
    main()
