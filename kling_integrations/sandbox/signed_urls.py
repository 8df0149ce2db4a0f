"""The URLs of finished videos: signed, and dated in the gateway's way."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from urllib.parse import urlencode

CDN_PATH = "/sandbox-cdn"
LIFETIME = 30 * 86_400  # seconds: that long the URLs of native Kling videos are valid


class UrlSigner:
    """Signs the URLs of one sandbox: those of another one are refused."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(16)

    def url(self, origin: str, name: str, finished_at: float) -> str:
        """The URL of that file. `ksTime` is its last Unix second in hex, as in the gateway's own.

        `finished_at`: Unix seconds.
        """
        expiry = format(int(finished_at) + LIFETIME, "x")
        query = urlencode({"ksTime": expiry, "signature": self._sign(name, expiry)})
        return f"{origin}{CDN_PATH}/{name}?{query}"

    def is_valid(self, name: str, query: Mapping[str, str]) -> bool:
        """Whether the query has this sandbox's signature and has not expired."""
        expiry = query.get("ksTime", "")
        try:
            expired = int(expiry, 16) <= time.time()
        except ValueError:
            return False
        return not expired and hmac.compare_digest(
            self._sign(name, expiry).encode(), query.get("signature", "").encode()
        )

    def _sign(self, name: str, expiry: str) -> str:
        return hmac.new(self._secret, f"{name}?{expiry}".encode(), hashlib.sha256).hexdigest()[:32]
