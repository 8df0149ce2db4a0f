"""The record of a review: its takes, what they cost, what was answered, what is under way."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import LedgerError
from . import version_compat

REVIEW_KEY = "kling_review"
"""Of the record in the task state store, and of the XCom that shows the newest take."""

_INPUTS = ("duration", "aspect_ratio", "negative_prompt", "cfg_scale", "image", "tail_image")
_MORE = ("audio", "parameters", "extra")


@dataclass(slots=True)
class Review:
    """``takes`` are manifests, the newest last; ``usd`` is what those after the first cost.

    ``pending`` is a take that somebody asked for: ``{prompt, since, usd?, fingerprint?}``;
    ``refused`` why the last one that was asked for is none. Every change is written before what
    follows from it.
    """

    store: Any
    takes: list[Mapping[str, Any]]
    usd: float = 0.0
    pending: dict[str, Any] | None = None
    answers: list[dict[str, Any]] = field(default_factory=list)
    refused: str | None = None

    @classmethod
    def load(cls, store: Any, first: Mapping[str, Any]) -> Review:
        """Raises what the store raises, and LedgerError: unreadable is not absent."""
        stored = store.get(REVIEW_KEY) if store is not None else None
        if stored is None:
            return cls(store, [dict(first)])
        try:
            if stored["takes"][0]["generation_id"] != first.get("generation_id"):
                return cls(store, [dict(first)])  # another video: another review
            return cls(
                store,
                list(stored["takes"]),
                float(stored["usd"]),
                stored["pending"],
                list(stored["answers"]),
                stored["refused"],
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise LedgerError(f"The record of this review is unreadable ({error!r}).") from None

    @property
    def newest(self) -> Mapping[str, Any]:
        return self.takes[-1]

    @property
    def since(self) -> float:
        """Unix seconds at which the pending take was asked for."""
        return float((self.pending or {}).get("since") or time.time())

    @property
    def is_priced(self) -> bool:
        return "usd" in (self.pending or {})

    @property
    def pending_usd(self) -> float | None:
        return (self.pending or {}).get("usd")

    @property
    def fields(self) -> dict[str, Any]:
        """The pending take's request: the first one's, with the prompt that was asked for."""
        first = self.takes[0]
        given = first.get("parameters")
        inputs = given if isinstance(given, Mapping) else {}
        return {
            "model": str(first.get("model") or ""),
            "prompt": (self.pending or {}).get("prompt"),
            **{name: inputs[name] for name in (*_INPUTS, *_MORE) if inputs.get(name) is not None},
        }

    def want(self, prompt: str, said: Mapping[str, Any]) -> None:
        self.answers.append({**said, "prompt": prompt})
        self.pending, self.refused = {"prompt": prompt, "since": time.time()}, None
        self._save()

    @property
    def pending_fingerprint(self) -> str | None:
        """Of the pending take's request, once that was made; earlier versions wrote none."""
        return (self.pending or {}).get("fingerprint")

    def price(self, usd: float | None, fingerprint: str) -> None:
        """What the pending take will cost, and what it is known by without its pictures."""
        assert self.pending is not None
        self.pending |= {"usd": usd, "fingerprint": fingerprint}
        self._save()

    def refuse(self, why: str) -> None:
        self.pending, self.refused = None, why
        self._save()

    def add(self, made: Mapping[str, Any]) -> None:
        usd = made.get("usd")
        self.takes.append(dict(made))
        self.usd += usd if isinstance(usd, int | float) else (self.pending_usd or 0.0)
        self.pending = None
        self._save()

    def shown(self) -> dict[str, Any]:
        return {**self.newest, "take": len(self.takes), "refused": self.refused}

    def result(self, said: Mapping[str, Any]) -> dict[str, Any]:
        review = {
            **said,
            "takes": len(self.takes),
            "usd": round(self.usd, 6),
            "answers": self.answers,
        }
        return {**self.newest, "take": len(self.takes), "review": review}

    def _save(self) -> None:
        if self.store is None:
            return
        record = {
            "takes": self.takes,
            "usd": self.usd,
            "pending": self.pending,
            "answers": self.answers,
            "refused": self.refused,
        }
        self.store.set(REVIEW_KEY, record, **version_compat.FOREVER)
