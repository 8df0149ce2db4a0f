"""Sans-I/O: calls out, replies in. Every fact about the wire lives here and nowhere else.

A client carries a ``Call`` and brings back an ``Outcome``: the ``Reply`` that came, or ``Trouble``
when none did. What a reply means is decided here; what to do next, in ``waiting``.
"""

from __future__ import annotations

import json
import math
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any
from urllib.parse import quote, urlencode

from ..version import __version__
from .errors import (
    AuthenticationError,
    GenerationNotFoundError,
    InsufficientCreditsError,
    InvalidRequestError,
    KlingError,
    NextStep,
    RateLimitedError,
    ServerError,
    SubmissionUncertainError,
    Verb,
)
from .generation import Failure, Generation, Status, Usage, Video, printable
from .request import VideoRequest

USER_AGENT = f"kling-integrations/{__version__}"

# A generation's reply is under 2 kB; whatever is larger is not one, and must not fill memory.
MAX_BODY_BYTES = 4 * 1024 * 1024

# The longest documented id has 100 characters; it goes into a URL, a row and a sentence.
MAX_ID_LENGTH = 1000

_PENDING = {
    "queued": Status.QUEUED,
    "waiting": Status.QUEUED,
    "active": Status.GENERATING,
    "generating": Status.GENERATING,
    "processing": Status.GENERATING,
}
_STATUS = {
    **_PENDING,
    "completed": Status.COMPLETED,
    "succeeded": Status.COMPLETED,
    "error": Status.FAILED,
    "failed": Status.FAILED,
}


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP exchange to carry. ``headers`` hold the key: never shown."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: header names in lower case, at most MAX_BODY_BYTES of body."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


class Sent(Enum):
    """Whether the gateway can have taken a call that got no reply."""

    NO = "no"  # refused, no such host, TLS handshake failed: not a byte of the request left
    MAYBE = "maybe"


@dataclass(frozen=True, slots=True)
class Trouble:
    """No reply, or none that can be used, for now. ``retry_after`` in seconds, where stated."""

    reason: str
    sent: Sent = Sent.MAYBE
    status: int | None = None
    retry_after: float | None = None


Outcome = Reply | Trouble


def new_client_request_id() -> str:
    """Correlates a POST with the gateway's logs; it is no idempotency key."""
    return f"kling-{uuid.uuid4().hex}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A gateway and the key for it: builds calls. ``legacy`` takes the vendor-named URL."""

    base_url: str
    api_key: str = field(repr=False)
    legacy: bool = False

    @property
    def _generations(self) -> str:
        path = "/v2/generate/video/kling/generation" if self.legacy else "/v2/video/generations"
        return self.base_url + path

    def _call(self, method: str, url: str, **more: Any) -> Call:
        headers = {
            "Authorization": f"Bearer {self.api_key}",
            "User-Agent": USER_AGENT,
            "Accept": "application/json",
            # Replies are small; an encoded body is only a way to hide a large one.
            "Accept-Encoding": "identity",
            **more.pop("headers", {}),
        }
        return Call(method, url, headers, **more)

    def submit(self, request: VideoRequest, client_request_id: str) -> Call:
        return self._call(
            "POST",
            self._generations,
            headers={"Content-Type": "application/json", "X-Client-Request-Id": client_request_id},
            body=json.dumps(request.payload()).encode(),
        )

    def poll(self, generation_id: str) -> Call:
        # Ids hold ":" and "/", or start with "-": always encoded, never parsed.
        return self._call(
            "GET", f"{self._generations}?generation_id={quote(generation_id, safe='')}"
        )

    def balance(self) -> Call:
        return self._call("GET", f"{self.base_url}/v2/billing")

    def prices(self, model: str) -> Call:
        query = urlencode({"id": model, "include": "pricing"})
        return self._call("GET", f"{self.base_url}/v1/models?{query}")

    def logs(self, start: str, end: str, offset: int = 0) -> Call:
        """One page (100 rows) of the gateway's log between two ISO 8601 instants."""
        query = urlencode({"start": start, "end": end, "limit": 100, "offset": offset})
        return self._call("GET", f"{self.base_url}/v2/logs?{query}")


# --- reading ---------------------------------------------------------------------------------


