"""Files in object storage, read through fsspec with the credentials of the platform's tools."""

from __future__ import annotations

from typing import Any

from ..errors import InvalidRequestError

EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "abfs": "azure",
    "abfss": "azure",
    "az": "azure",
}
"""The extra of this package that brings the driver of each kind of address."""


def is_address(text: str) -> bool:
    """Whether it is one of a kind that can be read: ``s3://…``, ``gs://…``, ``abfs://…``."""
    scheme, mark, _ = text.partition("://")
    return bool(mark) and scheme.lower() in EXTRAS


def filesystem(address: str, **options: Any) -> tuple[Any, str]:
    """The file system of fsspec that reaches the address, and the path there.

    Raises InvalidRequestError where its driver is not installed, else what the driver raises.
    """
    try:
        import fsspec

        found: tuple[Any, str] = fsspec.url_to_fs(address, **options)
    except ImportError as error:
        extra = EXTRAS[address.partition("://")[0].lower()]
        raise InvalidRequestError(
            f"{address} needs a driver that is not installed ({error}). "
            f'It comes with: pip install "kling-integrations[{extra}]"'
        ) from error
    return found


def read(address: str, most: int | None = None) -> bytes:
    """The bytes of a file, in one round trip; of a larger one than ``most`` one byte more.

    Raises InvalidRequestError in one sentence that names the address.
    """
    data = find(*filesystem(address), address, None if most is None else most + 1)
    if data is None:
        raise InvalidRequestError(f"There is no {address}.")
    return data


def find(files: Any, path: str, address: str, end: int | None = None) -> bytes | None:
    """The bytes of the file at ``path``, up to ``end``; None where there is no such file.

    Raises InvalidRequestError, which names the ``address``, where that cannot be known.
    """
    try:
        data: bytes = files.cat_file(path, end=end)
    except FileNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001 (each driver has errors of its own)
        raise InvalidRequestError(f"{address} cannot be read ({_words(error)}).") from None
    return data


def write(address: str, data: bytes) -> None:
    """Puts a file under its name, whole or not at all: object storage needs no rename for it.

    Raises InvalidRequestError in one sentence that names the address.
    """
    files, path = filesystem(address)
    try:
        files.pipe_file(path, data)
    except Exception as error:  # noqa: BLE001 (each driver has errors of its own)
        raise InvalidRequestError(f"{address} cannot be written ({_words(error)}).") from None


def same_address(one: str, other: str) -> bool:
    """Whether two texts are the address of one file: ``s3a://`` is ``s3://``."""

    def normal(address: str) -> tuple[str, str]:
        scheme, _, path = address.partition("://")
        return EXTRAS.get(scheme.lower(), scheme), path

    return is_address(one) and is_address(other) and normal(one) == normal(other)


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
