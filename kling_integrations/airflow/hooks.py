"""KlingHook: the connection of type ``kling`` as a client."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.connection import get_async_connection
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from ..core import settings
from ..core.errors import (
    AuthenticationError,
    InvalidRequestError,
    KlingError,
    NextStep,
    Verb,
    describe,
)
from ..core.generation import printable
from ..core.http.client import KlingClient
from . import version_compat
from .exceptions import KlingFailed, KlingTaskError, task_error
from .get_provider_info import CONNECTION_TYPE, DEFAULT_CONNECTION, EXTRAS, FORM, HOOK_NAME
from .hints import renderer
from .record_places import default_record_path
from .stopping import end_with_task
from .task_ledger import TaskLedger

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from ..core.http.async_client import AsyncKlingClient


@dataclass(frozen=True, slots=True)
class Access:
    """What a client needs of a connection. ``timeout`` bounds one HTTP exchange (seconds)."""

    base_url: str
    api_key: str = field(repr=False)
    timeout: float = 60.0
    legacy_endpoint: bool = False

    @classmethod
    def of(cls, connection: Connection) -> Access:
        """Raises InvalidRequestError for a base URL that would send the key in clear text,
        AuthenticationError without a key; unknown extras are not read.
        """
        extras = _extras(connection)
        if not (connection.password or "").strip():
            raise AuthenticationError(
                f"The connection {connection.conn_id!r} holds no API key (its password).",
                next_steps=[NextStep(Verb.SET_KEY), NextStep(Verb.TRY_SANDBOX)],
            )
        return cls(
            base_url=settings.base_url(_address(connection)),
            api_key=settings.api_key(connection.password),
            timeout=_seconds(extras.get("timeout")),
            legacy_endpoint=_boolean(extras.get("legacy_endpoint")),
        )

    @property
    def clock_speed(self) -> float:
        """Seconds of the gateway's clock in a second: 1 but for the sandbox."""
        return settings.clock_for(self.base_url).speed

    def client(self, ledger: TaskLedger | None = None) -> KlingClient:
        return KlingClient(
            self.api_key,
            self.base_url,
            timeout=self.timeout,
            legacy_endpoint=self.legacy_endpoint,
            ledger=ledger,
        )

    def async_client(self) -> AsyncKlingClient:
        from ..core.http.async_client import AsyncKlingClient

        return AsyncKlingClient(
            self.api_key,
            self.base_url,
            timeout=self.timeout,
            legacy_endpoint=self.legacy_endpoint,
        )