def read_submit(outcome: Outcome, client_request_id: str) -> Generation | Trouble:
    """The accepted generation, or Trouble when the POST may be repeated (surely not taken).

    Raises a KlingError where the gateway refused, and SubmissionUncertainError where it may have
    taken the POST: the rule is "would repeating it pay twice?", and doubt counts as yes.
    """
    if isinstance(outcome, Trouble):
        if outcome.sent is Sent.NO:
            return outcome
        raise uncertain(outcome.reason, client_request_id)
    inference_id = named(outcome)
    if 200 <= outcome.status < 300:
        body = _json_object(outcome)
        generation_id = _generation_id(body) or inference_id
        if generation_id:
            return _generation(body, generation_id, fresh=True)
        raise uncertain("the gateway accepted it without naming its id", client_request_id)
    if outcome.status == 429:
        return Trouble(
            _explain(outcome), Sent.NO, 429, retry_after(outcome.headers.get("retry-after"))
        )
    if 400 <= outcome.status < 500 and outcome.status not in (408, 409, 425):
        raise _refusal(outcome)
    if inference_id:  # an error reply that names a generation: it exists, and the polls will tell
        return Generation(id=inference_id, status=Status.UNKNOWN)
    raise uncertain(_explain(outcome), client_request_id)


def named(outcome: Outcome) -> str:
    """The generation that the head of a reply names, whatever its status; or empty."""
    headers = outcome.headers if isinstance(outcome, Reply) else {}
    return _id_or_empty(headers.get("x-inference-id"))


def read_poll(outcome: Outcome, generation_id: str) -> Generation | Trouble:
    """The generation as it stands, or Trouble that a patient wait outlives.

    Raises AuthenticationError, InsufficientCreditsError or InvalidRequestError (401, 403, 400):
    the poll can never succeed as it is; the generation itself is not judged.
    """
    if isinstance(outcome, Trouble):
        return outcome
    if 200 <= outcome.status < 300:
        body = _json_object(outcome)
        word = body.get("status") if body else None
        if not body or not (isinstance(word, str) or _found_video(body)):
            return Trouble(f"an unreadable reply ({_describe(outcome)})", status=outcome.status)
        if not body.get("id") and word == "unknown":
            # What the gateway says when it is asked for no id at all: our id was not understood.
            raise GenerationNotFoundError(
                f"The gateway did not understand the generation id {generation_id!r}.",
                generation_id=generation_id,
            )
        generation = _generation(body, generation_id)
        if generation.status is Status.COMPLETED and generation.video is None:
            return Trouble("completed, but without a video yet", status=outcome.status)
        return generation
    if outcome.status in (400, 401, 402, 403):
        raise _refusal(outcome, generation_id)
    if 400 <= outcome.status < 500 and outcome.status not in (404, 408, 409, 425, 429):
        raise _refusal(outcome, generation_id)
    return Trouble(
        _explain(outcome),
        Sent.MAYBE,
        outcome.status,
        retry_after(outcome.headers.get("retry-after")),
    )


def read_one_poll(outcome: Outcome, generation_id: str) -> Generation:
    """A single look at a generation, without patience: Trouble is an error here."""
    answer = read_poll(outcome, generation_id)
    if isinstance(answer, Generation):
        return answer
    if answer.status == 404:
        raise GenerationNotFoundError(
            f"The gateway knows no generation {generation_id} ({answer.reason}).",
            generation_id=generation_id,
        )
    failed = RateLimitedError if answer.status == 429 else ServerError
    raise failed(
        f"No usable answer for generation {generation_id}: {answer.reason}.",
        generation_id=generation_id,
        next_steps=[NextStep(Verb.SHOW, generation_id)],
    )


def read_logs(page: Any) -> list[tuple[str, str]]:
    """``(client_request_id, generation_id)`` of each row of a log page that names both."""
    found = []
    for row in _log_rows(page):
        if isinstance(row, dict):
            asked, made = row.get("client_request_id"), row.get("inference_id")
            if isinstance(asked, str) and isinstance(made, str) and asked and made:
                found.append((asked, made))
    return found


def count_log_rows(page: Any) -> int:
    """How many rows a log page holds, readable or not."""
    return len(_log_rows(page))


def _log_rows(page: Any) -> list[Any]:
    # The key is documented as "data"; others are taken as well.
    rows = page.get("data", page.get("logs", page.get("items"))) if isinstance(page, dict) else page
    return rows if isinstance(rows, list) else []


