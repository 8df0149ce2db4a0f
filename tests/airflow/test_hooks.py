"""The connection: what is read from it, what is refused, and what the form shows."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from airflow.sdk import Connection

from kling_integrations.airflow import KlingHook
from kling_integrations.airflow.exceptions import KlingFailed
from kling_integrations.airflow.get_provider_info import EXTRAS, FORM, get_provider_info
from kling_integrations.airflow.hooks import Access
from kling_integrations.core.errors import AuthenticationError, InvalidRequestError


def connection(**parts: object) -> Connection:
    return Connection(**{"conn_id": "c", "conn_type": "kling", "password": "key", **parts})


@pytest.mark.parametrize(
    ("parts", "base_url"),
    [
        ({}, "https://api.aimlapi.com"),
        ({"host": "https://api.aimlapi.com/v2/"}, "https://api.aimlapi.com"),
        ({"host": "gateway.example"}, "https://gateway.example"),
        ({"host": "gateway.example", "port": 8443}, "https://gateway.example:8443"),
        ({"host": "http://127.0.0.1:8765/sandbox/x60"}, "http://127.0.0.1:8765/sandbox/x60"),
        (
            {"host": "127.0.0.1", "port": 8765, "schema": "sandbox/x60"},
            "http://127.0.0.1:8765/sandbox/x60",
        ),
        ({"host": "127.0.0.1:8765/sandbox/x60"}, "http://127.0.0.1:8765/sandbox/x60"),
        ({"host": "localhost", "port": 80}, "http://localhost"),
        ({"host": "https://proxy.example/kling"}, "https://proxy.example/kling"),
        ({"host": "gateway.example", "schema": "https"}, "https://gateway.example"),
        ({"host": "https://gateway.example", "schema": "HTTPS"}, "https://gateway.example"),
        ({"host": "127.0.0.1", "port": 8765, "schema": "http"}, "http://127.0.0.1:8765"),
    ],
)
def test_the_base_url_comes_out_of_the_parts(parts, base_url, monkeypatch):
    monkeypatch.delenv("AIML_BASE_URL", raising=False)
    assert Access.of(connection(**parts)).base_url == base_url


@pytest.mark.parametrize(
    "uri",
    [
        "kling://:key@127.0.0.1:8765/sandbox/x60",
        "kling://:key@http%3A%2F%2F127.0.0.1%3A8765%2Fsandbox%2Fx60",
        "kling://http://:key@127.0.0.1:8765/sandbox/x60",
    ],
)
def test_connection_uris_of_the_sandbox_are_read(monkeypatch, uri):
    monkeypatch.setenv("AIRFLOW_CONN_KLING_DEFAULT", uri)
    assert KlingHook().access() == Access("http://127.0.0.1:8765/sandbox/x60", "key")


@pytest.mark.parametrize("host", ["http://gateway.example", "ftp://x", "https://u:p@x", "a:b:c"])
def test_a_host_that_would_send_the_key_in_clear_text_is_refused(host):
    with pytest.raises(InvalidRequestError):
        Access.of(connection(host=host))


def test_a_connection_without_a_key_is_refused_whatever_the_environment_holds(monkeypatch):
    monkeypatch.setenv("AIML_API_KEY", "somebody-elses")
    with pytest.raises(AuthenticationError, match="no API key"):
        Access.of(connection(password=None))


def test_a_connection_without_a_key_says_where_the_key_goes(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_NO_KEY", "kling://localhost")
    with pytest.raises(KlingFailed) as caught:
        KlingHook("no_key").client  # noqa: B018
    assert str(caught.value) == (
        "The connection 'no_key' holds no API key (its password).\n"
        "  Set the API key as the password of the connection 'no_key'.\n"
        "  To try it without a key or money: start `kling sandbox` and set "
        "AIRFLOW_CONN_NO_KEY=kling://:any-key@127.0.0.1:8765/sandbox/x60"
    )


def test_only_the_extras_that_are_named_are_read():
    extra = {"timeout": "30", "legacy_endpoint": "true", "proxies": "http://evil", "base_url": "x"}
    access = Access.of(connection(extra=json.dumps(extra)))
    assert access == Access("https://api.aimlapi.com", "key", 30.0, True)


@pytest.mark.parametrize("extra", ['{"timeout": "soon"}', '{"timeout": 0.1}', "[1]", "{"])
def test_extras_that_cannot_be_are_refused(extra):
    with pytest.raises((InvalidRequestError, ValueError)):
        Access.of(connection(extra=extra))


def test_the_key_is_in_no_repr(sandbox):
    hook = KlingHook()
    assert "sandbox" in hook.access().base_url
    assert "api_key" not in repr(hook.access())
    assert "Bearer" not in repr(hook.client)


def test_an_undefined_connection_says_how_to_define_it_and_where_the_sandbox_is(monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_KLING_DEFAULT", raising=False)
    try:
        KlingHook("nowhere").client  # noqa: B018
    except KlingFailed as error:
        assert str(error) == (
            "The connection 'nowhere' is not defined. It is of type kling: the password is the "
            "API key, the host the base URL (empty for the gateway).\n"
            "  To try it without a key or money: start `kling sandbox` and set "
            "AIRFLOW_CONN_NOWHERE=kling://:any-key@127.0.0.1:8765/sandbox/x60"
        )
    except Exception as error:
        pytest.skip(f"this Airflow needs its database for that: {type(error).__name__}")


def test_the_test_button_names_the_balance_and_costs_nothing(sandbox):
    accepted, message = KlingHook().test_connection()
    assert accepted
    assert "balance" in message
    assert "sandbox" in message
    assert sandbox.posts == []


def test_the_test_button_says_why_not(sandbox, connect):
    connect(sandbox, key="bad")
    accepted, message = KlingHook().test_connection()
    assert not accepted
    assert "key" in message
    assert "bad" not in message.split()


def test_the_client_serves_a_task_of_ones_own(sandbox):
    assert KlingHook().client.balance()["current_balance"] > 0
    assert KlingHook().get_conn().is_sandbox


def test_both_forms_have_the_same_fields():
    assert KlingHook.get_ui_field_behaviour() == {
        "hidden_fields": FORM["hidden-fields"],
        "relabeling": FORM["relabeling"],
        "placeholders": FORM["placeholders"],
    }
    pytest.importorskip("wtforms")
    assert list(KlingHook.get_connection_form_widgets()) == list(EXTRAS)


def test_airflow_takes_the_provider_info():
    import jsonschema
    from airflow import providers_manager

    schema = (
        providers_manager._read_schema_from_resources_or_local_file("provider_info.schema.json")
        if hasattr(providers_manager, "_read_schema_from_resources_or_local_file")
        else None
    )
    if schema is None:
        from pathlib import Path

        schema = json.loads(
            (Path(providers_manager.__file__).parent / "provider_info.schema.json").read_text()
        )
    jsonschema.validate(get_provider_info(), schema)


def test_the_provider_info_is_read_without_importing_anything_heavy():
    code = (
        "import sys; from kling_integrations.airflow.get_provider_info import get_provider_info; "
        "get_provider_info(); "
        "print([m for m in ('airflow', 'requests', 'aiohttp') if m in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"


def test_the_entry_point_is_the_function():
    from importlib.metadata import entry_points

    (point,) = (
        p for p in entry_points(group="apache_airflow_provider") if p.value.startswith("kling_")
    )
    assert point.load()()["package-name"] == "kling-integrations"


@pytest.mark.parametrize(
    "host",
    [
        "https://user:hunter2@gateway.example:port",
        "https://user:hunter2@[::1",
        "https://user:hunter2@gateway.example",
        "user:hunter2@gateway.example",
        "http://gateway.example/?key=hunter2",
    ],
)
def test_a_password_in_the_host_is_never_echoed(host, monkeypatch):
    with pytest.raises(InvalidRequestError) as caught:
        Access.of(connection(host=host))
    assert "hunter2" not in str(caught.value)
    as_json = {"conn_type": "kling", "password": "key", "host": host}
    monkeypatch.setenv("AIRFLOW_CONN_KLING_DEFAULT", json.dumps(as_json))
    accepted, message = KlingHook().test_connection()
    assert not accepted
    assert "hunter2" not in message


@pytest.mark.parametrize("timeout", ["1" + "0" * 400, "NaN", "Infinity", '"9e999"'])
def test_a_timeout_of_any_size_is_refused_in_words(timeout):
    with pytest.raises(InvalidRequestError, match="from 1 to 600"):
        Access.of(connection(extra=f'{{"timeout": {timeout}}}'))


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (200, {"current_balance": 5, "currency": "\x1b[31m$" * 20_000}),
        (200, {"current_balance": "\x1b]0;owned\x07" * 10_000, "currency": ["x"]}),
        (401, {"message": "\x1b[2Jno\n" * 300_000}),
        (500, "\x1b[2Jno\n" * 300_000),
    ],
)
def test_the_test_button_is_bounded_and_steers_no_terminal(sandbox, code, body):
    sandbox.fault("billing", "reply", None, code=code, body=body)
    accepted, message = KlingHook().test_connection()
    assert accepted is (code == 200)
    assert len(message) < 2000
    assert "\x1b" not in message
    assert "\x07" not in message


@pytest.mark.parametrize("password", ["Bearer a-key", "bearer a-key", "'a-key'", '"a-key"'])
def test_a_password_that_is_more_than_the_key_is_refused_and_not_shown(password):
    with pytest.raises(AuthenticationError, match="leave") as raised:
        Access.of(connection(password=password))
    assert "a-key" not in str(raised.value)
