"""Where the key may go, and what the environment says."""

import os

import pytest

from kling_integrations import (
    AsyncKlingClient,
    AuthenticationError,
    InvalidRequestError,
    KlingClient,
    Ledger,
    LedgerError,
    Verb,
)
from kling_integrations.core import settings


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("https://api.aimlapi.com", "https://api.aimlapi.com"),
        ("https://api.aimlapi.com/v2/", "https://api.aimlapi.com"),
        ("http://127.0.0.1:8765/sandbox/x60", "http://127.0.0.1:8765/sandbox/x60"),
        ("http://localhost:1", "http://localhost:1"),
        ("http://[::1]:1", "http://[::1]:1"),
    ],
)
def test_https_anywhere_and_http_on_loopback(given, url):
    assert settings.base_url(given) == url


@pytest.mark.parametrize(
    "given",
    [
        "http://api.aimlapi.com",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "ftp://127.0.0.1",
        "https://user:secret@api.aimlapi.com",
        "https://api.aimlapi.com?key=1",
        "api.aimlapi.com",
        "https://",
        "javascript:alert(1)",
    ],
)
def test_the_key_is_sent_nowhere_else(given):
    with pytest.raises(InvalidRequestError):
        settings.base_url(given)


@pytest.mark.parametrize("name", settings.KEY_VARIABLES)
def test_the_key_is_read_from_the_environment_and_trimmed(monkeypatch, name):
    for other in settings.KEY_VARIABLES:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, " k3y\n")
    assert settings.api_key() == "k3y"


@pytest.mark.parametrize("client", [KlingClient, AsyncKlingClient])
@pytest.mark.parametrize("given", [None, "0123456789abcdef0123456789abcdef"])
@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:1", "[::1]:8765"])
def test_a_real_key_never_goes_to_the_address_of_the_sandbox(monkeypatch, client, given, host):
    for name in settings.KEY_VARIABLES:
        monkeypatch.setenv(name, "badc0ffee0123456789abcdef0123456")
    assert client(given, f"http://{host}/sandbox/x60").endpoint.api_key == "sandbox"
    assert client(given, f"http://{host}/proxy").endpoint.api_key == (
        given or "badc0ffee0123456789abcdef0123456"
    )


@pytest.mark.parametrize("word", ["sandbox", "sandbox-one", "bad", "bad-one", "broke"])
def test_the_words_of_the_sandbox_are_sent_to_it(monkeypatch, word):
    url = "http://127.0.0.1:8765/sandbox/x60"
    assert settings.api_key(word, url) == word
    monkeypatch.setenv("AIML_API_KEY", word)
    assert settings.api_key(url=url) == word


def test_the_sandbox_needs_no_key_and_another_gateway_of_this_machine_does(monkeypatch):
    for name in settings.KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert settings.api_key(url="http://127.0.0.1:8765/sandbox/x60") == "sandbox"
    for url in ("http://127.0.0.1:8765/sandboxed", "http://127.0.0.1:8765", None):
        with pytest.raises(AuthenticationError):
            settings.api_key(url=url)


def test_a_key_with_a_line_break_inside_is_refused_without_showing_it():
    with pytest.raises(AuthenticationError) as caught:
        settings.api_key("k3y\nX-Header: 1")
    assert "k3y" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "speed"),
    [
        ("http://127.0.0.1:1/sandbox/x60", 60),
        ("http://127.0.0.1:1/sandbox/x0.5", 0.5),
        ("http://127.0.0.1:1", 1),
        ("https://api.aimlapi.com", 1),
        ("https://evil.example/sandbox/x1000", 1),
        ("http://127.0.0.1:1/sandbox/x0", 1),
    ],
)
def test_only_the_sandbox_has_another_clock(url, speed):
    assert settings.clock_for(url).speed == speed


def test_only_loopback_can_be_a_sandbox():
    assert settings.is_sandbox("http://127.0.0.1:1/sandbox/x60")
    assert not settings.is_sandbox("https://api.aimlapi.com/sandbox/x60")


def test_home_is_where_the_environment_says_and_private(tmp_path, monkeypatch):
    monkeypatch.setenv("KLING_HOME", str(tmp_path / "a" / "b"))
    assert settings.home() == tmp_path / "a" / "b"
    assert Ledger().history() == []
    assert settings.home().stat().st_mode & 0o077 == 0


