"""What makes two requests the same payment: one normal form, and the hash of it.

Two requests that the gateway cannot tell apart must not be paid for twice: numbers, text, model
names and defaults are brought into one form before they are hashed, and a signed link is the file
that it leads to, whatever its signature. The payload that is sent is never changed by this.

A picture that was given as a file, as bytes or as base64 is known by these bytes, one that is a
link by the link. One that was encoded here (an image of Pillow, an array, a figure) is known by
its mode, size, pixels and colour profile, and the frame of a video by the checksum of the video
and the frame's moment: the encoded bytes differ between processors and versions of libraries.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from .catalog import Model
from .validation import typed

_BYTE_ORDER_MARK = "\ufeff"

# Query parameters that sign a link and change with each signing, in lower case: Amazon S3 and
# compatible stores (versions 2 and 4), Google Cloud Storage, Azure Blob Storage (SAS), CloudFront,
# and the stores of the gateway's own results.
_SIGNING = re.compile(
    r"x-(amz|goog|tos|oss)-(algorithm|credential|date|expires|signature|signedheaders|security-token)"
    r"|x-oss-signature-version|awsaccesskeyid|googleaccessid|ossaccesskeyid|security-token"
    r"|signature|expires|policy|key-pair-id|hash-algorithm"
    r"|s[vterp]|sip|spr|sig|sk[est]|skoid|sktid|skv|ks(time|sign|auth)"
)
# One of these must be there: "expires" or "policy" alone can be a parameter of the file.
_SIGNATURE = re.compile(r"(x-(amz|goog|tos|oss)-)?signature|sig|kssign|kstime")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as the gateway takes it: ``url`` is a link, a data URI or base64.

    ``identity`` is what a request with it is known by, None for the URL itself. ``earlier`` is the
    URL that earlier releases sent for it and knew it by, None for the same.
    """

    url: str
    identity: str | None = None
    earlier: str | None = None


def fingerprints(
    payload: Mapping[str, Any],
    before: Mapping[str, Any],
    model: Model | None,
    pictures: Mapping[str, Picture],
) -> tuple[str, ...]:
    """All under which a payment may be recorded: the newest form first, version 0.1's last.

    ``before`` is the payload of earlier releases, which sent numbers as their library writes them,
    and nulls. ``pictures`` are those, by their URL, that are known by more than it. Where neither
    makes a difference, there is nothing between the two. Where the file of such a picture was paid
    for (of a frame that was saved first, say), that is found as well.
    """
    identities = {url: picture.identity or url for url, picture in pictures.items()}
    newest = fingerprint(payload, model, identities)
    before = _replaced(before, {url: each.earlier or url for url, each in pictures.items()})
    between = dict.fromkeys((fingerprint(payload, model), _fingerprint(before, model)))
    between.pop(newest, None)
    return (newest, *between, first_fingerprint(before))


def fingerprint(
    payload: Mapping[str, Any], model: Model | None, identities: Mapping[str, str] | None = None
) -> str:
    """SHA-256 (hexadecimal) of the normal form of a payload.

    ``model`` is its entry in the catalogue, None for an unknown one. ``identities`` says what
    those pictures, by their URL, are known by that are not known by it.
    """
    parameters = model.parameters if model is not None else {}
    meant = {
        name: typed(parameters[name], value) if name in parameters else value
        for name, value in payload.items()
    }
    for name in ("prompt", "negative_prompt"):
        if isinstance(meant.get(name), str):
            meant[name] = meant[name].lstrip(_BYTE_ORDER_MARK)
    return _fingerprint(_replaced(meant, identities or {}), model)


def _fingerprint(payload: Mapping[str, Any], model: Model | None) -> str:
    """Of a payload whose pictures and numbers are what is meant; before, of any payload."""
    normal = _normal(payload)
    if model is not None:
        normal["model"] = model.id
        for name, parameter in model.parameters.items():
            if parameter.default is not None and normal.get(name) == _normal(parameter.default):
                del normal[name]  # asked for or left out, it is what the gateway does
    return _digest(normal)


def first_fingerprint(payload: Mapping[str, Any]) -> str:
    """The fingerprint of version 0.1, over the payload as it is: its records must be found."""
    return _digest(payload)


def _replaced(value: Any, texts: Mapping[str, str]) -> Any:
    """A JSON value with other texts in the place of some, at any depth."""
    if isinstance(value, str):
        return texts.get(value, value)
    if isinstance(value, Mapping):
        return {name: _replaced(inner, texts) for name, inner in value.items()}
    return [_replaced(inner, texts) for inner in value] if isinstance(value, list) else value


def account(base_url: str) -> str:
    """The gateway's address in one form, as records keep it.

    ``localhost`` and the loopback addresses are one machine; capitals, a default port and a
    trailing dot make no other host.
    """
    parts = urlsplit(base_url)
    host = (parts.hostname or "").rstrip(".").lower()
    try:
        if host == "localhost" or ipaddress.ip_address(host).is_loopback:
            host = "127.0.0.1"
    except ValueError:
        pass
    if ":" in host:
        host = f"[{host}]"
    default = {"https": 443, "http": 80}.get(parts.scheme)
    port = f":{parts.port}" if parts.port not in (None, default) else ""
    return urlunsplit((parts.scheme.lower(), host + port, parts.path.rstrip("/"), "", ""))


def key_hash(api_key: str) -> str:
    """Tells two keys apart and gives neither away: the beginning of a SHA-256, eight digits."""
    return hashlib.sha256(b"kling-integrations key\0" + api_key.encode()).hexdigest()[:8]


def _digest(value: Any) -> str:
    canonical = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _normal(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _normal(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_normal(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        if value.startswith("data:"):
            return value
        if value[:8].lower().startswith(("http://", "https://")):
            return _without_signature(value)
        lines = unicodedata.normalize("NFC", value).replace("\r\n", "\n").replace("\r", "\n")
        return "\n".join(line.rstrip() for line in lines.split("\n")).strip()
    return value


def _without_signature(url: str) -> str:
    """The link as it is, without the parameters that sign it, where it is signed."""
    try:
        parts = urlsplit(url.strip())
        query = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        return url
    if not any(_SIGNATURE.fullmatch(name.lower()) for name, _ in query):
        return url.strip()
    kept = [(name, text) for name, text in query if not _SIGNING.fullmatch(name.lower())]
    return urlunsplit(parts._replace(query=urlencode(kept)))
