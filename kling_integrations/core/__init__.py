"""What a generation is and how to get one; knows no notebook, no DAG and no shell.

The flat modules decide, without network, database or disk: ``protocol`` and ``waiting`` what a
reply means and what comes next, ``flows`` what a verb does, ``submission`` what a record of a
payment says to do. ``http`` carries bytes, ``storage`` keeps records and videos, ``media`` reads
pictures and frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .identity import Picture


def encode_image(value: Any, *, name: str, model_id: str | None) -> Picture:
    """A picture of any kind as the gateway takes it; the one thing that a request needs of a disk.

    It stands here so that ``request`` itself does no I/O and is light to import. Raises
    InvalidRequestError, naming the parameter.
    """
    from .media import images

    return images.encode(value, name=name, model_id=model_id)
