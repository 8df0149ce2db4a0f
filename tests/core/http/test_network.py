"""One network: both transports and the downloads trust the same and take the same proxy."""

import base64
import contextlib
import datetime
import ipaddress
import json
import os
import select
import socket
import ssl
import threading

import pytest

from kling_integrations import InvalidRequestError, KlingClient, Ledger, ServerError, VideoRequest
from kling_integrations.core.http import network
from kling_integrations.core.storage import download
from kling_integrations.core.waiting import Patience

VARIABLES = [
    *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"),
    *("NO_PROXY", "no_proxy"),
]
SOON = Patience(connect=0.05, first=0.01, most=0.02)
VIDEO = b"\0\0\0\x18ftypisom\0\0\0\0isommp42\0\0\0\x08mdat"


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """No setting of the machine that the tests run on."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """The certificates of a company: (its own, one of a server with its key)."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("authority")
    day = datetime.timedelta(days=1)
    now = datetime.datetime.now(datetime.UTC)

    def certificate(name, key, issuer, signer, names=None):
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(x509.BasicConstraints(names is None, None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        )
        if names is None:
            others = "content_commitment key_encipherment data_encipherment key_agreement"
            usage = dict.fromkeys(f"{others} encipher_only decipher_only".split(), False)
            made = made.add_extension(
                x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **usage),
                critical=True,
            )
        else:
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return made.sign(signer, hashes.SHA256())

    own, server = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    names = [x509.DNSName(name) for name in ("gateway.test", "cdn.test")]
    names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(certificate("CA", own, "CA", own).public_bytes(pem))
    (folder / "server.pem").write_bytes(
        certificate("gateway.test", server, "CA", own, names).public_bytes(pem)
        + server.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "ca.pem", folder / "server.pem"


class Server:
    """Accepts on loopback until it is closed; ``serve`` gets each connection in a thread."""

    def __init__(self):
        self.heard = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                line, _ = self._socket.accept()
                line.settimeout(10)
                threading.Thread(target=self._one, args=(line,), daemon=True).start()

    def _one(self, line):
        with contextlib.suppress(OSError), line:
            self.serve(line)

    def close(self):
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def head_of(line):
    head = b""
    while b"\r\n\r\n" not in head:
        chunk = line.recv(65536)
        if not chunk:
            return head
        head += chunk
    return head


class Secure(Server):
    """A gateway and a CDN behind TLS: JSON, or the video where a path ends in .mp4."""

    def __init__(self, certificate):
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate)
        super().__init__()

    def serve(self, line):
        with self._tls.wrap_socket(line, server_side=True) as secure:
            head = head_of(secure)
            self.heard.append(head)
            body = VIDEO if b".mp4 " in head else json.dumps({"current_balance": 5}).encode()
            secure.sendall(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body) + body
            )


class Proxy(Server):
    """Leads every tunnel to one server; ``login``: what it asks for."""

    def __init__(self, server, login=None):
        self._server, self._login = server, login
        super().__init__()

    def serve(self, line):
        head = head_of(line)
        self.heard.append(head)
        wanted = base64.b64encode(self._login or b"")
        if self._login and b"Basic " + wanted not in head:
            line.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        with socket.create_connection(("127.0.0.1", self._server.port)) as onward:
            line.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            ends = {line: onward, onward: line}
            while True:
                for ready in select.select(list(ends), [], [], 10)[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    ends[ready].sendall(data)


@pytest.fixture
def secure(authority):
    server = Secure(authority[1])
    yield server
    server.close()


@pytest.fixture
def proxy(secure):
    made = Proxy(secure)
    yield made
    made.close()


def balance(front, url):
    return front.run(url, "balance", patience=SOON)["current_balance"]


# --- trust -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_one_variable_says_what_both_transports_and_downloads_trust(
    front, secure, authority, monkeypatch, tmp_path, name
):
    url = f"https://127.0.0.1:{secure.port}"
    with pytest.raises(ServerError, match=r"not trusted .*REQUESTS_CA_BUNDLE or SSL_CERT_FILE"):
        balance(front, url)
    monkeypatch.setenv(name, str(authority[0]))
    assert balance(front, url) == 5
    saved = download.save(f"{url}/a.mp4", tmp_path / "a.mp4", patience=0.0)
    assert saved.path.read_bytes() == VIDEO


def test_a_bundle_of_another_authority_is_named_by_its_variable(
    front, secure, authority, monkeypatch
):
    import certifi

    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
    monkeypatch.setenv("SSL_CERT_FILE", str(authority[0]))
    with pytest.raises(ServerError, match="what counts is what REQUESTS_CA_BUNDLE names"):
        balance(front, f"https://127.0.0.1:{secure.port}")


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_bundle_that_cannot_be_read_is_said_before_anything_is_written(
    front, monkeypatch, tmp_path, name, content
):
    bundle, ledger = tmp_path / "ca.pem", Ledger(tmp_path / "ledger.sqlite3")
    if content is not None:
        bundle.write_bytes(content)
    monkeypatch.setenv(name, str(bundle))
    url = "https://gateway.test"
    with pytest.raises(InvalidRequestError, match=f"{name}=.*ca.pem"):
        front.run(url, "submit", VideoRequest(prompt="a"), ledger=ledger)
    assert ledger.history() == []
    with pytest.raises(ServerError, match=f"{name}=.*ca.pem"):
        balance(front, url)


