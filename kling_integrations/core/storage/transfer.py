"""One video on its way from a store: a connection at a time, each reply checked before it is kept.

What may be tried again is a ``TryAgainError``; ``download`` says how often and for how long.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
import threading
import time
from datetime import UTC, datetime
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from ...version import __version__
from ..concealed import SignedUrl
from ..errors import DownloadError, InvalidRequestError, LinkExpiredError, NextStep, Verb
from ..generation import url_expiry, without_query
from ..protocol import retry_after
from ..settings import is_loopback
from ..waiting import TransferProgress
from .partial_file import HEAD, PartialFile

if TYPE_CHECKING:
    import requests

MAX_REDIRECTS = 5

_CHUNK = 2**17  # bytes per read; larger ones cost more in fresh memory than they save in calls
_SLOWEST = 4096  # bytes per second; a connection below it counts as hung
_LONGEST = 3600.0  # real seconds for all attempts together: videos have tens of megabytes
_REPORT_EVERY = 0.1  # seconds between two calls of `progress`

_log = logging.getLogger(__name__)


class TryAgainError(Exception):
    """An attempt failed in a way that the next one may not."""

    def __init__(
        self, reason: str, *, wait: float | None = None, wrong_content: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait = wait
        self.wrong_content = wrong_content


class Fetch:
    """One video to fetch, in one or more attempts; remembers what the server said of the file."""

    def __init__(
        self,
        url: str,
        session: requests.Session,
        *,
        expected_size: int | None,
        timeout: float,
        progress: TransferProgress | None,
        max_size: int,
        generation_id: str | None,
    ) -> None:
        self.url = url
        self.session = session
        self.expected_size = expected_size
        self.timeout = timeout
        self.max_size = max_size
        self.generation_id = generation_id
        self.content_type: str | None = None
        self.total: int | None = None
        self._validator: str | None = None
        self._progress = progress
        self._reported = -math.inf
        self._began = time.monotonic()
        self.shown, self._expiry = "an unreadable address", None
        with contextlib.suppress(ValueError):
            self.shown, self._expiry = without_query(url)[:200], url_expiry(url)
        if problem := address_problem(url):
            raise self.error(problem)

    def error(self, reason: str, kind: type[DownloadError] = DownloadError) -> DownloadError:
        ended = f" The link ended on {self._expiry:%Y-%m-%d %H:%M} UTC." if self._is_past() else ""
        kept = self.generation_id is not None
        return kind(
            f"The video was not saved: {reason} ({self.shown}).{ended}",
            generation_id=self.generation_id,
            hint="The video is paid for and kept." if kept else None,
            next_steps=[NextStep(Verb.DOWNLOAD, self.generation_id)] if kept else (),
        )

    def attempt(self, part: PartialFile) -> None:
        """One connection's worth: returns when the part is whole, else raises."""
        response = self._open(part.size)
        try:
            if self._accept(response, part):
                self._stream(response, part)
            self._check_whole(part)
        finally:
            response.close()

    def _open(self, offset: int) -> requests.Response:
        url = self.url
        for _ in range(MAX_REDIRECTS + 1):
            response = self._send(url, offset)
            location = SignedUrl(response.headers.get("Location") or "")
            if response.status_code not in (301, 302, 303, 307, 308) or not location:
                return response
            response.close()
            if problem := address_problem(location, url):
                raise self.error(f"it redirects elsewhere, and {problem}")
            url = SignedUrl(urljoin(url, location))
        raise self.error(f"it redirects more than {MAX_REDIRECTS} times")

    def _send(self, url: str, offset: int) -> requests.Response:
        import requests
        from urllib3.exceptions import HTTPError

        from ..http import network
        from ..http import requests_transport as transport

        headers: dict[str, str | None] = {
            "Accept": "video/*, */*;q=0.5",
            "Accept-Encoding": "identity",  # nothing is ever inflated here, so nothing can explode
            "Authorization": None,  # not even from a session that carries one
            "User-Agent": f"kling-integrations/{__version__}",
        }
        if offset:
            headers["Range"] = f"bytes={offset}-"
            headers["If-Range"] = self._validator
        problem: str
        fatal = False
        _in_download.now = True
        try:
            # A callable that does nothing keeps requests from looking up ~/.netrc. The adapter
            # is asked directly because the session would read a redirect's body, of any size.
            prepared = self.session.prepare_request(
                requests.Request("GET", url, headers=headers, auth=lambda request: request)
            )
            network.check(url)
            settings: Any = {"proxies": transport.proxies_for(url), "verify": True, "stream": True}
            patience = (min(self.timeout, 15.0), self.timeout)
            with transport.deadline(self.timeout):  # of the head; the body may take longer
                return self.session.get_adapter(url).send(prepared, timeout=patience, **settings)
        except InvalidRequestError as setting:
            problem, fatal = setting.message.rstrip("."), True
        except ValueError:  # also requests' InvalidURL and all its kin
            problem, fatal = "the address cannot be read", True
        except (HTTPError, HTTPException, OSError) as trouble:  # requests' own are OSErrors
            problem = network.reason(trouble, self.timeout, url)
            if "CERTIFICATE_VERIFY_FAILED" in str(trouble):
                problem, fatal = "the server's certificate is not trusted", True
        finally:
            _in_download.now = False
        raise self.error(problem) if fatal else TryAgainError(problem)

    def _accept(self, response: requests.Response, part: PartialFile) -> bool:
        """Whether a body follows that continues the part; raises where the reply is none."""
        status = response.status_code
        start, total = _content_range(response)
        if status == 206 and start == part.size and self.total in (None, total) and total:
            pass
        elif status in (206, 416) and part.size:
            if status == 416 and total == part.size:
                self.total = total
                return False
            part.restart()
            self.total = None
            raise TryAgainError("the server could not go on where the last attempt ended")
        elif status == 200:
            part.restart()
            total = _content_length(response)
        elif status in (401, 403, 404, 410):
            raise self.error(f"the link is no longer valid (HTTP {status})", LinkExpiredError)
        elif status in (408, 425, 429) or status >= 500:
            raise TryAgainError(
                f"the server answers HTTP {status}",
                wait=retry_after(response.headers.get("Retry-After")),
            )
        elif 200 <= status < 300:
            raise TryAgainError(f"the server answers HTTP {status}", wrong_content=True)
        else:
            raise self._refused(f"the server answers HTTP {status}")
        if total is not None and total > self.max_size:
            raise self.error(f"{total:,} bytes are more than the {self.max_size:,} allowed")
        self.total = total
        self.content_type = response.headers.get("Content-Type", "").partition(";")[0] or None
        etag = response.headers.get("ETag", "")
        strong = etag if etag.startswith('"') else None  # a weak one cannot guard a range
        self._validator = strong or response.headers.get("Last-Modified")
        return True

    def _stream(self, response: requests.Response, part: PartialFile) -> None:
        from urllib3.exceptions import HTTPError

        from ..http.network import reason

        # read1 hands over what one read of the socket gives: a cut loses nothing that came.
        unchecked = part.size < HEAD
        window_start, window_size = time.monotonic(), part.size
        while True:
            problem = None
            try:
                chunk = response.raw.read1(_CHUNK, decode_content=False)
            except (HTTPError, HTTPException, OSError) as trouble:
                problem = reason(trouble, self.timeout)
            if problem:
                of = f" of {self.total:,}" if self.total else ""
                raise TryAgainError(f"{problem} after {part.size:,}{of} bytes")
            if not chunk:
                break
            part.append(chunk)
            if unchecked and part.size >= HEAD:
                self._check_signature(response, part)
                unchecked = False
            if part.size > self.max_size:
                raise self.error(f"it has more than the {self.max_size:,} bytes allowed")
            now = time.monotonic()
            self._report(part.size, now)
            if now - self._began > _LONGEST:
                raise self.error(f"it is not whole after {_LONGEST / 60:.0f} minutes")
            if now - window_start >= self.timeout:
                if part.size - window_size < _SLOWEST * self.timeout:
                    raise TryAgainError(f"the server has all but stopped at {part.size:,} bytes")
                window_start, window_size = now, part.size
        if self.total is None or part.size == self.total:
            self._check_signature(response, part)
        self._report(part.size, math.inf)

    def _report(self, size: int, now: float) -> None:
        if self._progress and now - self._reported >= _REPORT_EVERY:
            self._reported = now if now < math.inf else self._reported
            self._progress(size, self.total)

    def _check_signature(self, response: requests.Response, part: PartialFile) -> None:
        """By the bytes: what the Content-Type says is wrong too often, in both directions."""
        if part.looks_like_video:
            return
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        text = part.head.lstrip(b"\xef\xbb\xbf \t\r\n")
        if not part.head:
            what = "nothing"
        elif text.startswith(b"<"):
            what = "a web page"
        elif text.startswith((b"{", b"[")):
            what = "a message (JSON)"
        elif encoding != "identity":
            what = f"compressed data ({re.sub(r'[^a-z0-9, -]', '', encoding)[:20]})"
        else:
            what = "something else"
        reason = f"the server sent {what} instead of a video"
        if self._is_past():
            raise self._refused(reason)
        raise TryAgainError(reason, wrong_content=True)

    def _refused(self, reason: str) -> DownloadError:
        """Stores word the end of a link in several ways; the address itself tells."""
        return self.error(reason, LinkExpiredError if self._is_past() else DownloadError)

    def _is_past(self) -> bool:
        return self._expiry is not None and self._expiry < datetime.now(UTC)

    def _check_whole(self, part: PartialFile) -> None:
        if self.total is not None and part.size != self.total:
            raise TryAgainError(f"the transfer ended after {part.size:,} of {self.total:,} bytes")
        if self.expected_size is not None:
            if part.size == self.expected_size:
                return
            if part.boxes_are_whole():
                _log.warning(
                    "%s: the gateway announced %d bytes, the video is whole with %d",
                    self.shown,
                    self.expected_size,
                    part.size,
                )
                return
            raise TryAgainError(
                f"it has {part.size:,} bytes where {self.expected_size:,} were announced",
                wrong_content=True,
            )
        if self.total is None and part.boxes_are_whole() is False:
            raise TryAgainError(f"the video breaks off after {part.size:,} bytes")