class KlingHook(BaseHook):
    """The gateway through an Airflow connection: ``KlingHook().client`` in a ``@task``.

    The client of a running task keeps its submissions at ``record_path`` (default:
    ``[kling] record_path``, else the worker's own ledger under KLING_HOME) and in Airflow's task
    state store (3.3 and up): a retry or a clear that asks for the same request gets the generation
    that an earlier attempt paid for. In the same run of the same task, ``take=2`` or ``new=True``
    ask for another one. Unlike KlingVideoOperator, a retry whose request differs pays again: one
    task may ask for several videos. ``client.recover()`` looks up what is uncertain.

    The connection's password is the API key and its host the base URL (empty: the gateway), for
    example ``{"conn_type": "kling", "password": "…", "host": "https://api.aimlapi.com"}`` or
    ``kling://:KEY@api.aimlapi.com``. Base URLs are https; http is taken on loopback only.
    """

    conn_name_attr = "kling_conn_id"
    default_conn_name = DEFAULT_CONNECTION
    conn_type = CONNECTION_TYPE
    hook_name = HOOK_NAME

    def __init__(
        self,
        kling_conn_id: str = DEFAULT_CONNECTION,
        *,
        record_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kling_conn_id = kling_conn_id
        self.record_path = record_path

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """The connection form before Airflow 3.2; see get_provider_info."""
        return {key.replace("-", "_"): value for key, value in FORM.items()}

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """The connection form before Airflow 3.2; see get_provider_info."""
        from wtforms import BooleanField, IntegerField  # type: ignore[import-untyped]

        widgets = {"timeout": IntegerField, "legacy_endpoint": BooleanField}
        return {
            name: widget(EXTRAS[name]["label"], description=EXTRAS[name]["description"])
            for name, widget in widgets.items()
        }

    def get_conn(self) -> KlingClient:
        return self.client

    @cached_property
    def client(self) -> KlingClient:
        """A pooled client, made once. Raises KlingFailed for a connection that cannot work."""
        context = version_compat.current_context()
        if context is None:
            return self.access().client()
        ledger = TaskLedger.of(context, self.record_path or default_record_path())
        ledger.client = self.access().client(ledger)
        end_with_task(ledger.client, context)
        return ledger.client

    def access(self) -> Access:
        try:
            connection = self.get_connection(self.kling_conn_id)
        except AirflowNotFoundException as missing:
            raise _undefined(self.kling_conn_id) from missing
        return _read(connection)

    def test_connection(self) -> tuple[bool, str]:
        """Asks for the balance, which is free. For the button of the connection form."""
        try:
            with self.access().client() as client:
                balance = client.balance()
        except KlingFailed as error:
            return False, _shown(str(error))
        except KlingError as error:
            return False, _shown(describe(error, renderer(self.kling_conn_id)))
        where = "the sandbox" if client.is_sandbox else client.endpoint.base_url
        amount, currency = balance.get("current_balance"), balance.get("currency")
        unit = currency[:12] if isinstance(currency, str) else ""
        credit = f", balance {amount} {unit}".rstrip() if amount is not None else ""
        return True, _shown(f"The key is accepted by {where}{credit}.")


async def access_async(kling_conn_id: str) -> Access:
    """The connection without blocking an event loop, on every Airflow from 3.0."""
    try:
        connection = await get_async_connection(kling_conn_id)
    except Exception as trouble:
        # A triggerer with another Fernet key gets the same answer as one without the connection.
        raise _unreadable(kling_conn_id, trouble) from trouble
    return _read(connection)


def _read(connection: Connection) -> Access:
    try:
        return Access.of(connection)
    except KlingError as error:
        raise task_error(error, connection.conn_id) from None


def _undefined(conn_id: str) -> KlingFailed:
    error = AuthenticationError(
        f"The connection {conn_id!r} is not defined. It is of type kling: the password is the API "
        "key, the host the base URL (empty for the gateway).",
        next_steps=[NextStep(Verb.TRY_SANDBOX)],
    )
    return KlingFailed(error, conn_id)


def _unreadable(conn_id: str, trouble: Exception) -> KlingTaskError:
    error = AuthenticationError(
        f"The connection {conn_id!r} is not readable in the triggerer ({type(trouble).__name__}): "
        "it is not defined there, or the triggerer has another Fernet key or secrets backend than "
        "the workers.",
    )
    return task_error(error, conn_id)


def _address(connection: Connection) -> str | None:
    """The base URL out of host, port and schema, which a connection URI fills from its parts."""
    host = (connection.host or "").strip()
    if not host:
        return None
    schema = (connection.schema or "").strip().strip("/")
    if schema.lower() in ("http", "https"):  # as connections of the type HTTP have it
        scheme, schema = schema.lower(), ""
    else:
        scheme = "http" if settings.is_loopback(f"http://{host}") else "https"
    if "://" not in host:
        host = f"{scheme}://{host}"
    try:
        parts = urlsplit(host)
        named_port = parts.port
    except ValueError:
        # Without the address itself: it can hold a password.
        raise InvalidRequestError(
            "The connection's host cannot be read as a base URL (is its port a number?)."
        ) from None
    if connection.port and named_port is None:
        parts = parts._replace(netloc=f"{parts.netloc}:{connection.port}")
    if schema and not parts.path.strip("/"):
        parts = parts._replace(path=f"/{schema}")
    return parts.geturl()


def _extras(connection: Connection) -> dict[str, Any]:
    """The allowed extras. Not ``extra_dejson``: that masks by a blocking call (Airflow < 3.3.2)."""
    try:
        given = json.loads(connection.extra or "{}")
    except (ValueError, RecursionError):
        raise InvalidRequestError(
            f"The extra of the connection {connection.conn_id!r} is not JSON."
        ) from None
    if not isinstance(given, dict):
        raise InvalidRequestError(
            f"The extra of the connection {connection.conn_id!r} is not a JSON object."
        )
    return {name: given[name] for name in EXTRAS if given.get(name) not in (None, "")}


def _shown(text: str) -> str:
    """Text for the connection form: of bounded length, and nothing that steers a terminal."""
    return "\n".join(printable(line[:500]) for line in text[:5000].splitlines()[:12])


def _seconds(value: Any) -> float:
    try:
        seconds = 60.0 if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = 0.0
    if not 1.0 <= seconds <= 600.0:
        raise InvalidRequestError("The connection's timeout is a number of seconds from 1 to 600.")
    return seconds


def _boolean(value: Any) -> bool:
    return value.strip().lower() in ("true", "1", "yes") if isinstance(value, str) else bool(value)
