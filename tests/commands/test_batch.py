"""``kling batch``: tables of prompts, as a shell has them."""

import csv
import json
import subprocess

import pytest
from commands.conftest import end_of

from kling_integrations.sandbox import Sandbox

pytestmark = pytest.mark.thorough

TABLE = "name,prompt,duration\nfirst,A red panda 🐼,5\nsecond,A lighthouse,10\nthird,A boat,5\n"


def write(shell, text=TABLE, name="p.csv"):
    (shell.folder / name).write_text(text, encoding="utf-8")


def results(shell, name="out/results.jsonl"):
    lines = (shell.folder / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_a_table_in_is_a_table_of_videos_out_and_again_costs_nothing(shell, sandbox):
    write(shell)
    done = shell("batch", "p.csv", "-o", "out", "--results", "r.csv")
    assert (done.code, done.out) == (0, "r.csv\n")
    assert "3 to submit · expected cost $2.00" in done.err
    rows = list(csv.DictReader((shell.folder / "r.csv").open(newline="", encoding="utf-8")))
    assert [(row["name"], row["status"]) for row in rows] == [
        ("first", "completed"),
        ("second", "completed"),
        ("third", "completed"),
    ]
    assert len(list((shell.folder / "out").glob("*.mp4"))) == 3
    again = shell("batch", "p.csv", "-o", "out", "--results", "r.csv")
    assert "3 ended before" in again.err
    assert sandbox.paid == 3


def test_bad_rows_are_named_and_nothing_is_sent(shell, sandbox):
    write(shell, TABLE + "bad,,5\nworse,x,7\n")
    refused = shell("batch", "p.csv", "-o", "out")
    assert refused.code == 2
    assert "row 4, prompt: " in refused.err
    assert "row 5, duration: " in refused.err
    assert sandbox.requests["submit"] == 0
    assert shell("batch", "p.csv", "-o", "out", "--skip-bad").code == 2
    assert [row["status"] for row in results(shell)] == ["completed"] * 3 + ["refused"] * 2


def test_a_dry_run_says_the_price_and_sends_nothing(shell, sandbox):
    write(shell)
    said = shell("batch", "p.csv", "-o", "out", "--dry-run", "--json", "-m", "v2.6-pro")
    assert said.code == 0
    assert said.json["to_submit"] == 3
    assert said.json["expected_usd"] == 3.0
    assert not sandbox.posts
    assert not (shell.folder / "out").exists()


def test_json_lines_from_a_pipe_with_a_column_of_another_name(shell, sandbox):
    lines = "\n".join(json.dumps({"text": f"number {n}", "sku": n}) for n in range(4))
    line = ("batch", "-", "--prompt", "text", "--key", "sku", "-d", "5", "-o", "out", "--json")
    done = shell(*line, stdin=lines)
    assert done.code == 0, done
    assert done.json["completed"] == done.json["submitted"] == 4
    assert {post.body["duration"] for post in sandbox.posts} == {5}


def test_a_failed_row_is_exit_code_1_and_is_submitted_again_when_asked_for(shell, sandbox):
    write(shell, "prompt\nA cat\nA dog [fail:provider]\nA cow [fail:moderation]\n")
    done = shell("batch", "p.csv", "-o", "out")
    assert done.code == 1
    assert "row 3: failed (moderation)" in done.err
    assert "1 of them moderated" in done.err
    shell("batch", "p.csv", "-o", "out", "--retry-failed")
    assert [post.body["prompt"] for post in sandbox.posts[3:]] == ["A dog [fail:provider]"]


def test_a_budget_is_kept_and_the_rest_says_so(shell, sandbox):
    write(shell, "prompt\n" + "".join(f"number {n}\n" for n in range(9)))
    done = shell("batch", "p.csv", "-o", "out", "--max-cost", "2", "--json")
    assert done.code == 2
    assert (done.json["completed"], done.json["not_submitted"]) == (4, 5)
    assert sandbox.paid == 4


def test_ctrl_c_keeps_everything_and_the_same_line_goes_on(shell_on):
    with Sandbox(speed=200, seconds=float("inf"), size=(160, 90), fps=8) as endless:
        shell = shell_on(endless)
        write(shell)
        running = shell.start("batch", "p.csv", "-o", "out", "--at-once", "2")
        endless.wait_for(lambda sandbox: sandbox.requests["poll"] >= 2, timeout=30)
        stopped = end_of(running, interrupt=True)
        assert stopped.code == 3, stopped
        assert "2 generations go on" in stopped.err
        assert [row["status"] for row in results(shell)] == ["running"] * 2 + ["not_submitted"]
        going_on = shell.start("batch", "p.csv", "-o", "out")
        endless.wait_for(lambda sandbox: sandbox.paid == 3, timeout=30)
        endless.finish()
        assert end_of(going_on).code == 0
        assert endless.paid == 3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["p.csv"], "Say where the videos go"),
        (["nowhere.csv", "-o", "out"], "nowhere.csv cannot be read"),
        (["p.csv", "-o", "out", "--prompt", "promt"], "Did you mean prompt?"),
        (["p.csv", "-o", "out", "--results", "r.xlsx"], "Results are written as"),
        (["p.csv", "-o", "out", "--results", "p.csv"], "was not made here"),
        (["p.csv", "-o", "p.csv"], "not a folder"),
        (["p.csv", "-o", "out", "--at-once", "0"], "not a count"),
        (["p.csv", "-o", "out", "--rate", "-1"], "positive number"),
    ],
)
def test_a_line_that_cannot_be_meant_is_exit_code_2_and_sends_nothing(shell, sandbox, words, says):
    write(shell)
    refused = shell("batch", *words)
    assert refused.code == 2, refused
    assert says in refused.err
    assert not sandbox.posts


