"""Both clients have the same verbs and arguments, and records never wait for downloads."""

import asyncio
import inspect
import threading
import time

import pytest

from kling_integrations import AsyncKlingClient, KlingClient, Ledger, VideoRequest
from kling_integrations.core.http.base import BaseClient
from kling_integrations.core.storage import download

ONLY_ASYNC = {"connections", "max_requests_per_second"}


def verbs(kind):
    """The public methods of a client, without those that both have from their base."""
    return {
        name: member
        for name, member in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
        and name not in ("exchange", "drive", "submit_until")
        and not hasattr(BaseClient, name)
    }


def test_both_clients_have_the_same_verbs():
    assert verbs(KlingClient).keys() == verbs(AsyncKlingClient).keys()


@pytest.mark.parametrize("verb", sorted(verbs(KlingClient)))
def test_a_verb_has_the_same_signature_in_both(verb):
    sync, coroutine = verbs(KlingClient)[verb], verbs(AsyncKlingClient)[verb]
    assert inspect.signature(sync) == inspect.signature(coroutine)
    assert inspect.iscoroutinefunction(coroutine)


def test_the_constructors_differ_only_in_what_one_loop_needs():
    sync = inspect.signature(KlingClient).parameters
    coroutine = inspect.signature(AsyncKlingClient).parameters
    assert coroutine.keys() - sync.keys() == ONLY_ASYNC
    assert all(coroutine[name] == sync[name] for name in sync)


@pytest.mark.parametrize("kind", [KlingClient, AsyncKlingClient])
def test_no_verb_hides_its_arguments(kind):
    for verb in verbs(kind).values():
        kinds = {each.kind for each in inspect.signature(verb).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD not in kinds
        assert verb.__doc__


async def test_an_id_is_written_down_while_downloads_fill_every_thread(
    sandbox, tmp_path, monkeypatch
):
    """Some sixty downloads that do not end until the id is there."""
    submitted = threading.Event()

    def stuck(transfer, clock=None):
        assert submitted.wait(30), "the submit waits for a download"
        return real(transfer, clock)

    real = download.fetch
    monkeypatch.setattr(download, "fetch", stuck)
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    async with AsyncKlingClient("sandbox", sandbox.base_url, ledger=ledger) as client:
        done = await client.generate(VideoRequest(prompt="first"))
        saves = [
            asyncio.ensure_future(client.save(done, tmp_path / f"{number}.mp4"))
            for number in range(60)
        ]
        await asyncio.sleep(0)
        began = time.monotonic()
        second = await asyncio.wait_for(client.submit(VideoRequest(prompt="second")), 20)
        assert ledger.entry(sandbox.base_url, second.id).generation_id == second.id
        assert time.monotonic() - began < 20
        submitted.set()
        await asyncio.gather(*saves)
