"""A task's video in words for its page. Plain text throughout: the templates escape it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ...core import cost
from ...core.progress import clock_time
from ..facts import unix_seconds
from .rows import TaskVideo

_ADVICE = {
    "moderation": "Change the prompt or the image, then clear the task.",
    "input": "Change what the message names, then clear the task.",
    "credits": "Top up the account, then clear the task.",
    "provider": "Clear the task to submit it again: the provider failed.",
}

_WAITING = {"running", "deferred", "queued", "scheduled", "up_for_reschedule", "awaiting_input"}


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait that a script on the page moves on; all in seconds, ``since`` in Unix seconds."""

    since: float
    expected: float
    speed: float

    @property
    def elapsed(self) -> float:
        return max(0.0, datetime.now(UTC).timestamp() - self.since) * self.speed

    @property
    def text(self) -> str:
        if self.elapsed > self.expected:
            return f"{clock_time(self.elapsed)}, usually about {clock_time(self.expected)}"
        return f"{clock_time(self.elapsed)} of about {clock_time(self.expected)}"


@dataclass(frozen=True, slots=True)
class Card:
    """What the templates show of one task instance."""

    video: TaskVideo
    player: TaskVideo | None = None
    """The task that made the video, where that is another one."""

    @property
    def playable(self) -> TaskVideo | None:
        """The task instance whose file is played."""
        shown = self.player or self.video
        return shown if shown.path else None

    @property
    def mood(self) -> str:
        """done, submitted, table, waiting, failed or none: which picture there is."""
        state = self.video.state
        if self.video.is_table and state == "success":
            return "table"
        if state in ("success", "awaiting_input") and self.video.made:
            return "done" if self.video.made.get("status") == "completed" else "submitted"
        if state in ("failed", "upstream_failed", "up_for_retry"):
            return "failed"
        return "waiting" if state in _WAITING else "none"

    @property
    def is_live(self) -> bool:
        """Whether the page has to look again."""
        return (
            self.mood == "waiting"
            or self.video.state == "awaiting_input"
            or self.video.state in ("up_for_retry", "restarting", None)
        )

    @property
    def headline(self) -> str:
        video, state = self.video, self.video.state
        match self.mood:
            case "done":
                return ""
            case "table":
                return self._of_table()
            case "submitted":
                return "Submitted. Another task waits for it and saves it."
            case "failed":
                again = " Airflow tries it again." if state == "up_for_retry" else ""
                return f"{self.reason}{again}"
            case "waiting" if state == "awaiting_input":
                return "Waits for a person: see the tab Required Action."
            case "waiting" if video.is_table:
                return "A table of videos is being made: open it for its rows."
            case "waiting" if video.facts:
                where = "in the triggerer" if state == "deferred" else "on a worker"
                return f"Waiting for the video, {where}."
            case "waiting":
                return "Nothing has been submitted yet."
        if state == "success":
            return "This task made no video."
        return f"No video: the task is {str(state).replace('_', ' ')}."

    def _of_table(self) -> str:
        made = self.video.made
        done, total = made.get("completed"), made.get("rows")
        return f"A table: {done} of {total} videos. Open it for its rows."

    @property
    def reason(self) -> str:
        message = self.video.failure.get("message")
        if isinstance(message, str) and message:
            return message
        if self.video.state == "upstream_failed":
            return "A task before this one failed, so nothing was submitted."
        return "The task failed. Its log tells why."

    @property
    def advice(self) -> list[str]:
        failure = self.video.failure
        own = _ADVICE.get(str(failure.get("kind")))
        given = failure.get("advice")
        lines = [str(line) for line in given] if isinstance(given, list) else []
        return [own, *lines] if own else lines

    @property
    def wait(self) -> Wait | None:
        facts = self.video.facts
        since, expected = unix_seconds(facts.get("submitted_at")), facts.get("expected_seconds")
        if self.mood != "waiting" or since is None or not isinstance(expected, int | float):
            return None
        speed = facts.get("speed")
        return Wait(since, float(expected), float(speed) if isinstance(speed, int | float) else 1.0)

    @property
    def not_playable(self) -> str:
        """Why a finished video is not shown here."""
        path = self.video.made.get("path")
        if not path:
            return "The task has no output_path, so nothing was saved."
        if self.video.told is None:
            return (
                "Airflow has deleted the rendered fields of this run, so the file cannot be told "
                "to be this task's. Name its folder in [kling] video_roots to show it."
            )
        return "The file is not where this task was told to save, so it is not opened here."

    @property
    def prompt(self) -> str:
        return str(self.video.known.get("prompt") or self.video.failure.get("prompt") or "")

    @property
    def model(self) -> str:
        return str(self.video.known.get("model") or "")

    @property
    def is_sandbox(self) -> bool:
        return bool(self.video.known.get("sandbox"))

    @property
    def price(self) -> str:
        known = self.video.known
        usd, expected = known.get("usd"), known.get("expected_usd")
        if self.video.failure.get("error") == "GenerationFailedError":
            return "nothing: a failed generation is not billed"
        if isinstance(usd, int | float):
            return cost.dollars(usd)
        return f"about {cost.dollars(expected)}" if isinstance(expected, int | float) else ""

    @property
    def took(self) -> str:
        elapsed = self.video.made.get("elapsed_seconds")
        return clock_time(elapsed) if isinstance(elapsed, int | float) else ""

    @property
    def summary(self) -> str:
        """For a card of the gallery."""
        model = self.model.rpartition("/")[0].removeprefix("klingai/") or self.model
        price = "" if self.mood == "failed" else self.price
        return " · ".join(filter(None, (model, price, self.took)))

    @property
    def title(self) -> str:
        label = self.video.label
        return label if label and not label.isdecimal() else self.video.name

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Name and value of everything that is known, empty ones left out."""
        known, made = self.video.known, self.video.made
        late = made.get("noticed_within_seconds")
        polls = made.get("polls")
        asked = f", asked {polls}×" if isinstance(polls, int) else ""
        noticed = f"within {late:g} s" if isinstance(late, int | float) else ""
        size, sha = made.get("size"), made.get("sha256")
        return [
            (name, value)
            for name, value in (
                ("Model", self.model),
                *self._parameters(),
                ("Cost", self.price),
                ("Took", f"{self.took}{asked}" if self.took else ""),
                ("Finish noticed", noticed),
                ("Submitted", _moment(known.get("submitted_at"))),
                ("Take", str(made.get("take") or "")),
                ("Review", self._review()),
                ("Another take", str(made.get("refused") or "")),
                ("File", str(made.get("path") or "")),
                ("Size", f"{size:,} bytes" if isinstance(size, int) else ""),
                ("SHA-256", str(sha or "")),
                ("Generation", str(known.get("generation_id") or "")),
            )
            if value
        ]

    def _review(self) -> str:
        if self.video.state == "awaiting_input":
            return "waits for an answer, in the tab Required Action"
        return _reviewer(self.video.made)

    def _parameters(self) -> list[tuple[str, str]]:
        given = self.video.known.get("parameters")
        if not isinstance(given, Mapping):
            return []
        names = {"image": "First frame", "tail_image": "Last frame"}
        return [
            (names.get(str(name), str(name)), origin(value) if name in names else str(value))
            for name, value in given.items()
            if value is not None
        ]


def _moment(instant: Any) -> str:
    return str(instant or "").replace("T", " ").replace("+00:00", " UTC")


def origin(image: Any) -> str:
    """Where a picture came from: the task that made it, or its address without a query."""
    if not isinstance(image, Mapping):
        return str(image)
    task = image.get("task_id")
    index = image.get("map_index")
    mapped = f"[{index}]" if isinstance(index, int) and index >= 0 else ""
    path = image.get("path") or image.get("generation_id") or ""
    return f"from task {task}{mapped}: {path}" if task else str(path)


def _reviewer(made: Mapping[str, Any]) -> str:
    review = made.get("review")
    if not isinstance(review, Mapping):
        return ""
    note = f": {review['note']}" if review.get("note") else ""
    return f"{review.get('choice')} by {review.get('by') or 'no answer in time'}{note}"
