"""SECURITY.md, sentence by sentence."""

from __future__ import annotations

import asyncio
import html.parser
import json
import logging
import os
import pickle
import stat
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest

from kling_integrations import (
    AsyncKlingClient,
    DownloadError,
    InvalidRequestError,
    KlingClient,
    KlingError,
    Ledger,
    VideoRequest,
)
from kling_integrations.core.generation import Generation, Status, Video
from kling_integrations.core.storage import file_names
from kling_integrations.sandbox import Sandbox

KEY = "sandbox-k3y-that-nobody-may-see"  # one of the words that are sent to a sandbox
ROOT = Path(__file__).resolve().parents[2]
EVIL = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>\"' onmouseover='alert(1)' "
    "javascript:alert(1) </pre></code></div>{{7*7}} \u202e"
)


@pytest.fixture
def sandbox():
    with Sandbox(speed=1000, seconds=100, size=(160, 90), fps=8, cdn_host="localhost") as running:
        yield running


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KLING_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


# --- the key and signed addresses ----------------------------------------------------------------


def everything_of(error):
    """The traceback as debuggers and ``%xmode Verbose`` show it."""
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


@pytest.mark.parametrize("kind", [KlingClient, AsyncKlingClient])
@pytest.mark.parametrize(
    ("key", "base_url"),
    [
        (KEY, "http://evil.example"),
        (KEY, "https://gateway.example:port"),
        (f"{KEY}\nX-More: 1", None),
        (f"{KEY} {KEY}", None),
    ],
)
def test_an_error_while_a_client_is_made_does_not_show_the_key(kind, key, base_url):
    with pytest.raises(KlingError) as caught:
        kind(key, base_url)
    shown = everything_of(caught.value)
    own = shown.index("core/http")  # the frames of this package, not of this test
    assert KEY not in shown[own:]


@pytest.mark.parametrize("verb", ["get", "balance", "prices", "wait"])
def test_an_interrupt_in_any_verb_does_not_show_the_key(sandbox, verb):
    import signal
    import threading

    names = {"get": "poll", "wait": "poll", "balance": "billing", "prices": "models"}
    sandbox.fault(names[verb], "hang")
    main = threading.get_ident()
    timer = threading.Timer(0.5, lambda: signal.pthread_kill(main, signal.SIGINT))
    client = KlingClient(KEY, sandbox.base_url)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            getattr(client, verb)(*(["gen-1"] if verb != "balance" else []))
    finally:
        timer.cancel()
        client.close()
    assert KEY not in everything_of(caught.value)


def test_a_signed_address_shows_in_no_local_variable(tmp_path):
    generation = Generation(
        "g", Status.COMPLETED, Video("http://127.0.0.1:9/v.mp4?Signature=s3cr3t")
    )
    client = KlingClient(KEY, "https://gateway.example")
    with pytest.raises(DownloadError) as caught:
        client.save(generation, tmp_path / "folder-that-is-not-there" / "\0.mp4")
    shown = everything_of(caught.value)
    assert "s3cr3t" not in shown[shown.index("core/http") :]


@pytest.mark.parametrize(
    "fault", ["401", "400", "503", "drop-after", "html", "redirect", "not-http"]
)
def test_no_traceback_shows_the_key_not_even_one_with_local_variables(sandbox, home, fault):
    sandbox.fault("submit", fault)
    caught: list[BaseException] = []

    def work(client: KlingClient) -> None:
        try:
            client.generate(VideoRequest(prompt="a"))
        except KlingError as error:
            caught.append(error)

    with KlingClient(KEY, sandbox.base_url, ledger=Ledger()) as client:
        work(client)
    for error in caught:
        told = "".join(
            traceback.TracebackException.from_exception(error, capture_locals=True).format()
        )
        assert KEY not in told
        assert KEY not in repr(error)
        assert KEY not in str(vars(error))