def address_problem(url: str, before: str | None = None) -> str | None:
    """Why ``url``, where ``before`` redirects to it, is not asked; None when it is."""
    try:
        onward = urljoin(before, url) if before else url
        parts = urlsplit(onward)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            return "only http and https addresses can be saved"
    except ValueError:
        return "the address cannot be read"
    downgrade = before and parts.scheme == "http" and urlsplit(before).scheme == "https"
    if before and downgrade and not (is_loopback(onward) and is_loopback(before)):
        return "a link over https must not lead to plain http"
    return None


def _content_length(response: requests.Response) -> int | None:
    if "chunked" in response.headers.get("Transfer-Encoding", "").lower():
        return None
    length = response.headers.get("Content-Length", "").strip()
    return int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None


def _content_range(response: requests.Response) -> tuple[int | None, int | None]:
    """First byte and whole size, as in ``bytes 100-199/200``; None for what it does not state."""
    stated = re.fullmatch(
        r"bytes\s+(?:([0-9]{1,18})-[0-9]{1,18}|\*)/([0-9]{1,18}|\*)",
        response.headers.get("Content-Range", "").strip(),
    )
    if not stated:
        return None, None
    start, total = stated.groups()
    return (int(start) if start else None), (int(total) if total != "*" else None)


_in_download = threading.local()


class _Redacted(logging.Filter):
    """urllib3 logs each request line at DEBUG: in a download, without the query string."""

    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(_in_download, "now", False) and isinstance(record.args, tuple):
            record.args = tuple(
                f"{value.partition('?')[0]}?…" if isinstance(value, str) and "?" in value else value
                for value in record.args
            )
        return True


_REDACTED = _Redacted()


def redact_urllib3() -> None:
    for name in ("urllib3.connectionpool", "urllib3.connection"):
        logging.getLogger(name).addFilter(_REDACTED)  # once, however often called
