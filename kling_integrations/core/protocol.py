"""Sans-I/O: calls out, replies in. Every fact about the wire lives here and in ``payloads``.

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
from enum import Enum
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from ..version import __version__
from .concealed import Secret
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
from .generation import Generation, Status
from .payloads import (
    MAX_ID_LENGTH,
    Reply,
    describe,
    error_kind,
    explain,
    generation_id_of,
    generation_of,
    id_or_empty,
    json_object,
    known_status,
    one_line,
    says_error,
    video_of,
)

if TYPE_CHECKING:
    from .request import VideoRequest

USER_AGENT = f"kling-integrations/{__version__}"


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP exchange to carry. ``headers`` hold the key: never shown."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)


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
            "Authorization": Secret(f"Bearer {self.api_key}"),
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
        body = json_object(outcome)
        generation_id = generation_id_of(body) or inference_id
        if generation_id:
            return generation_of(body, generation_id, fresh=True)
        raise uncertain("the gateway accepted it without naming its id", client_request_id)
    if outcome.status == 429:
        return Trouble(
            explain(outcome), Sent.NO, 429, retry_after(outcome.headers.get("retry-after"))
        )
    if 400 <= outcome.status < 500 and outcome.status not in (408, 409, 425):
        raise _refusal(outcome)
    if inference_id:  # an error reply that names a generation: it exists, and the polls will tell
        return Generation(id=inference_id, status=Status.UNKNOWN)
    raise uncertain(explain(outcome), client_request_id)


def is_accepted(outcome: Outcome) -> bool:
    """Whether a reply to a POST is a plain yes, not an error that names a generation."""
    return isinstance(outcome, Reply) and 200 <= outcome.status < 300


def named(outcome: Outcome) -> str:
    """The generation that the head of a reply names, whatever its status; or empty."""
    headers = outcome.headers if isinstance(outcome, Reply) else {}
    return id_or_empty(headers.get("x-inference-id"))


def read_poll(outcome: Outcome, generation_id: str) -> Generation | Trouble:
    """The generation as it stands, or Trouble that a patient wait outlives.

    Raises AuthenticationError, InsufficientCreditsError or InvalidRequestError (401, 403, 400):
    the poll can never succeed as it is; the generation itself is not judged.
    """
    if isinstance(outcome, Trouble):
        return outcome
    if 200 <= outcome.status < 300:
        body = json_object(outcome)
        word = body.get("status") if body else None
        if not body or not (isinstance(word, str) or video_of(body) or says_error(body)):
            return Trouble(f"an unreadable reply ({describe(outcome)})", status=outcome.status)
        if not body.get("id") and word == "unknown":
            # What the gateway says when it is asked for no id at all: our id was not understood.
            raise GenerationNotFoundError(
                f"The gateway did not understand the generation id {generation_id!r}.",
                generation_id=generation_id,
            )
        if (other := generation_id_of(body)) and not _same_id(other, generation_id):
            # A cache in between, mixed-up connections: nothing of it is about ours.
            return Trouble(
                f"the reply is about another generation, {one_line(other)[:60]}",
                status=outcome.status,
            )
        generation = generation_of(body, generation_id)
        if generation.status is Status.COMPLETED and generation.video is None:
            return Trouble("completed, but without a video yet", status=outcome.status)
        return generation
    if outcome.status in (401, 403) and not json_object(outcome):
        # A web page of something in between, not the gateway's own words about the key.
        return Trouble(explain(outcome), Sent.MAYBE, outcome.status)
    if outcome.status in (400, 401, 402, 403):
        raise _refusal(outcome, generation_id)
    if 400 <= outcome.status < 500 and outcome.status not in (404, 408, 409, 425, 429):
        raise _refusal(outcome, generation_id)
    return Trouble(
        explain(outcome),
        Sent.MAYBE,
        outcome.status,
        retry_after(outcome.headers.get("retry-after")),
    )


def _same_id(named: str, asked: str) -> bool:
    """Whether two ids are one, also where one leaves out the model behind a colon."""
    named, asked = named.casefold(), asked.casefold()
    return named == asked or named.startswith(f"{asked}:") or asked.startswith(f"{named}:")


def read_one_poll(outcome: Outcome, generation_id: str) -> Generation:
    """A single look at a generation, without patience: Trouble is an error here."""
    answer = read_poll(outcome, generation_id)
    if isinstance(answer, Generation):
        return answer
    if answer.status == 404:
        raise GenerationNotFoundError(
            f"The gateway knows no such generation ({answer.reason}): {generation_id}",
            generation_id=generation_id,
        )
    failed = RateLimitedError if answer.status == 429 else ServerError
    raise failed(
        f"No usable answer: {answer.reason}. Generation: {generation_id}",
        generation_id=generation_id,
        next_steps=[NextStep(Verb.SHOW, generation_id)],
    )


@dataclass(frozen=True, slots=True)
class LogRow:
    """One request in the gateway's log. ``succeeded`` is None where the row does not tell."""

    client_request_id: str
    generation_id: str
    succeeded: bool | None


def read_logs(page: Any) -> list[LogRow]:
    """The rows of a log page that name both ids; odd ids are none."""
    found = []
    for row in _log_rows(page):
        if isinstance(row, dict):
            asked = id_or_empty(row.get("client_request_id"))
            made = id_or_empty(row.get("inference_id"))
            if asked and made:
                succeeded = {"succeeded": True, "failed": False}.get(str(row.get("status")))
                found.append(LogRow(asked, made, succeeded))
    return found


def gateway_time(outcome: Outcome) -> float | None:
    """The gateway's own clock, Unix seconds, out of the ``Date`` of a reply."""
    if not isinstance(outcome, Reply):
        return None
    return _date(outcome.headers.get("date", ""))


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
    raise ServerError(f"The gateway answers {outcome.status} for {what}: {explain(outcome)}.")


def check_id(generation_id: object) -> str:
    """The id without blanks around it; raises InvalidRequestError for what cannot be one.

    It goes into a URL, a record and log lines: a line break in it would forge one.
    """
    text = generation_id.strip() if isinstance(generation_id, str) else ""
    if not text or not id_or_empty(text):
        raise InvalidRequestError(
            f"{str(generation_id)[:60]!r} is no generation id: it is text of one line, at most "
            f"{MAX_ID_LENGTH} characters."
        )
    return text


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
    text, kind = explain(outcome), error_kind(outcome)
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
        moment = _date(value)
        if moment is None:
            return None
        seconds = moment - time.time()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _date(header: str) -> float | None:
    """A date of HTTP as Unix seconds; None for what is none."""
    from email.utils import parsedate_to_datetime  # it loads sockets, too

    try:
        return parsedate_to_datetime(header).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def odd_status(generation: Generation) -> str:
    """What to tell the user about a status word that is not documented; empty for known ones."""
    word = generation.raw.get("status")
    if not isinstance(word, str) or known_status(generation.raw) is not None:
        return ""
    taken = "running" if generation.status is Status.UNKNOWN else generation.status.value
    return f"the gateway says {one_line(word)[:40]!r}, which is not documented: taken as {taken}"