def test_reprs_hold_neither_key_nor_signed_address(sandbox):
    with KlingClient(KEY, sandbox.base_url) as client:
        done = client.generate(VideoRequest(prompt="a"))
        for thing in (client, client.endpoint, client.endpoint.poll("x"), done, done.video):
            assert KEY not in f"{thing!r}{thing}"
            assert "ksTime" not in f"{thing!r}{thing}"
    assert KEY not in repr(AsyncKlingClient(KEY, sandbox.base_url))


def test_debug_logs_of_all_libraries_hold_neither_key_nor_signed_address(
    sandbox, home, tmp_path, caplog
):
    caplog.set_level(logging.DEBUG)
    sandbox.fault("download", "cut")
    sandbox.fault("poll", "503")
    with KlingClient(KEY, sandbox.base_url, ledger=Ledger()) as client:
        client.download(client.generate(VideoRequest(prompt="a")), tmp_path / "a.mp4")

    async def work():
        async with AsyncKlingClient(KEY, sandbox.base_url, ledger=Ledger()) as client:
            await client.download(
                await client.generate(VideoRequest(prompt="b")), tmp_path / "b.mp4"
            )

    asyncio.run(work())
    assert caplog.records
    assert KEY not in caplog.text
    assert "ksTime=" not in caplog.text


def test_the_cdn_never_sees_the_key(sandbox, tmp_path):
    with KlingClient(KEY, sandbox.base_url) as client:
        client.download(client.generate(VideoRequest(prompt="a")), tmp_path / "a.mp4")
    assert sandbox.requests["download"] == 1
    assert sandbox.leaked_keys == 0


@pytest.mark.parametrize(
    "url",
    [
        "http://api.aimlapi.com",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "http://user:pw@127.0.0.1@evil.example",
        "http://169.254.169.254",
        "http://0.0.0.0:80",
        "http://[::ffff:10.0.0.1]",
        "ftp://127.0.0.1",
        "//127.0.0.1",
        "https://",
        "https://user:pw@api.aimlapi.com",
        "https://api.aimlapi.com?x=1",
        "http://2130706433",
        "http://127.1.evil",
    ],
)
def test_the_key_is_never_sent_in_clear_text_off_this_machine(url):
    with pytest.raises(InvalidRequestError):
        KlingClient(KEY, url)


@pytest.mark.parametrize("key", ["a\nb", "a\r\nX-Evil: 1", "a b", "ä", "\x00"])
def test_a_key_cannot_smuggle_headers(sandbox, key):
    with pytest.raises(KlingError) as caught:
        KlingClient(key, sandbox.base_url)
    assert key not in str(caught.value)


def test_the_process_list_never_shows_the_key(sandbox, home):
    sandbox.fault("submit", "slow", seconds=1.0)
    asking = subprocess.Popen(
        [sys.executable, "-m", "kling_integrations", "generate", "a", "--detach"],
        env={**os.environ, "AIML_API_KEY": KEY, "AIML_BASE_URL": sandbox.base_url},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    sandbox.wait_for(lambda _: sandbox.posts, timeout=30)
    lines = [
        path.read_bytes()
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if os.access(path, os.R_OK) and path.exists()
    ]
    asking.communicate(timeout=30)
    assert any(b"kling_integrations" in line for line in lines)
    assert not any(KEY.encode() in line for line in lines)


def test_no_command_takes_a_key_as_an_argument():
    from kling_integrations.commands import parser

    words = json.dumps(parser().format_help())
    assert "--key" not in words
    assert "--api-key" not in words


def test_what_is_pickled_or_kept_as_json_holds_no_key(sandbox):
    request = VideoRequest(prompt="a")
    with KlingClient(KEY, sandbox.base_url) as client:
        done = client.generate(request)
    assert KEY.encode() not in pickle.dumps(request)
    from kling_integrations.core.manifest import manifest

    assert "ksTime" not in json.dumps(manifest(done, base_url=sandbox.base_url))


# --- files ---------------------------------------------------------------------------------------


def modes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode)
        for path in folder.rglob("*")
    }


