"""From one reply to the next action, on a clock that only moves when the code sleeps."""

import json
import random

import pytest

from kling_integrations import (
    AuthenticationError,
    GenerationFailedError,
    RateLimitedError,
    ServerError,
    Status,
    VideoRequest,
    WaitTimeoutError,
)
from kling_integrations.core.errors import GenerationNotFoundError
from kling_integrations.core.generation import Generation
from kling_integrations.core.payloads import Reply
from kling_integrations.core.protocol import Endpoint, Sent, Trouble
from kling_integrations.core.schedule import Schedule
from kling_integrations.core.waiting import Ask, Patience, Report, Sleep, submitting, waiting

ID = "-abc:klingai/v2"
ENDPOINT = Endpoint("https://gateway.example", "key")


def says(status="generating", code=200, **more):
    return Reply(code, {}, json.dumps({"id": ID, "status": status, **more}).encode())


DONE = says("completed", video={"url": "https://cdn.example/v.mp4"})
DOWN = Trouble("connection lost")


class World:
    """Drives steps as a client would; ``answer(now)`` is the gateway at that moment."""

    def __init__(self, answer):
        self.now = 1000.0
        self.begin = self.now
        self.asked, self.reports, self.answer = [], [], answer

    def run(self, steps):
        outcome = None
        try:
            while True:
                action = steps.send(outcome)
                outcome = None
                match action:
                    case Ask():
                        self.asked.append(self.now - self.begin)
                        outcome = self.answer(self.now - self.begin)
                        assert len(self.asked) < 10_000
                    case Sleep(seconds):
                        assert seconds > 0
                        self.now += seconds
                    case Report(progress):
                        self.reports.append(progress)
        except StopIteration as done:
            return done.value

    def wait(
        self,
        *,
        elapsed=0.0,
        timeout=3600.0,
        patience=None,
        schedule=None,
        generation=None,
        endpoint=ENDPOINT,
    ):
        return self.run(
            waiting(
                endpoint,
                generation or Generation(ID, Status.QUEUED),
                schedule=schedule or Schedule.expecting("v2.5-turbo-pro", 5),
                now=lambda: self.now,
                elapsed=elapsed,
                timeout=timeout,
                patience=patience or Patience(),
                rng=random.Random(1),
            )
        )

    def submit(self, patience=None):
        request = VideoRequest(prompt="a")
        return self.run(
            submitting(
                ENDPOINT,
                request,
                "kling-1",
                now=lambda: self.now,
                patience=patience or Patience(),
                rng=random.Random(1),
            )
        )


def test_a_finish_is_noticed_sooner_than_by_a_fixed_poll_and_with_fewer_requests():
    world = World(lambda t: DONE if t >= 170 else says())
    assert world.wait().status is Status.COMPLETED
    assert world.asked[-1] - 170 < 10
    assert len(world.asked) < 17


def test_a_fresh_submit_is_not_asked_at_once_but_an_unknown_age_is():
    fresh, unknown = World(lambda t: DONE), World(lambda t: DONE)
    fresh.wait(elapsed=0.0)
    unknown.wait(elapsed=None)
    assert fresh.asked[0] > 1
    assert unknown.asked == [0]


def test_a_failure_is_raised_with_its_kind_and_id():
    world = World(lambda t: says("error", error={"message": "nsfw content"}))
    with pytest.raises(GenerationFailedError, match="nsfw content") as caught:
        world.wait()
    assert (caught.value.kind, caught.value.generation_id) == ("moderation", ID)


def test_a_generation_that_is_known_to_be_finished_is_not_asked_again():
    from kling_integrations.core.generation import Video

    world = World(lambda t: pytest.fail("asked"))
    done = Generation(ID, Status.COMPLETED, video=Video("https://cdn.example/v.mp4"))
    assert world.wait(generation=done) is done
    with pytest.raises(GenerationFailedError):
        world.wait(generation=Generation(ID, Status.FAILED))


def test_at_the_deadline_there_is_one_last_poll_and_then_a_way_back():
    world = World(lambda t: says())
    with pytest.raises(WaitTimeoutError) as caught:
        world.wait(timeout=100.0)
    assert world.asked[-1] == pytest.approx(100.0)
    assert "goes on" in str(caught.value)
    assert f"client.wait({ID!r})" in str(caught.value)


def test_the_deadline_of_a_wait_for_a_wrong_id_promises_nothing():
    world = World(lambda t: Reply(404))
    with pytest.raises(WaitTimeoutError, match="is the id right") as caught:
        world.wait(elapsed=None, timeout=60.0)
    assert "goes on" not in str(caught.value)


def test_a_finish_seen_by_the_last_poll_counts():
    world = World(lambda t: DONE if t >= 99.9 else says())
    assert world.wait(timeout=100.0).status is Status.COMPLETED


def test_a_timeout_of_zero_asks_once():
    world = World(lambda t: says())
    with pytest.raises(WaitTimeoutError):
        world.wait(timeout=0.0)
    assert len(world.asked) == 1


