"""Whether a file is the one that a task was told to write.

A manifest is an XCom, and XComs can be edited by more people than may read every file that the
API server reaches. So a path is only followed where the task's rendered ``output_path``, which no
API edits, leads to it. Airflow deletes the rendered fields of old runs: their videos are shown
where the one who runs this Airflow has named the folder in ``[kling] video_roots``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

_MASKED = "***"
"""What Airflow puts in rendered fields for a word that is a secret somewhere."""


def is_allowed(path: str, told: object, roots: Sequence[str] = ()) -> bool:
    """``told`` is the rendered ``output_path``, None once Airflow has deleted it.

    ``roots``, where there are any, bound all that is followed; a run whose rendered fields are
    gone is shown only below them.
    """
    if not _is_plain(path):
        return False
    below = any(_plain(path).startswith(f"{_plain(root).rstrip('/')}/") for root in roots)
    if roots and not below:
        return False
    return below if told is None else isinstance(told, str) and leads_to(told, path)


def leads_to(told: str, path: str) -> bool:
    """Whether a task that was told to save to ``told`` may have saved to ``path``."""
    told = told.strip()
    if not told or not _is_plain(told) or not _is_plain(path):
        return False
    is_folder, told = told.endswith("/"), _plain(told)
    parts = [re.escape(part) for part in told.rstrip("/").split(_MASKED)]
    pattern = r"[^/]+".join(parts) + (r"/[^/]+" if is_folder else "")
    prefix = r"(?:.*/)?" if "://" not in told and not told.startswith("/") else ""
    # Further takes of a review are beside the first.
    first_take = re.sub(r"-take\d+(\.[^./]+)$", r"\1", _plain(path))
    return any(re.fullmatch(prefix + pattern, one) for one in (_plain(path), first_take))


def _is_plain(path: str) -> bool:
    parts = PurePosixPath(path.partition("://")[2] or path).parts
    return ".." not in parts and "\0" not in path and bool(parts)


def _plain(path: str) -> str:
    """Local files as absolute paths, whichever way they are written."""
    return path.removeprefix("file://") if path.startswith("file://") else path