def test_the_ledger_is_private_and_a_video_is_an_ordinary_file(sandbox, home, tmp_path):
    mask = os.umask(0o022)
    try:
        with KlingClient(KEY, sandbox.base_url, ledger=Ledger()) as client:
            client.download(client.generate(VideoRequest(prompt="a")), tmp_path / "a.mp4")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    for name, mode in modes(home).items():
        assert mode == (0o700 if (home / name).is_dir() else 0o600), name
    assert stat.S_IMODE((tmp_path / "a.mp4").stat().st_mode) == 0o644


def test_a_private_umask_is_respected(sandbox, tmp_path):
    mask = os.umask(0o077)
    try:
        with KlingClient(KEY, sandbox.base_url) as client:
            client.download(client.generate(VideoRequest(prompt="a")), tmp_path / "a.mp4")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a.mp4").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "..\\..\\evil.mp4",
        "~/.bashrc",
        "a\x00.mp4",
        ".bashrc",
        "-rf.mp4",
        "con.mp4",
        "x" * 5000,
        "index.html",
        "evil.mp4.py",
        "..",
        "",
        "\u202e4pm.exe",
        "$(touch x).mp4",
        "ﬁle／..／x",
    ],
)
def test_the_servers_file_name_never_leaves_the_folder_nor_becomes_a_script(tmp_path, name):
    folder = tmp_path / "videos"
    folder.mkdir()
    target = file_names.resolve_target(f"{folder}/", file_name=name, generation_id="gen/../1")
    assert target.parent.resolve() == folder.resolve()
    assert target.suffix in (".mp4", ".mov", ".m4v", ".webm", ".mkv")
    assert not target.name.startswith((".", "-"))
    target.write_bytes(b"")


@pytest.mark.parametrize(
    "prompt", ["../../../etc/x", "/etc/x", "..", "\x00", "~", "a" * 5000, EVIL]
)
def test_a_prompt_or_an_id_never_leads_out_of_the_folder(tmp_path, prompt):
    for generation_id in ("../../x", "/etc/x", "gen-1"):
        target = file_names.resolve_target(
            f"{tmp_path}/", file_name=None, generation_id=generation_id, prompt=prompt
        )
        assert target.parent == tmp_path