def test_a_home_of_nobody_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setenv("KLING_HOME", "~nobody-of-that-name/kling")
    with pytest.raises(LedgerError, match=r"KLING_HOME.*nobody-of-that-name") as caught:
        Ledger().history()
    assert caught.value.next_steps[0].verb is Verb.SET_HOME


@pytest.mark.parametrize(
    "given",
    [
        "http://evil.example:80\\[::1]",
        "http://evil.example\\@127.0.0.1",
        "http://127.0.0.1\\.evil.example",
        "http://[::1].evil.example",
        "http://evil.example:8080#@[::1]",
        "http://evil.example:\t80@127.0.0.1",
        "https://api.aimlapi.com\n.evil.example",
        "https://api .aimlapi.com",
        "https://api.aimlapi.com:99999",
        "https://api.aimlapi.com:port",
        "https://\u0430pi.aimlapi.com",
        "https://api.aimlapi.com/\x00",
    ],
)
def test_an_address_that_readers_could_understand_differently_is_refused(given):
    assert not settings.is_loopback(given)
    with pytest.raises(InvalidRequestError, match="base URL is refused"):
        settings.base_url(given)


def test_a_refused_address_is_not_shown_because_it_can_hold_a_password():
    with pytest.raises(InvalidRequestError) as caught:
        settings.base_url("https://user:s3cret@api.aimlapi.com")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("HTTPS://API.AIMLAPI.COM:443/", "https://api.aimlapi.com"),
        ("https://api.aimlapi.com.", "https://api.aimlapi.com"),
        ("https://gateway.example:8443/kling/", "https://gateway.example:8443/kling"),
    ],
)
def test_an_address_is_rebuilt_from_its_parts(given, url):
    assert settings.base_url(given) == url


@pytest.mark.parametrize("name", ["KLING_HOME", "KLING_LEDGER"])
@pytest.mark.parametrize(
    ("given", "why", "meant"),
    [
        ("records", "is relative", "{cwd}/records"),
        ("./records", "is relative", "{cwd}/records"),
        ('"/data/k"', "stands in quotes", "/data/k"),
        ("'/data/k'", "stands in quotes", "/data/k"),
        ("$WHERE/k", "holds a variable", "/where/k"),
        ("${WHERE}/k", "holds a variable", "/where/k"),
        ("/data/$WHERE", "holds a variable", "/data//where"),
    ],
)
def test_a_path_that_would_be_another_in_each_folder_is_refused_with_the_one_that_is_meant(
    tmp_path, monkeypatch, name, given, why, meant
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WHERE", "/where")
    monkeypatch.setenv(name, given)
    with pytest.raises(LedgerError) as caught:
        Ledger().history()
    assert f"{name}={given!r} {why}" in str(caught.value)
    assert os.path.normpath(meant.format(cwd=tmp_path)) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", ['"s3://bucket/x"', "s3://$BUCKET/x"])
def test_the_address_of_a_ledger_is_as_it_is_meant_or_refused(monkeypatch, given):
    monkeypatch.setenv("KLING_LEDGER", given)
    with pytest.raises(LedgerError, match="KLING_LEDGER"):
        Ledger().history()


def test_a_dollar_that_names_no_variable_is_part_of_a_path(monkeypatch, tmp_path):
    monkeypatch.setenv("KLING_HOME", str(tmp_path / "c$"))
    assert settings.home() == tmp_path / "c$"


@pytest.mark.parametrize("home", [None, "", "/"])
def test_without_a_home_the_way_on_is_to_name_one(monkeypatch, home):
    import pwd

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("KLING_HOME", "XDG_DATA_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    with pytest.raises(LedgerError, match="no home") as caught:
        Ledger().history()
    assert caught.value.next_steps[0].verb is Verb.SET_HOME


@pytest.mark.parametrize(
    ("key", "said"),
    [('"k3y"', "quotes"), ("'k3y'", "quotes"), ("Bearer k3y", "Bearer"), ("bearer k3y", "Bearer")],
)
def test_a_key_that_was_copied_with_what_stood_around_it_is_said_to_be(monkeypatch, key, said):
    monkeypatch.setenv("AIML_API_KEY", key)
    with pytest.raises(AuthenticationError, match=said) as caught:
        settings.api_key()
    assert "k3y" not in str(caught.value)


def test_an_address_in_quotes_is_said_to_be_in_quotes(monkeypatch):
    monkeypatch.setenv("AIML_BASE_URL", '"https://api.aimlapi.com"')
    with pytest.raises(InvalidRequestError, match="in quotes"):
        settings.base_url()
