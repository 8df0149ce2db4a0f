"""Who may call a sandbox, and what reaches its terminal."""

import json
import socket

import pytest
import requests

from kling_integrations.sandbox import Sandbox

VIDEO = {"model": "klingai/v2.5-turbo/pro/text-to-video", "prompt": "A secret plan"}


def answer(sandbox, *lines: str, method: str = "GET", path: str = "/_jobs", body: str = "") -> str:
    """The whole reply to a request with these header lines."""
    head = [
        f"{method} /sandbox/x60{path} HTTP/1.1",
        *lines,
        "Authorization: Bearer sandbox",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "",
        body,
    ]
    with socket.create_connection(("127.0.0.1", sandbox.port), timeout=10) as line:
        line.sendall("\r\n".join(head).encode())
        return b"".join(iter(lambda: line.recv(65_536), b"")).decode()


@pytest.mark.parametrize("path", ["", "/_jobs", "/_faults", "/v2/billing", "/v1/models"])
@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:PORT", "127.0.0.1.evil.example", "localhost.evil.example", ""]
    + ["[::1", "10.0.0.1:PORT", "localhost@evil.example", "0.0.0.0:PORT"],
)
def test_a_page_under_another_name_for_this_machine_reads_nothing(shared, host, path):
    shared.submit(prompt="A secret plan")
    reply = answer(
        shared.sandbox, f"Host: {host.replace('PORT', str(shared.sandbox.port))}", path=path
    )
    assert " 403 " in reply.split("\r\n")[0] or " 400 " in reply.split("\r\n")[0]
    assert "secret plan" not in reply
    assert "balance" not in reply


@pytest.mark.parametrize("lines", [[], ["Host: localhost", "Host: evil.example"]])
def test_a_call_without_one_clear_host_is_refused(shared, lines):
    reply = answer(shared.sandbox, *lines)
    assert " 403 " in reply.split("\r\n")[0] or " 400 " in reply.split("\r\n")[0]


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://localhost:1", "http://127.0.0.1", "https://OWN", ""],
)
def test_a_web_page_neither_submits_nor_arms_faults_nor_clears_them(make, origin):
    with make() as caller:
        caller.sandbox.fault("poll", "503")
        headers = {"Origin": origin.replace("OWN", f"127.0.0.1:{caller.sandbox.port}")}
        faults = f"{caller.sandbox.base_url}/_faults"
        plain = {**headers, "Content-Type": "text/plain"}  # what a page may send without asking
        refused = [
            requests.post(faults, data='{"fault": "submit:503"}', headers=plain, timeout=5),
            requests.delete(faults, headers=headers, timeout=5),
            requests.options(faults, headers=headers, timeout=5),
            caller.post(headers=headers),
            caller.get("/_jobs", headers=headers),
        ]
        assert [reply.status_code for reply in refused] == [403] * 5
        assert not any("access-control" in name.lower() for r in refused for name in r.headers)
        assert [fault["kind"] for fault in caller.get("/_faults").json()["faults"]] == ["status"]
        assert not caller.sandbox.posts


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]", "127.0.0.1:9000"])
def test_the_names_of_this_machine_are_served_whatever_the_port(shared, host):
    assert " 200 " in answer(shared.sandbox, f"Host: {host}").split("\r\n")[0]
    own = answer(shared.sandbox, f"Host: {host}", f"Origin: http://{host}")
    assert " 200 " in own.split("\r\n")[0]


def test_the_host_of_the_videos_is_served_too():
    with Sandbox(cdn_host="videos.test") as sandbox:
        assert " 200 " in answer(sandbox, f"Host: videos.test:{sandbox.port}").split("\r\n")[0]


def test_what_a_request_names_cannot_steer_the_terminal_of_the_sandbox():
    lines: list[str] = []
    with Sandbox(unknown_models=True, log=lines.append, size=(160, 90), fps=4) as sandbox:
        evil = (
            "klingai/\x1b]0;owned\x07\x1b[2J\r\n12:00:00  accepted\u202e\ud800\x9b31m" + "x" * 9999
        )
        headers = {"Authorization": "Bearer sandbox", "Content-Type": "application/json"}
        body = json.dumps({"model": evil, "prompt": evil})
        url = f"{sandbox.base_url}/v2/video/generations"
        requests.post(url, data=body, headers=headers, timeout=5)
        requests.get(f"{sandbox.origin}/sandbox-cdn/%1b%5b2J%0d.mp4", headers=headers, timeout=5)
    assert lines
    assert all(line.isprintable() and len(line) < 1000 for line in lines), lines
