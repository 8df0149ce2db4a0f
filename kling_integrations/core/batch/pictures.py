"""Pictures of rows, which a later round of the same batch need not read again. No I/O.

A row is known by what its picture shows, so checking a table reads all of them; a round that only
saves and submits more would do so every time. What the first one found is kept beside the records,
and holds as long as the table says the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from . import cells
from .rows import Row, Table


def digest(
    table: Table, base_url: str, defaults: Mapping[str, Any], names: Mapping[str, str]
) -> str:
    """What a table, checked for this gateway, is known by."""
    said = [base_url, list(table.columns), list(table.records), dict(defaults), dict(names)]
    text = json.dumps(said, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


def to_json(rows: Iterable[Row], digest: str) -> dict[str, Any] | None:
    """The fingerprints of the rows whose pictures were read, to be kept; None without any."""
    found = {row.number: row.fingerprint for row in rows if reads_pictures(row.parameters)}
    return {"table": digest, "fingerprints": found} if found else None


def from_json(stored: object, digest: str) -> dict[int, str]:
    """The fingerprints by the number of their row; none where they are of another table."""
    try:
        if isinstance(stored, Mapping) and stored["table"] == digest:
            return {int(number): str(each) for number, each in stored["fingerprints"].items()}
    except (KeyError, ValueError, AttributeError):
        pass
    return {}


def reads_pictures(parameters: Mapping[str, Any]) -> bool:
    """Whether making a request of these reads a file, or something in object storage."""
    return any(cells.is_image(name) and cells.is_read(value) for name, value in parameters.items())
