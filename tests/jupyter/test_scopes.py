"""Which variable a name means where a magic is called in a function."""

from __future__ import annotations

import sys
from threading import Thread

import pytest

from kling_integrations.commands import UsageError
from kling_integrations.jupyter.templating import names_at

LINE = "%kling generate -d 5 'A {animal}'"
CELL = "ip.run_cell_magic('kling', '-d 5', 'A {animal}')"
CALLS = {
    "a function": f"def f(animal):\n    {LINE}\nf('fox')",
    "a coroutine": f"async def f(animal):\n    {LINE}\nawait f('fox')",
    "a method": f"class C:\n    def f(self, animal):\n        {LINE}\nC().f('fox')",
    "a lambda": f"f = lambda animal: {CELL}\nf('fox')",
    "a comprehension": f"[{CELL} for animal in ['fox']]",
    "a loop": f"def f():\n    for animal in ['fox']:\n        {LINE}\nf()",
    "a cell's magic": f"def f(animal):\n    {CELL}\nf('fox')",
    "a function around": f"def f(animal):\n    def g():\n        {LINE}\n    g()\nf('fox')",
    "a timed line": f"def f(animal):\n    %time {CELL}\nf('fox')",
    "a generator": f"def f(animal):\n    return [*({CELL} for _ in [1])]\nf('fox')",
}


@pytest.fixture
def ip_shell(shell):
    shell["ip"] = shell.ip
    return shell


@pytest.mark.parametrize("code", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("stale", ["a stale global", None])
def test_a_local_comes_before_a_global(ip_shell, sandbox, code, stale):
    if stale:
        ip_shell["animal"] = stale
    ip_shell.run(code)
    assert [post.body["prompt"] for post in sandbox.posts] == ["A fox"]


def test_a_global_is_seen_in_a_function_and_an_unknown_name_is_an_error(ip_shell, sandbox):
    ip_shell["animal"] = "fox"
    ip_shell.run(f"def f():\n    {LINE}\nf()")
    assert [post.body["prompt"] for post in sandbox.posts] == ["A fox"]
    with pytest.raises(UsageError, match="no variable beast"):
        ip_shell.run("def f():\n    %kling generate 'A {beast}'\nf()")
    assert sandbox.requests["submit"] == 1


@pytest.mark.parametrize(
    "code",
    [
        f"def f():\n    {LINE}\n    animal = 'fox'\nf()",
        f"def f(animal):\n    del animal\n    {LINE}\nf('fox')",
        f"def f(animal):\n    def g():\n        {LINE}\n    return g\nf('fox')()",
        "import asyncio\nasync def f(animal):\n    async def g():\n"
        f"        {LINE}\n    await asyncio.gather(g())\nawait f('fox')",
    ],
    ids=["not yet", "not any more", "a closure that went out", "another task"],
)
def test_a_global_is_not_taken_for_a_local_without_a_value(ip_shell, sandbox, code):
    ip_shell["animal"] = "a stale global"
    with pytest.raises(UsageError, match="animal is a variable of f"):
        ip_shell.run(code)
    assert sandbox.requests["submit"] == 0


def test_objects_are_the_local_ones_too(ip_shell, sandbox):
    image = pytest.importorskip("PIL.Image")
    ip_shell["red"] = image.new("RGB", (320, 320), "red")
    ip_shell["blue"] = image.new("RGB", (320, 320), "blue")
    ip_shell.run("%%kling --image blue -d 5 -o wanted\nIt moves")
    ip_shell["pic"] = ip_shell["red"]
    ip_shell["rows"] = [{"prompt": "A global row"}]
    ip_shell["clip"] = "nothing"
    ip_shell["beasts"] = ["global"]
    ip_shell.run(
        "def f(pic, rows, clip, beasts):\n"
        "    %kling generate -d 5 --image pic 'It moves'\n"
        "    %kling batch rows -d 5 -o out/ --yes\n"
        "    %kling extend clip 'It goes on'\n"
        "    %kling show clip\n"
        "    ip.run_cell_magic('kling', '-d 10 --sweep animal=beasts -o made', 'A {animal}')\n"
        "f(blue, [{'prompt': 'A local row'}], wanted, ['yak'])\n"
    )
    prompts = [post.body["prompt"] for post in sandbox.posts]
    assert prompts == ["It moves", "A local row", "It goes on", "A yak"]
    assert ip_shell["made"].prompt == "A yak"  # what -o names is the notebook's


def test_a_thread_without_code_of_the_user_sees_the_globals():
    seen = []

    class OfALibrary:
        def __call__(self):
            seen.append(names_at(sys._getframe(1), None, {"self": "the user's"}))

    thread = Thread(target=OfALibrary())
    thread.start()
    thread.join()
    assert seen == [{"self": "the user's"}]