def test_an_outage_at_the_deadline_is_a_timeout_and_not_a_failure():
    world = World(lambda t: DOWN if t > 50 else says())
    with pytest.raises(WaitTimeoutError):
        world.wait(timeout=100.0)


@pytest.mark.parametrize(
    "trouble",
    [
        DOWN,
        Reply(500),
        Reply(502, {"content-type": "text/html"}, b"<html>"),
        Reply(524),
        Reply(429, {"retry-after": "30"}),
        Reply(404, {}, b'{"message": "Inference not found"}'),
        Reply(200, {}, b"<html>"),
        Reply(200, {}, b'{"status": "compl'),
        says("paused"),
        says("completed", video=None),
    ],
)
def test_a_minute_of_any_trouble_is_outlived_with_few_requests(trouble):
    world = World(lambda t: trouble if 100 < t < 160 else DONE if t > 200 else says())
    assert world.wait().status is Status.COMPLETED
    assert len([t for t in world.asked if 100 < t < 160]) <= 12


def test_an_outage_ends_the_wait_only_after_minutes_and_names_the_generation():
    world = World(lambda t: DOWN)
    with pytest.raises(ServerError, match="connection lost") as caught:
        world.wait()
    assert 900 <= world.asked[-1] < 1000
    assert caught.value.generation_id == ID
    assert f"client.wait({ID!r})" in str(caught.value)


def test_a_lasting_404_ends_the_wait_after_two_minutes():
    world = World(lambda t: Reply(404))
    with pytest.raises(GenerationNotFoundError):
        world.wait()
    assert 120 <= world.asked[-1] < 200


def test_trouble_that_comes_and_goes_never_adds_up():
    world = World(lambda t: DONE if t > 3000 else DOWN if int(t / 60) % 2 else says())
    assert world.wait().status is Status.COMPLETED


def test_retry_after_is_honoured():
    world = World(lambda t: Reply(429, {"retry-after": "40"}) if t < 30 else DONE)
    world.wait()
    assert world.asked[1] - world.asked[0] >= 40


def test_a_bad_key_ends_the_wait_at_once():
    world = World(lambda t: Reply(401, {}, b'{"message": "This request requires a valid key"}'))
    with pytest.raises(AuthenticationError):
        world.wait()
    assert len(world.asked) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_web_page_that_forbids_a_poll_is_outlived(status):
    """Something in between answers, a proxy or a firewall: the key is not judged by it."""
    page = Reply(status, {"content-type": "text/html"}, b"<html>Access denied</html>")
    world = World(lambda t: DONE if t > 170 else page if t < 120 else says())
    assert world.wait().status is Status.COMPLETED


def test_time_in_the_queue_does_not_count_as_generation():
    def gateway(t):
        return says("queued") if t < 600 else DONE if t > 770 else says()

    world = World(gateway)
    world.wait()
    assert world.asked[-1] - 770 < 20
    assert len(world.asked) < 60


def test_progress_is_honest_and_the_odd_status_is_told_once():
    world = World(lambda t: DONE if t > 900 else says("paused"))
    world.wait(schedule=Schedule.expecting("v2.5-turbo-pro", 5))
    running = [p for p in world.reports if not p.status.is_terminal]
    assert max(p.fraction for p in running) <= 0.95
    assert world.reports[-1].fraction == 1.0
    assert len([p for p in running if "paused" in p.note]) == 1
    assert ID in str(running[0])


def test_a_stand_in_on_loopback_is_asked_early_because_it_may_be_quick():
    local = Endpoint("http://127.0.0.1:9999", "key")
    quick = World(lambda t: DONE if t > 2 else says())
    quick.wait(endpoint=local)
    assert quick.asked[-1] < 6
    near, far = (World(lambda t: DONE if t > 170 else says()) for _ in range(2))
    near.wait(endpoint=local)
    far.wait()
    assert len(near.asked) <= len(far.asked) + 4


def test_a_fixed_interval_is_kept_with_jitter():
    world = World(lambda t: DONE if t > 100 else says())
    world.wait(schedule=Schedule.fixed(10.0))
    gaps = [b - a for a, b in zip(world.asked, world.asked[1:], strict=False)]
    assert all(9 <= gap <= 11 for gap in gaps)


# --- submitting ------------------------------------------------------------------------------


def test_a_refused_connection_is_tried_again_until_it_works():
    refused = Trouble("connection refused", Sent.NO)
    world = World(lambda t: says("queued", 201) if t > 12 else refused)
    assert world.submit().id == ID


def test_a_refused_connection_that_lasts_ends_without_having_submitted():
    world = World(lambda t: Trouble("connection refused", Sent.NO))
    with pytest.raises(ServerError, match="Nothing was submitted"):
        world.submit()
    assert world.asked[-1] <= 20


def test_429_is_waited_out_and_then_told():
    world = World(lambda t: says("queued") if len(world.asked) > 2 else Reply(429))
    assert world.submit().id == ID
    world = World(lambda t: Reply(429, {"retry-after": "50"}))
    with pytest.raises(RateLimitedError):
        world.submit()
    assert len(world.asked) == 4  # a few, however long each has to wait