def test_what_is_trusted_is_read_once_until_a_setting_changes(authority, monkeypatch):
    assert network.ssl_context() is network.ssl_context()
    monkeypatch.setenv("CURL_CA_BUNDLE", str(authority[0]))
    named = network.ssl_context()
    assert named is network.ssl_context()
    assert len(named.get_ca_certs()) == 1
    assert named.verify_mode is ssl.CERT_REQUIRED
    assert named.check_hostname


# --- proxies -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("scheme", ["http://", "", "HTTP://"])
def test_a_proxy_is_taken_with_and_without_a_scheme(
    front, proxy, authority, monkeypatch, tmp_path, name, scheme
):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority[0]))
    monkeypatch.setenv(name, f"{scheme}127.0.0.1:{proxy.port}")
    assert balance(front, "https://gateway.test") == 5
    download.save("https://cdn.test/a.mp4", tmp_path / "a.mp4", patience=0.0)
    hosts = [head.split()[1] for head in proxy.heard]
    assert hosts == [b"gateway.test:443", b"cdn.test:443"]


def test_a_login_of_the_proxy_is_sent_as_it_is_meant(front, secure, authority, monkeypatch):
    proxy = Proxy(secure, b"me:p#ss@1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority[0]))
    monkeypatch.setenv("HTTPS_PROXY", f"me:p%23ss%401@127.0.0.1:{proxy.port}")
    assert balance(front, "https://gateway.test") == 5
    monkeypatch.setenv("HTTPS_PROXY", f"me:wrong@127.0.0.1:{proxy.port}")
    with pytest.raises(ServerError) as caught:
        balance(front, "https://gateway.test")
    assert f"the proxy 127.0.0.1:{proxy.port} (HTTPS_PROXY) refused (407" in str(caught.value)
    assert "wrong" not in str(caught.value)
    proxy.close()


def test_a_proxy_that_is_not_there_is_named_and_nothing_was_sent(front, monkeypatch, raccoon):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("ALL_PROXY", f"127.0.0.1:{port}")
    said = rf"Nothing was submitted: the proxy 127.0.0.1:{port} \(ALL_PROXY\) cannot be reached"
    with pytest.raises(ServerError, match=said):
        front.run("https://gateway.test", "submit", raccoon, patience=SOON)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("socks5://proxy.test:1080", "names a socks5 proxy"),
        ('"http://proxy.test:3128"', "not the address of a proxy"),
        ("http://me:p/w#d@proxy.test:3128", "not the address of a proxy"),
        ("proxy.test:port", "not the address of a proxy"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_said_before_anything_is_written(
    front, monkeypatch, raccoon, tmp_path, named, said
):
    monkeypatch.setenv("HTTPS_PROXY", named)
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    with pytest.raises(InvalidRequestError, match=said):
        front.run("https://gateway.test", "submit", raccoon, ledger=ledger)
    assert ledger.history() == []


@pytest.mark.parametrize(
    ("exceptions", "straight"),
    [
        ("gateway.test", True),
        (".test", True),
        ("test", True),
        ("*.test", True),
        ("*", True),
        ("gateway.test:8443", True),
        ("other.test, gateway.test:8443", True),
        ("gateway.test:443", False),
        ("way.test", False),
        ("", False),
    ],
)
def test_no_proxy_has_one_reading(monkeypatch, exceptions, straight):
    monkeypatch.setenv("HTTPS_PROXY", "proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", exceptions)
    expected = None if straight else "http://proxy.test:3128"
    assert network.proxy_for("https://gateway.test:8443/v2") == expected


@pytest.mark.parametrize("exceptions", ["10.0.0.0/8", "10.1.2.3", "10.1.2.3:443", "fd00::/8"])
def test_addresses_and_networks_are_exceptions_too(monkeypatch, exceptions):
    monkeypatch.setenv("ALL_PROXY", "proxy.test:3128")
    monkeypatch.setenv("no_proxy", exceptions)
    host = "[fd00::1]" if ":/" in exceptions else "10.1.2.3"
    assert network.proxy_for(f"https://{host}/v2") is None
    assert network.proxy_for("https://11.1.2.3/v2") is not None


def test_loopback_is_never_reached_by_a_proxy(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "proxy.test:3128")
    monkeypatch.setenv("HTTP_PROXY", "proxy.test:3128")
    assert network.proxy_for("http://127.0.0.1:8000/v2") is None


def test_the_same_client_goes_on_when_the_setting_is_mended(secure, authority, monkeypatch):
    with KlingClient("key", f"https://127.0.0.1:{secure.port}") as client:
        with pytest.raises(ServerError):
            client.balance()
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", os.fspath(authority[0]))
        assert client.balance()["current_balance"] == 5
