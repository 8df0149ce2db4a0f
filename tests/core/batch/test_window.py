"""How many generations may be under way: learned from 429."""

import heapq

import pytest

from kling_integrations.core.batch.window import Window


def play(rows, at_once, allowed, seconds=100.0):
    """A gateway that allows so many at once; POSTs take 1 s. Posts, refusals, most, end."""
    window, now, waiting = Window(at_once), 0.0, rows
    events, running, posts, refusals, most = [], 0, 0, 0, 0
    while waiting or events:
        while waiting and window.is_free(now):
            window.post()
            waiting, posts = waiting - 1, posts + 1
            heapq.heappush(events, (now + 1.0, posts, "answer"))
        pause = window.pause(now) if waiting else 0.0
        if events and not (pause and now + pause < events[0][0]):
            now, _, kind = heapq.heappop(events)
            if kind == "end":
                running -= 1
                window.ended(now)
            elif running < allowed:
                running += 1
                most = max(most, running)
                window.accepted()
                heapq.heappush(events, (now + seconds, posts + len(events) * 1e-6, "end"))
            else:
                waiting, refusals = waiting + 1, refusals + 1
                window.refused(now)
        else:
            now += pause
    return posts, refusals, most, now


def test_without_429_the_whole_window_is_used():
    _, refusals, most, seconds = play(500, at_once=20, allowed=10**6)
    assert (refusals, most) == (0, 20)
    assert seconds < 1.1 * 500 / 20 * 101 + 20


def test_the_gateways_limit_is_found_and_used_without_hammering():
    posts, refusals, most, seconds = play(1000, at_once=50, allowed=8)
    assert most == 8
    assert refusals < 0.05 * posts
    assert seconds < 1.15 * 1000 / 8 * 101


def test_a_limit_of_one_is_kept_to():
    _, refusals, most, _ = play(100, at_once=20, allowed=1)
    assert most == 1
    assert refusals < 40


def test_a_limit_that_is_raised_is_found():
    window = Window(20)
    for _ in range(4):
        window.post()
    for _ in range(3):
        window.accepted()
    window.refused(0.0)
    assert window.limit == 3
    for now in range(1000):
        window.ended(float(now))
        window.post()
        window.accepted()
    assert window.limit > 6


def test_refusals_in_a_row_are_tried_ever_more_rarely():
    window, now, pauses = Window(5), 0.0, []
    for _ in range(8):
        window.post()
        window.refused(now)
        pauses.append(window.pause(now))
        now += window.pause(now)
    assert pauses[:3] == [1.0, 2.0, 4.0]
    assert pauses[-1] == 60.0
    assert window.blocked_since == 0.0


def test_a_window_for_nothing_is_refused():
    with pytest.raises(ValueError, match="At least one"):
        Window(0)


def test_what_one_window_has_learned_the_next_begins_with():
    window = Window(20)
    assert window.learned == (None, 1)
    for _ in range(4):
        window.post()
    for _ in range(3):
        window.accepted()
    window.refused(0.0)
    limit, patience = window.learned
    assert (limit, patience) == (3, 1)
    again = Window(20, limit, patience)
    for _ in range(3):
        assert again.is_free(1.0)
        again.attach()
    assert not again.is_free(1.0)  # without it: as many more as at the start of a batch
    assert Window(2, limit, patience).limit == 2
