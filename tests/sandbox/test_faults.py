"""How faults are written, armed and targeted."""

import pytest

from kling_integrations.sandbox import Fault


def test_times_counts_and_none_is_for_ever_until_cleared(caller):
    id = caller.submit()
    caller.sandbox.fault("poll", "503", times=2)
    assert [caller.poll(id).status_code for _ in range(3)] == [503, 503, 200]
    caller.sandbox.fault("poll", "503", times=None)
    assert [caller.poll(id).status_code for _ in range(5)] == [503] * 5
    caller.sandbox.clear_faults()
    assert caller.poll(id).ok


def test_a_fault_can_skip_wait_for_the_end_or_pick_a_prompt(caller):
    dog, cat = caller.submit(prompt="a dog"), caller.submit(prompt="a cat")
    caller.sandbox.fault("poll", "500", after=2, match="dog")
    assert [caller.poll(cat).status_code for _ in range(3)] == [200] * 3
    assert [caller.poll(dog).status_code for _ in range(4)] == [200, 200, 500, 200]
    caller.sandbox.fault("poll", "500", when="terminal")
    assert caller.poll(dog).ok
    caller.sandbox.finish(dog)
    assert caller.poll(dog).status_code == 500


def test_a_fault_can_strike_a_share_of_the_calls(caller):
    id = caller.submit()
    fault = caller.sandbox.fault("poll", "500", times=None, share=0.3)
    codes = [caller.poll(id).status_code for _ in range(200)]
    assert 30 < codes.count(500) < 90
    assert fault.hits == codes.count(500)


def test_faults_strike_in_the_order_in_which_they_were_armed(caller):
    id = caller.submit()
    for code in ("500", "429", "404"):
        caller.sandbox.fault("poll", code)
    assert [caller.poll(id).status_code for _ in range(4)] == [500, 429, 404, 200]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("submit:drop-after", ("submit", "drop-after", 1, {})),
        ("submit:drop-after:2", ("submit", "drop-after", 2, {})),
        ("poll:503:*", ("poll", "status", None, {"code": 503})),
        ("submit:502-after", ("submit", "status-after", 1, {"code": 502})),
        ("poll:429:3:retry_after=2", ("poll", "status", 3, {"code": 429, "retry_after": 2})),
        ("download:cut:at=1000", ("download", "cut", 1, {"at": 1000})),
        ("poll:odd-status:1:word=paused,after=2", ("poll", "odd-status", 1, {"word": "paused"})),
        ("poll:redirect:to=http://h/a:b", ("poll", "redirect", 1, {"to": "http://h/a:b"})),
    ],
)
def test_a_fault_can_be_written_as_one_word(text, expected):
    fault = Fault.parse(text)
    moment, kind, times, options = expected
    assert (fault.moment, fault.kind, fault.times) == (moment, kind, times)
    assert fault.options.items() >= options.items()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("poll", "unknown fault ''"),
        ("lunch:503", "unknown moment 'lunch': one of submit"),
        ("poll:explode", "unknown fault 'explode': one of status"),
        ("poll:expired", "expired happens at download: not poll"),
        ("poll:503:many", "'many' is no count"),
        ("submit:slow:1:seconds=x", "seconds is a number"),
        ("submit:slow:1:seconds=-1", "seconds is a number"),
        ("submit:slow:1:seconds=true", "seconds is a number"),
        ("poll:503:1:color=red", "status has no option 'color'"),
        ("poll:503:1:code", "'code' is not name=value"),
        ("poll:503:0", "times is a count"),
    ],
)
def test_a_mistyped_fault_is_refused_in_a_sentence(text, words):
    with pytest.raises(ValueError, match=words):
        Fault.parse(text)
