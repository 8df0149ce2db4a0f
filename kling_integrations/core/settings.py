"""Key, base URL, directories and clock: what the environment says, read in one place."""

from __future__ import annotations

import ipaddress
import os
import re
import time
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from .concealed import Secret, secret
from .errors import AuthenticationError, InvalidRequestError, LedgerError, NextStep, Verb

DEFAULT_BASE_URL = "https://api.aimlapi.com"
KEY_VARIABLES = ("AIML_API_KEY", "AIMLAPI_API_KEY", "AIMLAPI_KEY")


_QUOTES = tuple("\"'`“”‘’")

# What stands for a key at the sandbox: "bad" is one that is refused, "broke" one without credits.
_SANDBOX_WORDS = re.compile(r"(sandbox|bad|broke)(-.*)?")


def api_key(given: str | None = None, url: str | None = None) -> str:
    """The key for the gateway at ``url``, from the argument or the environment.

    Raises AuthenticationError without one. The sandbox needs none and gets none: only a word of
    its own (``sandbox``, ``bad`` or ``broke``, perhaps with ``-…``) is sent to it, else
    ``sandbox``. Any program of this machine can listen at its address.
    """
    given = secret(given)
    candidates = (given, *(secret(os.environ.get(name)) for name in KEY_VARIABLES))
    key = next((Secret(value.strip()) for value in candidates if value and value.strip()), Secret())
    if key[:1] in _QUOTES or key[-1:] in _QUOTES:
        raise AuthenticationError(
            "The API key stands in quotes, which are sent with it: leave them out."
        )
    if re.match(r"bearer\b", key, re.IGNORECASE):
        raise AuthenticationError(
            "The API key begins with 'Bearer', which is put before it: leave it out."
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise AuthenticationError("The API key holds characters that no key has.")
    if url is not None and is_sandbox(url):
        return key if _SANDBOX_WORDS.fullmatch(key) else Secret("sandbox")
    if not key:
        raise AuthenticationError(
            "No API key. It comes from the AI/ML API dashboard.",
            next_steps=[NextStep(Verb.SET_KEY), NextStep(Verb.TRY_SANDBOX)],
        )
    return key


def base_url(given: str | None = None) -> str:
    """The gateway's address without a trailing slash; https, or http on loopback only.

    Host and port are put into one form. Raises InvalidRequestError for anything else: the key
    would travel in clear text, or to another host than the one that was read.
    """
    text = (given or os.environ.get("AIML_BASE_URL") or DEFAULT_BASE_URL).strip()
    if text[:1] in _QUOTES or text[-1:] in _QUOTES:
        raise _refused("it stands in quotes, leave them out")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise _refused("it cannot be read as an address") from None
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise _refused("it must hold neither credentials nor a query")
    host = _host(text)
    if host is None or not _PATH.fullmatch(parts.path):
        raise _refused("it cannot be read as an address")
    scheme = parts.scheme.lower()
    if scheme != "https" and not (scheme == "http" and _is_loopback_host(host)):
        raise _refused("https only (http on loopback only), because the key travels with each call")
    shown = f"[{host}]" if ":" in host else host
    if port not in (None, {"https": 443, "http": 80}[scheme]):
        shown = f"{shown}:{port}"
    # The documentation's samples write the version into the address.
    return f"{scheme}://{shown}{re.sub(r'/v[12]$', '', parts.path.rstrip('/'))}"


_PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]*")
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?")


def _refused(why: str) -> InvalidRequestError:
    # Without the address itself: it can hold a password, in a place that was not understood.
    return InvalidRequestError(f"The base URL is refused: {why}.")


def _host(url: str) -> str | None:
    """The one host that every reader of this address finds in it; None where readers differ."""
    if not url.isprintable() or "\\" in url or " " in url:
        return None
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        return None
    try:
        address = ipaddress.ip_address(host)
        shown = f"[{host}]" if address.version == 6 else host
    except ValueError:
        host = host.removesuffix(".")
        if not _HOST.fullmatch(host):
            return None
        shown = host
    rest = parts.netloc.rpartition("@")[2].lower()
    spellings = {shown, f"{shown}."} if port is None else {f"{shown}:{port}", f"{shown}.:{port}"}
    # An empty port ("host:") is no port; anything else around the host is not understood.
    return host if rest.removesuffix(":") in spellings else None


