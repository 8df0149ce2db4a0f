"""What can go wrong on demand, and when: one switch per fault, aimed at a moment.

A fault is armed for a *moment* (submit, poll, download, billing, logs, models) and strikes the
next requests of that moment, `times` of them. Written as one word for a command line or a test
id: ``submit:drop-after``, ``poll:503:3``, ``download:cut:1:at=1000``, ``poll:slow:*:seconds=2``.

A refused connection cannot be had for one request: `Sandbox.pause()` refuses them all.
"""

from __future__ import annotations

import json
import math
import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MOMENTS = ("submit", "poll", "download", "billing", "logs", "models")
JSON_MOMENTS = ("submit", "poll", "billing", "logs", "models")

# Options that every fault takes: skip the first `after` requests; only requests whose prompt
# contains `match`; only that `share` of them, at random; only polls of a job that is "pending",
# "terminal" or "completed".
TARGETING: Mapping[str, Any] = {"after": 0, "match": None, "share": None, "when": None}


@dataclass(frozen=True)
class FaultKind:
    """One kind of fault: its effect, the moments that it fits, its options with their defaults.

    `accepts`: at a submit, is the job accepted (and billed) although the reply goes wrong?
    The option ``accept=…`` overrides it for one fault.
    """

    effect: str
    moments: tuple[str, ...] = MOMENTS
    accepts: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)


_STATUS = {"code": 503, "retry_after": None, "envelope": "problem", "message": None, "header": True}

KINDS: Mapping[str, FaultKind] = {
    "status": FaultKind("an HTTP error instead of the answer", accepts=False, options=_STATUS),
    "status-after": FaultKind(
        "accepted, yet answered with an HTTP error (header=false: no x-inference-id)",
        ("submit",),
        options=_STATUS,
    ),
    "drop-before": FaultKind(
        "the connection ends without a reply, nothing is accepted",
        accepts=False,
        options={"reset": False},
    ),
    "drop-after": FaultKind(
        "accepted, then the connection ends without a reply", options={"reset": False}
    ),
    "slow": FaultKind("answers after so many real seconds", options={"seconds": 1.0}),
    "hang": FaultKind("never answers, accepts nothing", accepts=False),
    "hang-after": FaultKind("accepted, then never answers", ("submit",)),
    "cut": FaultKind(
        "less body than Content-Length promises, then the end (at: bytes that are sent)",
        options={"at": None},
    ),
    "cut-json": FaultKind("a complete HTTP reply with half of the JSON", JSON_MOMENTS),
    "garbage": FaultKind("random bytes as the body", options={"bytes": 512}),
    "not-http": FaultKind("random bytes instead of an HTTP reply"),
    "html": FaultKind("200 with a web page"),
    "empty": FaultKind("200 with no body"),
    "no-id": FaultKind("a good answer without the generation's id", ("submit", "poll")),
    "oversized": FaultKind("a body of so many megabytes", options={"mb": 64}),
    "bomb": FaultKind(
        "a small gzip body that unpacks to so many megabytes", JSON_MOMENTS, options={"mb": 256}
    ),
    "wrong-type": FaultKind("the right body under a wrong Content-Type", options={"type": None}),
    "odd-status": FaultKind(
        "a status word of choice", ("submit", "poll"), options={"word": "unknown"}
    ),
    "id-changes": FaultKind("the reply carries an id of another shape", ("poll",)),
    "no-video": FaultKind("completed, but without a video", ("poll",), options={"video": None}),
    "redirect": FaultKind(
        "sends the client to another address (default: another host name)",
        accepts=False,
        options={"to": None, "code": 307},
    ),
    "reply": FaultKind(
        "any reply: code, content type, body (text, or JSON)",
        options={"code": 200, "type": "application/json", "body": {}},
    ),
    "no-range": FaultKind("ignores Range and sends the whole file", ("download",)),
    "expired": FaultKind("403, as for a signature that has run out", ("download",)),
    "short": FaultKind(
        "a shorter file than was announced, with a Content-Length to match (by: missing bytes)",
        ("download",),
        options={"by": None},
    ),
}