def read_service(outcome: Outcome, what: str) -> Any:
    """The JSON of a free service call (balance, prices, logs); raises KlingError otherwise."""
    if isinstance(outcome, Trouble):
        raise ServerError(f"The gateway did not answer for {what}: {outcome.reason}.")
    if 200 <= outcome.status < 300:
        try:
            return json.loads(outcome.body)
        except (ValueError, RecursionError):
            raise ServerError(f"The gateway's answer for {what} is not JSON.") from None
    if outcome.status == 429:
        raise RateLimitedError(f"The gateway answers 429 for {what}: try again in a minute.")
    if 400 <= outcome.status < 500:
        raise _refusal(outcome)
    raise ServerError(f"The gateway answers {outcome.status} for {what}: {_explain(outcome)}.")


def uncertain(reason: str, client_request_id: str) -> SubmissionUncertainError:
    return SubmissionUncertainError(
        f"The submission may have been taken and paid ({reason}); it is not repeated "
        f"(client request id {client_request_id}).",
        client_request_id=client_request_id,
        next_steps=[
            NextStep(Verb.RECOVER, client_request_id=client_request_id),
            NextStep(Verb.SUBMIT_NEW),
        ],
    )


def _refusal(outcome: Reply, generation_id: str | None = None) -> KlingError:
    text, kind = _explain(outcome), _kind(outcome)
    status = outcome.status
    where: dict[str, Any] = {"generation_id": generation_id}
    if generation_id:
        where["hint"] = "The generation itself goes on."
        where["next_steps"] = [NextStep(Verb.WAIT, generation_id)]
    if status == 401:
        return AuthenticationError(f"The gateway does not accept the API key: {text}.", **where)
    money = re.search(r"credit|fund|balance", f"{kind} {text}", re.IGNORECASE)
    if status == 402 or (status == 403 and money):
        return InsufficientCreditsError(f"The account is out of credits: {text}.", **where)
    if status == 403:
        return AuthenticationError(f"The gateway forbids this: {text}.", **where)
    if status == 413:
        return InvalidRequestError(f"The request is too large for the gateway: {text}.", **where)
    return InvalidRequestError(f"The gateway refused the request ({status}): {text}.", **where)


