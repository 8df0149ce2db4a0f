"""`kling sandbox` and `kling demo`."""

from pathlib import Path


def test_the_sandbox_and_the_demo_run_from_the_command(shell_on):
    shell = shell_on(key=None)
    demo = shell("demo", "A white raccoon", "--json")
    assert demo.code == 0
    assert demo.json["paid"] == 1
    assert (shell.folder / demo.json["path"]).exists()
    assert not shell.home.exists()  # the user's ledger knows nothing of it
    assert Path(demo.json["path"]).parent == shell.folder
    listed = shell("sandbox", "--fault", "help")
    assert "drop-after" in listed.out
    assert shell("sandbox", "--fault", "submit:nonsense", "--port", "0").code == 2


def test_the_demo_makes_the_folder_that_is_asked_for(shell_on):
    shell = shell_on(key=None)
    demo = shell("demo", "A white raccoon", "--out", "films")
    assert demo.path.parent == shell.folder / "films"
    assert demo.err.endswith(
        "Next, still without a key or money: kling sandbox\n"
        "For real: Set the environment variable AIML_API_KEY.\n"
    )


def test_a_port_that_is_taken_is_a_usage_error_with_advice(shell_on, sandbox):
    port = sandbox.base_url.split(":")[2].split("/")[0]
    taken = shell_on(key=None)("sandbox", "--port", port)
    assert taken.code == 2
    assert taken.err.startswith(f"kling: Port {port} is not available: ")
    assert "--port 0" in taken.err