@dataclass
class Fault:
    """An armed fault; `hits` counts the requests that it has struck."""

    moment: str
    kind: str
    times: int | None = 1
    options: dict[str, Any] = field(default_factory=dict)
    hits: int = 0
    skipped: int = 0

    def __post_init__(self) -> None:
        # `poll:503` reads better than `poll:status:1:code=503`.
        number, _, suffix = str(self.kind).partition("-")
        if number.isdigit() and suffix in ("", "after"):
            self.options = {"code": int(number), **self.options}
            self.kind = "status-after" if suffix else "status"
        if self.moment not in MOMENTS:
            raise ValueError(f"unknown moment {self.moment!r}: one of {', '.join(MOMENTS)}")
        kind = KINDS.get(self.kind)
        if kind is None:
            raise ValueError(f"unknown fault {self.kind!r}: one of {', '.join(KINDS)}, or a code")
        if self.moment not in kind.moments:
            raise ValueError(f"{self.kind} happens at {', '.join(kind.moments)}: not {self.moment}")
        known = {**TARGETING, "accept": kind.accepts, **kind.options}
        for name in self.options:
            if name not in known:
                raise ValueError(f"{self.kind} has no option {name!r}: one of {', '.join(known)}")
            _check_figure(name, self.options[name], known[name])
        if self.times is not None and self.times < 1:
            raise ValueError(f"times is a count or None for ever, not {self.times}")
        self.options = {**known, **self.options}
        if self.kind == "no-video" and self.options["when"] is None:
            self.options["when"] = "completed"

    @property
    def accepts(self) -> bool:
        return bool(self.options["accept"])

    def __getitem__(self, name: str) -> Any:
        return self.options[name]

    @classmethod
    def parse(cls, text: str) -> Fault:
        """A fault from ``moment:kind[:times][:name=value,…]``; `*` as times means for ever."""
        moment, _, rest = text.partition(":")
        kind, *extras = rest.split(":", 2)
        times: int | None = 1
        options: dict[str, Any] = {}
        if extras and "=" not in extras[0]:
            word = extras.pop(0)
            if word != "*" and not word.isdigit():
                raise ValueError(f"{text!r}: {word!r} is no count (a number, or * for ever)")
            times = None if word == "*" else int(word)
        for pair in ":".join(extras).split(",") if extras else ():
            name, sign, value = pair.partition("=")
            if not sign:
                raise ValueError(f"{text!r}: {pair!r} is not name=value")
            try:
                options[name.strip()] = json.loads(value)
            except ValueError:
                options[name.strip()] = value
        return cls(moment, kind, times, options)

    def to_json(self) -> dict[str, Any]:
        return {
            "moment": self.moment,
            "kind": self.kind,
            "times": self.times,
            "hits": self.hits,
            **{name: value for name, value in self.options.items() if value is not None},
        }


def _check_figure(name: str, value: Any, default: Any) -> None:
    """An option whose default is a number takes a number."""
    if isinstance(default, bool) or not isinstance(default, int | float):
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{name} is a number that is not negative, not {value!r}")


class ArmedFaults:
    """The armed faults, in the order in which they were armed; safe to share between threads."""

    def __init__(self, rng: random.Random) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._rng = rng

    def arm(self, fault: Fault) -> Fault:
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def armed(self) -> list[Fault]:
        with self._lock:
            return list(self._faults)

    def take(self, moment: str, prompt: str = "", phase: str = "") -> Fault | None:
        """The fault that strikes this request, if any: the first armed one that fits.

        `phase` is "pending", "completed" or "error" at a poll.
        """
        if not self._faults:  # the usual case, and polls are many
            return None
        with self._lock:
            for fault in self._faults:
                if fault.moment == moment and self._strikes(fault, prompt, phase):
                    fault.hits += 1
                    if fault.times is not None and fault.hits >= fault.times:
                        self._faults.remove(fault)
                    return fault
        return None

    def _strikes(self, fault: Fault, prompt: str, phase: str) -> bool:
        when = fault["when"]
        if when is not None:
            phases = {"terminal": ("completed", "error")}.get(when, (when,))
            if phase not in phases:
                return False
        if fault["match"] is not None and fault["match"] not in prompt:
            return False
        if fault["share"] is not None and self._rng.random() >= fault["share"]:
            return False
        if fault.skipped < fault["after"]:
            fault.skipped += 1
            return False
        return True