def retry_after(value: str | None) -> float | None:
    """Seconds out of a Retry-After header, a number or an HTTP date; None where it says neither."""
    value = (value or "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _json_object(reply: Reply) -> dict[str, Any]:
    """The body as a JSON object; empty for HTML, garbage, cut or oversized bodies."""
    if len(reply.body) > MAX_BODY_BYTES:
        return {}
    try:
        body = json.loads(reply.body)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _generation_id(body: Mapping[str, Any]) -> str:
    """``id`` or ``generation_id``; a native Kling id can come as a number."""
    return _id_or_empty(body.get("id")) or _id_or_empty(body.get("generation_id"))


def _id_or_empty(value: Any) -> str:
    """An id as text; empty for what cannot be one, such as words that would steer a terminal."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    text = value.strip() if isinstance(value, str) else ""
    return text if len(text) <= MAX_ID_LENGTH and text.isprintable() else ""


def _generation(body: Mapping[str, Any], generation_id: str, fresh: bool = False) -> Generation:
    """The reply in one shape. The id stays the one that was polled for, whatever the body says."""
    word = body.get("status")
    status = _STATUS.get(word.strip().lower()) if isinstance(word, str) else None
    video = _found_video(body)
    if status is None:
        status = Status.UNKNOWN
        if word is None and video and not fresh:
            status = Status.COMPLETED
    model = body.get("model")
    return Generation(
        id=generation_id,
        status=status,
        video=video if status is Status.COMPLETED else None,
        # A completed sample of the documentation carries a placeholder error: status decides.
        error=_failure(body.get("error")) if status is Status.FAILED else None,
        usage=_usage(body),
        model=model if isinstance(model, str) else None,
        raw=body,
    )


def odd_status(generation: Generation) -> str:
    """What to tell the user about a status word that is not documented; empty for known ones."""
    word = generation.raw.get("status")
    if generation.status is not Status.UNKNOWN or not isinstance(word, str):
        return ""
    return f"the gateway says {_tidy(word)[:40]!r}, which is not documented: taken as running"


def _found_video(body: Mapping[str, Any]) -> Video | None:
    """The first of ``video``: an object, an array or null, over all eras of the documentation."""
    found = body.get("video")
    for item in found if isinstance(found, list) else [found]:
        if not isinstance(item, dict) or not isinstance(item.get("url"), str) or not item["url"]:
            continue
        size, seconds = item.get("file_size"), item.get("duration", body.get("duration"))
        return Video(
            url=item["url"],
            content_type=_text_or_none(item.get("content_type")),
            file_name=_text_or_none(item.get("file_name")),
            file_size=size if isinstance(size, int) and size > 0 else None,
            duration=_figure(seconds),
        )
    return None


def _usage(body: Mapping[str, Any]) -> Usage | None:
    meta = body.get("meta")
    usage = meta.get("usage") if isinstance(meta, dict) else None
    if not isinstance(usage, dict):
        return None
    read = Usage(*(_figure(usage.get(k)) for k in ("credits_used", "usd_spent", "tokens_used")))
    return read if read.to_json() else None


def _figure(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


_KINDS = (
    (
        "moderation",
        r"moderat|polic|sensitive|nsfw|unsafe|safety|prohibit|violat|content.?filter|risk",
    ),
    ("credits", r"credit|insufficient|balance|funds|quota|billing"),
    (
        "input",
        r"invalid|validation|detect.?face|face_detection|unsupported|dimension|resolution|"
        r"aspect|too (large|small|long|short)|format|not (?:a )?valid|missing|required|"
        r"could not (?:read|load|fetch|download)",
    ),
    (
        "provider",
        r"internal|server|timeout|timed out|unavailable|overload|busy|provider|upstream|"
        r"gateway|maintenance|try again|rate.?limit|too many",
    ),
)


def _failure(error: Any) -> Failure:
    """``{name, message}``, ``{detail: [...]}`` or a plain string: one sentence and a kind."""
    name, message = None, ""
    if isinstance(error, str):
        message = error
    elif isinstance(error, dict):
        name = _text_or_none(error.get("name")) or _text_or_none(error.get("type"))
        message = _sentences(error.get("message")) or _sentences(error.get("detail"))
        details = error.get("detail")
        if name is None and isinstance(details, list) and details and isinstance(details[0], dict):
            name = _text_or_none(details[0].get("type"))
    text = f"{name or ''} {message}"
    kind = next(
        (kind for kind, words in _KINDS if re.search(words, text, re.IGNORECASE)), "unknown"
    )
    return Failure(message=_tidy(message) or "the gateway gave no reason", name=name, kind=kind)


def _sentences(value: Any) -> str:
    """Text out of a string, a list of strings, or FastAPI-like details ``{loc, msg, type}``."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "; ".join(filter(None, (_sentences(item) for item in value[:5])))
    if isinstance(value, dict):
        return _sentences(value.get("msg") or value.get("message"))
    return ""


def _explain(reply: Reply) -> str:
    """What an HTTP error says, out of either envelope; never a page of HTML."""
    body = _json_object(reply)
    nested = body.get("error")
    message = (
        _sentences(body.get("message"))
        or _sentences(nested)
        or _sentences(body.get("detail"))
        or _sentences(body.get("title"))
    )
    hints = body.get("errors") or (nested.get("data") if isinstance(nested, dict) else None)
    extra = _sentences(hints)
    if extra and extra not in message:
        message = f"{message}: {extra}" if message else extra
    return _tidy(message) or _describe(reply)


def _kind(reply: Reply) -> str:
    error = _json_object(reply).get("error")
    data = error.get("data") if isinstance(error, dict) else None
    kind = data.get("kind") if isinstance(data, dict) else None
    return kind if isinstance(kind, str) else ""


def _describe(reply: Reply) -> str:
    kind = _tidy(reply.headers.get("content-type", "").partition(";")[0])[:60] or "no content type"
    return f"HTTP {reply.status}, {kind}, {len(reply.body):,} bytes"


def _tidy(text: str) -> str:
    """One line of at most 500 characters that steers no terminal and ends without a full stop.

    Signed query strings go: they open the video to whoever reads them.
    """
    text = re.sub(r"(https?://[^\s?\"']+)\?[^\s\"']+", r"\1?…", text[:20_000])
    text = printable(" ".join(text.split()))
    return (text[:500] + "…" if len(text) > 500 else text).rstrip(".")