def legacy_endpoint(given: bool | None = None) -> bool:
    """Whether to take the URL with the vendor's name, for accounts that only have that one.

    The argument, else ``KLING_LEGACY_ENDPOINT`` (``1``, ``true``, ``yes`` or ``on``).
    """
    if given is not None:
        return given
    word = os.environ.get("KLING_LEGACY_ENDPOINT", "").strip().lower()
    return word in ("1", "true", "yes", "on")


def is_loopback(url: str) -> bool:
    """Whether the address surely leads to this machine."""
    host = _host(url)
    return host is not None and _is_loopback_host(host)


def _is_loopback_host(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_SANDBOX_PATH = re.compile(r"^/sandbox/x(\d+(?:\.\d+)?)(?:/|$)")


def is_sandbox(url: str) -> bool:
    """Whether this is the stand-in on loopback, which costs nothing and makes test pictures."""
    return is_loopback(url) and f"{urlsplit(url).path}/".startswith("/sandbox/")


@cache
def is_stand_in(url: str) -> bool:
    """Whether this is somebody's own gateway on loopback: a proxy, a test double."""
    return is_loopback(url) and not is_sandbox(url)


class Clock:
    """Time as the gateway's jobs live it, in seconds.

    The speed is 1 everywhere but on the sandbox, whose URL names its own: there a job of three
    minutes takes seconds, and waiting must shrink with it to behave as in life.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic() * self.speed

    def real(self, seconds: float) -> float:
        """Such a span in real seconds."""
        return seconds / self.speed


def clock_for(url: str) -> Clock:
    match = _SANDBOX_PATH.match(urlsplit(url).path) if is_loopback(url) else None
    speed = float(match[1]) if match else 1.0
    return Clock(speed if speed > 0 else 1.0)


def ledger() -> str | None:
    """``KLING_LEDGER``: the path of a ledger's file, or the address of one that a team shares.

    Raises LedgerError as ``absolute`` does.
    """
    named = os.environ.get("KLING_LEDGER", "").strip()
    if "://" in named:
        return _as_meant(named, "KLING_LEDGER")
    return str(absolute(named, "KLING_LEDGER")) if named else None


def home() -> Path:
    """The folder of ledger and cache: ``KLING_HOME``, else the platform's for user data.

    Raises LedgerError for a name that cannot be a folder, and where the user has no folder. Nothing
    is made here.
    """
    named = os.environ.get("KLING_HOME", "").strip()
    if named:
        return absolute(named, "KLING_HOME")
    from platformdirs import user_data_path

    try:
        path = user_data_path("kling-integrations", appauthor=False)
    except RuntimeError:  # neither HOME nor an entry in the list of users
        path = Path()
    # In a container without a home everything is "below" the root, and gone with the container.
    rootless = os.name != "nt" and path.parent.parent == Path("/.local") and not path.exists()
    if not path.is_absolute() or rootless:
        raise LedgerError(
            "This user has no home folder: there is no place for the records of what is paid for.",
            next_steps=[NextStep(Verb.SET_HOME)],
        )
    return path


def absolute(text: str, name: str) -> Path:
    """The path that the setting ``name`` holds, ``~`` filled in.

    A relative path would be another place in each working folder, and the records of what is paid
    for be looked for elsewhere. Raises LedgerError for one, and for quotes or ``$NAME`` that no
    shell has taken away.
    """
    named = _as_meant(text.strip(), name)
    try:
        path = Path(named).expanduser()
    except RuntimeError as error:  # no such user
        raise LedgerError(
            f"{name}={named!r} is not a folder: {error}.", next_steps=[NextStep(Verb.SET_HOME)]
        ) from None
    if not path.is_absolute():
        raise _misread(name, named, "is relative, another place in each folder", path)
    return path


_VARIABLE = re.compile(r"\$(\w|\{)|%\w+%" if os.name == "nt" else r"\$(\w|\{)")


def _as_meant(text: str, name: str) -> str:
    bare = text.strip("".join(_QUOTES)).strip()
    full = os.path.expandvars(bare)
    if bare != text:
        raise _misread(name, text, "stands in quotes that are part of it", full)
    if _VARIABLE.search(text):
        raise _misread(name, text, "holds a variable that only a shell fills in", full)
    return text


def _misread(name: str, text: str, why: str, meant: str | Path) -> LedgerError:
    if "://" not in str(meant):
        meant = os.path.abspath(os.path.expanduser(meant))
    return LedgerError(
        f"{name}={text!r} {why}: nothing is read or paid. Write it in full, such as {name}={meant}"
    )