def test_a_link_in_the_place_of_the_target_is_replaced_not_followed(sandbox, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("keep")
    (tmp_path / "clip.mp4").symlink_to(precious)
    with KlingClient(KEY, sandbox.base_url) as client:
        client.download(client.generate(VideoRequest(prompt="a")), tmp_path / "clip.mp4")
    assert precious.read_text() == "keep"


def test_a_local_file_is_only_read_when_the_caller_names_it_and_it_is_a_picture(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("s3cret")
    for words in (f"@{secret}", f"file://{secret}", str(secret), f"{{{{ {secret} }}}}"):
        payload = json.dumps(VideoRequest(prompt=words).payload())
        assert "s3cret" not in payload
    for named in (secret, str(secret), f"file://{secret}"):
        with pytest.raises(InvalidRequestError):
            VideoRequest(prompt="a", image=named).payload()


def test_sql_stays_words_in_every_field_of_the_ledger(sandbox, home):
    evil = "'); DROP TABLE submissions; --"
    ledger = Ledger()
    with KlingClient(KEY, sandbox.base_url, ledger=ledger) as client:
        client.generate(VideoRequest(prompt=evil, negative_prompt=evil))
    assert ledger.history(search=evil)[0].prompt == evil
    assert ledger.entry(evil, evil) is None
    assert ledger.history(model=evil) == []


# --- pages ---------------------------------------------------------------------------------------


class Suspicious(html.parser.HTMLParser):
    """Collects what a page must not hold when its words come from others."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "iframe", "object", "embed", "form", "base", "link", "meta"):
            self.found.append(tag)
        for name, value in attrs:
            if name.startswith("on") and "alert" in (value or ""):
                self.found.append(f"{name}={value}")
            if name in ("href", "src") and (value or "").strip().lower().startswith("javascript"):
                self.found.append(f"{name}={value}")
            if "alert" in name:
                self.found.append(name)


def suspicious(page: str) -> list[str]:
    reader = Suspicious()
    reader.feed(page)
    return reader.found


def test_no_card_of_a_notebook_runs_what_a_prompt_an_error_or_a_model_says(home, tmp_path):
    from kling_integrations.jupyter.display.cards import failed_card, running_card
    from kling_integrations.jupyter.job import Job, JobStatus
    from kling_integrations.jupyter.targets import Target

    def job(**changes):
        made = Job(
            VideoRequest(prompt=EVIL, extra={"style": EVIL}),
            base_url="https://api.aimlapi.com",
            target=Target(tmp_path, "kling_outputs", "a.mp4"),
            timeout=10,
        )
        made.model = EVIL
        made.generation = Generation(EVIL, Status.GENERATING, model=EVIL)
        made.note = EVIL
        for name, value in changes.items():
            setattr(made, name, value)
        return made

    pages = [running_card(job()), running_card(job(), bar=True, with_time=False)]
    pages.append(failed_card(job(error=KlingError(EVIL, hint=EVIL), _status=JobStatus.FAILED)))
    texts = [text for bundle in pages for text in html_of(bundle)]
    assert len(texts) == len(pages)
    for text in texts:
        assert "alert(1)" in text  # it is there, as words
        assert suspicious(text) == [], text


def html_of(bundle) -> list[str]:
    data = getattr(bundle, "data", bundle)
    if isinstance(data, tuple):
        data = data[0]
    return [value for kind, value in data.items() if "html" in kind]


def test_an_address_that_is_a_script_is_never_a_link_nor_asked_for(tmp_path):
    done = Generation("gen-1", Status.COMPLETED, Video(url="javascript:alert(1)"))
    with KlingClient(KEY, "https://api.example") as client:
        with pytest.raises(KlingError, match="only http and https"):
            client.download(done, tmp_path / "a.mp4")


# --- airflow -------------------------------------------------------------------------------------


def test_nothing_that_airflow_renders_or_stores_can_hold_the_key(sandbox, monkeypatch):
    from resilience.fronts import _airflow_home

    _airflow_home()
    connection = {"conn_type": "kling", "password": KEY, "host": sandbox.base_url}
    monkeypatch.setenv("AIRFLOW_CONN_KLING_DEFAULT", json.dumps(connection))
    from kling_integrations.airflow import KlingHook, KlingVideoOperator, KlingVideoTrigger

    trigger = KlingVideoTrigger(
        generation_id="gen-1", kling_conn_id="kling_default", end_time=time.time() + 60
    )
    assert KEY not in json.dumps(trigger.serialize())
    assert KEY not in repr(vars(trigger))
    operator = KlingVideoOperator(task_id="a", prompt="b")
    rendered = {name: getattr(operator, name) for name in operator.template_fields}
    assert not {"password", "api_key", "host"} & set(rendered)
    assert KEY not in repr(vars(operator))
    assert KEY not in repr(vars(KlingHook("kling_default")))


def test_an_airflow_connection_over_plain_http_is_refused(monkeypatch):
    from resilience.fronts import _airflow_home

    _airflow_home()
    connection = {"conn_type": "kling", "password": KEY, "host": "http://api.evil.example"}
    monkeypatch.setenv("AIRFLOW_CONN_KLING_DEFAULT", json.dumps(connection))
    from kling_integrations.airflow import KlingHook

    with pytest.raises(Exception, match="https") as caught:
        _ = KlingHook("kling_default").client
    assert KEY not in str(caught.value)


def test_the_modules_that_are_imported_everywhere_start_no_process_and_no_connection():
    code = (
        "import sys\n"
        "def watch(event, args):\n"
        "    if event.startswith(('socket.', 'subprocess.', 'os.exec', 'os.fork')):\n"
        "        print(event); sys.exit(1)\n"
        "sys.addaudithook(watch)\n"
        "import kling_integrations, kling_integrations.core.http.client, kling_integrations.cli\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
