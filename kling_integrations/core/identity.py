"""What makes two requests the same payment: one normal form, and the hash of it.

Two requests that the gateway cannot tell apart must not be paid for twice: numbers, text, model
names and defaults are brought into one form before they are hashed, and a signed link is the file
that it leads to, whatever its signature. The payload that is sent is never changed by this.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from .catalog import Model

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


def fingerprint(payload: Mapping[str, Any], model: Model | None) -> str:
    """SHA-256 (hexadecimal) of the normal form of a payload.

    ``model`` is its entry in the catalogue, None for an unknown one.
    """
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
