"""submit, generate, gallery and extend from Python."""

from __future__ import annotations

import inspect
from datetime import timedelta

import pytest

import kling_integrations.jupyter as public
from kling_integrations.core.errors import InvalidRequestError, WaitTimeoutError
from kling_integrations.core.request import RESERVED
from kling_integrations.jupyter import KlingVideo, generate, submit

RUN_OPTIONS = ("timeout", "take", "new", "file", "overwrite")


def test_a_gallery_shows_videos_with_labels(shell):
    shell.run("from kling_integrations.jupyter import gallery, submit")
    shell.run("jobs = [submit(f'A {animal}', duration=5) for animal in ('cat', 'dog')]")
    shown = shell.run("gallery(jobs, labels=['Tom', 'Rex'])")
    data, metadata = shown._repr_mimebundle_()
    assert data["text/html"].count("<video") == 2
    assert "<b>Tom</b>" in data["text/html"]
    assert len(metadata["kling"]["generations"]) == 2


@pytest.mark.parametrize("function", [submit, generate, KlingVideo.extend])
def test_how_to_run_is_named_and_explained(function):
    named = inspect.signature(function).parameters
    for name in RUN_OPTIONS:
        assert named[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert f"``{name}" in inspect.getdoc(function) or "``submit``" in inspect.getdoc(function)


def test_words_about_the_run_are_never_sent_to_the_gateway(shell, sandbox, home):
    options = {"timeout": 3000, "take": 1, "new": False, "file": "films/{slug}.mp4"}
    made = generate("A cat", duration=5, **options)
    submit("A dog", duration=5, **options).result(20)
    made.extend("It jumps", **options)
    for post in sandbox.posts:
        assert set(post.body) <= {"model", "prompt", "duration", "image_url"}
    assert made.path == home / "films" / "a-cat.mp4"


def test_another_timeout_pays_nothing_and_new_and_take_pay(shell, sandbox):
    first = generate("A cat", duration=5)
    assert generate("A cat", duration=5, timeout=1234).id == first.id
    assert sandbox.paid == 1
    assert generate("A cat", duration=5, take=2).id != first.id
    assert generate("A cat", duration=5, take=2, timeout=99).id != first.id
    assert sandbox.paid == 2
    another = generate("A cat", duration=5, new=True)
    assert another.id != first.id
    assert sandbox.paid == 3
    extended = first.extend("It jumps")
    assert first.extend("It jumps", timeout=1234).id == extended.id
    assert first.extend("It jumps", new=True).id != extended.id
    assert sandbox.paid == 5


def test_a_timeout_ends_the_wait_of_a_call(shell, sandbox):
    sandbox.fault("poll", "odd-status", None, word="queued")
    with pytest.raises(WaitTimeoutError):
        generate("A cat", duration=5, timeout=150)


def test_a_gallery_takes_videos_and_jobs_only(shell):
    with pytest.raises(InvalidRequestError, match="A str is no video"):
        public.gallery(["clip"])


@pytest.mark.parametrize(
    "name", sorted({*public.__all__} - {"load_ipython_extension", "unload_ipython_extension"})
)
def test_public_names_explain_themselves(name):
    thing = getattr(public, name)
    assert len(inspect.getdoc(thing)) > 150
    members = [
        member
        for member_name, member in vars(thing).items()
        if not member_name.startswith("_") and (callable(member) or isinstance(member, property))
    ]
    if inspect.isclass(thing):
        assert all(inspect.getdoc(member) for member in members), [
            member for member in members if not inspect.getdoc(member)
        ]


def test_calls_that_differ_in_their_patience_are_one_payment(shell, sandbox):
    sandbox.fault("poll", "odd-status", None, word="queued")
    for seconds in (1, 2, 1.5):
        with pytest.raises(WaitTimeoutError):
            generate("A cat", duration=5, timeout=seconds)
    sandbox.clear_faults()
    assert submit("A cat", duration=5, timeout=3000).result(20).prompt == "A cat"
    assert (sandbox.paid, sandbox.requests["submit"]) == (1, 1)


@pytest.mark.parametrize("word", sorted(RESERVED - set(RUN_OPTIONS)))
def test_a_word_of_another_verb_is_no_parameter(shell, sandbox, word):
    clip = generate("A cat", duration=5)
    for call in (submit, generate, clip.extend):
        with pytest.raises(InvalidRequestError, match=f"{word} is no parameter of a video"):
            call("A dog", **{word: 1})
    with pytest.raises(TypeError, match=word):
        public.gallery([clip], **{word: 1})
    assert sandbox.requests["submit"] == 1


@pytest.mark.parametrize(
    "words",
    [
        {"timeout": "600"},
        {"timeout": float("nan")},
        {"timeout": -1},
        {"take": "2"},
        {"take": 0},
        {"take": True},
        {"file": "s3://films/a.mp4"},
        {"file": "https://example.com/a.mp4"},
        {"file": "None"},
        {"file": ""},
        {"file": 3},
    ],
    ids=str,
)
def test_a_wrong_word_about_the_run_is_refused_before_paying(shell, sandbox, words):
    for call in (generate, submit):
        with pytest.raises(InvalidRequestError):
            call("A cat", duration=5, **words)
    assert sandbox.requests["submit"] == 0


def test_paths_and_spans_are_taken_as_they_are(shell, sandbox, home):
    video = generate(
        "A cat", duration=5, file=home / "new" / "cat.mp4", timeout=timedelta(minutes=9)
    )
    assert video.path == home / "new" / "cat.mp4"
    assert video.save(home / "copies/x.mp4") == home / "copies" / "x.mp4"
    assert video.save(f"{home}/folder/") == home / "folder" / "cat.mp4"
    again = public.resume(video.id, file=home / "again.mp4", timeout=None)
    assert again.path == home / "again.mp4"
    assert sandbox.paid == 1


def test_a_copy_goes_to_a_disk_only(shell, sandbox, home):
    video = generate("A cat", duration=5)
    for copy in (video.save, video.export):
        for target in ("s3://films/", "s3:/films/a.mp4", "None"):
            with pytest.raises(InvalidRequestError):
                copy(target)
    assert {each.name for each in home.iterdir()} == {"kling_outputs"}