def test_a_contact_sheet_is_one_picture_of_the_batch(shell):
    write(shell, "prompt\nA cat\nA dog [fail:moderation]\n")
    shell("batch", "p.csv", "-o", "out", "--results", "r.csv")
    done = shell("contact-sheet", "r.csv")
    assert done.out == "r.jpg\n"
    assert (shell.folder / "r.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert shell("contact-sheet", "r.csv").code == 0  # again: the one that is there was made here
    (shell.folder / "r.jpg").write_bytes(b"my own")
    refused = shell("contact-sheet", "r.csv")
    assert refused.code == 2
    assert "was not made here" in refused.err
    assert (shell.folder / "r.jpg").read_bytes() == b"my own"
    assert shell("contact-sheet", "r.csv", "--overwrite").code == 0
    assert shell("contact-sheet", "r.csv", "-o", "r.png").code == 0
    assert (shell.folder / "r.png").read_bytes()[:4] == b"\x89PNG"
    assert shell("contact-sheet", "r.csv", "-o", "r.pdf").code == 2
    assert shell("contact-sheet", "r.csv", "-o", "s3://bucket/r.png").code == 2


def test_stdin_that_is_the_table_is_not_written_to_either(shell, sandbox):
    table = shell.folder / "prompts.jsonl"
    table.write_text('{"prompt": "a"}\n')
    command = ["batch", "-", "-o", "v", "--results", "prompts.csv", "--overwrite"]
    with table.open("rb") as stdin:
        done = subprocess.run(
            shell.line(*command), cwd=shell.folder, env=shell.env, stdin=stdin, capture_output=True
        )
    assert done.returncode == 2, done
    assert b"the table itself" in done.stderr
    assert table.read_text() == '{"prompt": "a"}\n'
    assert not sandbox.posts


def test_columns_go_into_the_prompt_and_what_is_left_of_a_missing_value_does_not(shell, sandbox):
    write(shell, "product,place\nlamp,beach\ncup,nan\n")
    line = ["batch", "p.csv", "-o", "v", "--prompt", "A {product} at the {place}"]
    refused = shell(*line)
    assert refused.code == 2
    assert "row 2, place: it is to be filled in" in refused.err
    assert not sandbox.posts
    assert shell(*line, "--skip-bad").code == 2  # one row was refused
    assert [post.body["prompt"] for post in sandbox.posts] == ["A lamp at the beach"]
    write(shell, "prompt\nnan\n")
    refused = shell("batch", "p.csv", "-o", "v")
    assert "--raw" in refused.err
    assert shell("batch", "p.csv", "-o", "v", "--raw").code == 0
    assert sandbox.posts[-1].body["prompt"] == "nan"
