"""What a generation will cost by the gateway's price list, and what is not known about it."""

import pytest

from kling_integrations import InvalidRequestError, KlingClient, Usage, VideoRequest
from kling_integrations.core import cost
from kling_integrations.core.cost import check_cost, estimate, explain, spent

MODEL = "klingai/v2.5-turbo/pro/text-to-video"


def request(**changes):
    return VideoRequest(**{"model": MODEL, "prompt": "A cat", **changes})


def listed(pricing, model=MODEL, **more):
    return {"object": "list", "data": [{"id": model, "pricing": pricing, **more}]}


def fixed(**unit):
    return {"kind": "fixed", "units": [unit]}


def variants(*rows, dimensions=("generate_audio",)):
    return {"kind": "variants", "dimensions": list(dimensions), "variants": list(rows)}


@pytest.mark.parametrize("duration", [5, 10])
def test_a_price_per_second_is_multiplied_by_the_length(duration):
    prices = listed(fixed(price=0.1, unit="second", per=1))
    assert estimate(request(duration=duration), prices) == pytest.approx(0.1 * duration)


def test_without_a_duration_the_documented_default_counts():
    assert estimate(request(), listed(fixed(price=0.1, unit="second", per=1))) == pytest.approx(0.5)


def test_price_is_read_together_with_its_per():
    prices = listed(fixed(price=70, unit="second", per=1000))
    assert estimate(request(duration=10), prices) == pytest.approx(0.7)


def test_a_price_per_video_is_taken_once():
    assert estimate(request(duration=10), listed(fixed(price=0.4, unit="video", per=1))) == 0.4


def test_a_unit_may_be_called_name():
    assert estimate(request(), listed(fixed(price="0.1", name="second"))) == pytest.approx(0.5)


def test_the_documentations_example_of_variants_costs_what_it_says():
    block = variants(
        {"when": {"resolution": "720p"}, "price": 0.39, "unit": "second", "per": 1},
        {"when": {"resolution": "1080p"}, "price": 0.65, "unit": "second", "per": 1},
        dimensions=["resolution"],
    )
    asked = request(duration=5, extra={"resolution": "1080p"})
    assert estimate(asked, listed(block)) == pytest.approx(3.25)


AUDIO = variants(
    {"when": {"generate_audio": False}, "price": 0.1, "unit": "second", "per": 1},
    {"when": {"generate_audio": True}, "price": 0.15, "unit": "second", "per": 1},
)


@pytest.mark.parametrize(("audio", "usd"), [(False, 0.5), (True, 0.75), (None, 0.75)])
def test_a_parameter_that_is_left_out_counts_by_its_documented_default(audio, usd):
    asked = request(model="v2.6-pro", audio=audio)
    assert estimate(asked, listed(AUDIO, asked.model)) == pytest.approx(usd)


def test_the_words_of_a_condition_may_be_text():
    block = variants(
        {"when": {"duration": "5"}, "price": 1.0, "unit": "request", "per": 1},
        {"when": {"duration": "10s"}, "price": 1.8, "unit": "request", "per": 1},
        {"when": {"generate_audio": "true", "duration": "10s"}, "price": 2.4, "unit": "request"},
        dimensions=["duration", "generate_audio"],
    )
    assert estimate(request(duration=5), listed(block)) == 1.0
    asked = request(model="v2.6-pro", duration=10, audio=True)
    assert estimate(asked, listed(block, asked.model)) == 2.4  # it says more of the request
    silent = request(model="v2.6-pro", duration=10, audio=False)
    assert estimate(silent, listed(block, silent.model)) == 1.8


def test_a_condition_that_the_request_leaves_open_makes_the_price_unknown():
    block = variants(
        {"when": {"mode": "fast"}, "price": 0.1, "unit": "second", "per": 1},
        {"when": {"mode": "slow"}, "price": 0.2, "unit": "second", "per": 1},
    )
    asked = explain(request(), listed(block))
    assert asked.usd is None
    assert "leaves open" in asked.reason
    same = [dict(row, price=0.1) for row in block["variants"]]
    assert estimate(request(), listed(variants(*same))) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "prices",
    [
        None,
        [],
        "nothing",
        {"data": []},
        {"data": [{"id": MODEL}]},
        {"data": [{"id": MODEL, "pricing": None}]},
        {"data": [{"id": "a", "pricing": fixed(price=1, unit="video")}, {"id": "b"}]},
        listed({"kind": "variable"}),
        listed({"kind": "fixed", "units": []}),
        listed({"kind": "something new"}),
        listed(fixed(price=0, unit="second", per=1)),
        listed(fixed(price=-1, unit="second", per=1)),
        listed(fixed(price="free", unit="second", per=1)),
        listed(fixed(price=True, unit="second", per=1)),
        listed(fixed(price=float("nan"), unit="second", per=1)),
        listed(fixed(price=0.1, unit="second", per=0)),
        listed(fixed(price=0.1, unit="token", per=1_000_000)),
        listed(fixed(price=0.1, per=1)),
        listed({"kind": "fixed", "units": [{"price": 1, "unit": "video"}] * 2}),
        listed(variants({"when": {"duration": 10}, "price": 1, "unit": "video"})),
        listed(variants({"when": {"duration": {"max": 5}}, "price": 1, "unit": "token"})),
        listed({"kind": "variants", "variants": "none"}),
        listed({"kind": "variants", "variants": [7, None]}),
    ],
)
def test_what_is_not_known_is_none_and_never_nothing(prices):
    expected = explain(request(duration=5), prices)
    assert expected.usd is None
    assert expected.reason
    assert str(expected).startswith("unknown")


def test_a_length_that_the_input_decides_makes_a_price_per_second_unknown():
    asked = VideoRequest(
        model="klingai/video-v2-6-pro-motion-control",
        image="https://example.com/a.png",
        video_url="https://example.com/a.mp4",
        prompt="dance",
    )
    prices = listed(fixed(price=0.1, unit="second", per=1), asked.model)
    assert estimate(asked, prices) is None


def test_shots_add_up():
    shots = [{"prompt": "a", "duration": 3}, {"prompt": "b", "duration": 4}]
    asked = VideoRequest(model="v3-turbo-pro", multi_prompt=shots)
    prices = listed(fixed(price=0.1, unit="second", per=1), asked.model)
    assert estimate(asked, prices) == pytest.approx(0.7)


def test_a_model_is_found_under_its_other_name():
    prices = {
        "data": [
            {"id": "other", "pricing": fixed(price=9, unit="video")},
            {"id": "new-name", "aliases": [MODEL], "pricing": fixed(price=2, unit="video")},
        ]
    }
    assert estimate(request(), prices) == 2.0


def test_the_block_alone_and_a_bare_list_are_read_too():
    block = fixed(price=2, unit="video")
    for prices in (block, {"id": MODEL, "pricing": block}, [{"id": MODEL, "pricing": block}]):
        assert estimate(request(), prices) == 2.0


# --- the limit ---------------------------------------------------------------------------------

PRICES = listed(fixed(price=0.1, unit="second", per=1))


def test_within_the_limit_the_estimate_comes_back():
    assert check_cost(request(), PRICES, 0.5).usd == pytest.approx(0.5)


def test_beyond_the_limit_it_is_refused_with_both_sums():
    with pytest.raises(InvalidRequestError, match=r"\$1\.00.*\$0\.99"):
        check_cost(request(duration=10), PRICES, 0.99)


def test_an_unknown_price_is_refused_and_the_way_out_is_named():
    with pytest.raises(InvalidRequestError, match="unknown beforehand") as caught:
        check_cost(request(), listed({"kind": "variable"}), 100)
    assert "Leave the limit out to submit at any price" in str(caught.value)


# --- afterwards --------------------------------------------------------------------------------


def test_what_was_spent_is_told_in_dollars_or_counted_in_credits():
    assert spent(Usage(usd_spent=0.5, credits_used=7)) == 0.5
    assert spent(Usage(credits_used=590_100)) == pytest.approx(0.29505)
    assert spent(Usage(tokens_used=5)) is None
    assert spent(None) is None


def test_the_sandbox_charges_what_the_estimate_said(sandbox):
    for changes in (
        {},
        {"duration": 10},
        {"model": "v2.6-pro"},
        {"model": "v2.6-pro", "audio": False},
    ):
        asked = request(**changes)
        with KlingClient("sandbox", sandbox.base_url) as client:
            expected = estimate(asked, client.prices(asked.model))
            generation = client.submit(asked)
        assert sandbox.jobs[generation.id].usd == pytest.approx(expected)


@pytest.mark.parametrize(
    "wrong", ["nan", "inf", float("nan"), -1, "-0.01", "abc", "", "None", True, [1]]
)
def test_what_is_no_finite_sum_is_no_limit(wrong):
    with pytest.raises(InvalidRequestError, match="is no limit"):
        cost.limit(wrong)
    with pytest.raises(InvalidRequestError):
        check_cost(request(), PRICES, wrong)


@pytest.mark.parametrize(("given", "usd"), [(0, 0.0), ("1.50", 1.5), (2, 2.0), (None, None)])
def test_a_limit_is_a_number_or_its_text(given, usd):
    assert cost.limit(given) == usd


def test_a_price_that_rounds_to_nothing_is_shown_and_held_against_the_limit():
    tiny = listed({"kind": "fixed", "units": [{"unit": "video", "price": 0.004}]})
    assert str(cost.explain(request(), tiny)) == "$0.0040"
    with pytest.raises(InvalidRequestError, match=r"\$0\.0040.*limit is \$0\.00"):
        check_cost(request(), tiny, 0)


def test_a_price_beyond_all_numbers_is_unknown():
    assert cost.estimate(request(), listed({"kind": "fixed", "price": 10**400})) is None


@pytest.mark.parametrize(
    ("usd", "words"),
    [(0, "$0.00"), (0.00001, "less than $0.0001"), (0.0294, "$0.0294"), (0.5, "$0.50")],
)
def test_a_price_that_rounds_to_nothing_is_not_shown_as_nothing(usd, words):
    assert cost.dollars(usd) == words


@pytest.mark.parametrize(
    ("usd", "expected", "failed", "counts", "is_odd"),
    [
        (0.7, 0.7, False, 0.7, False),
        (0.5, 0.7, False, 0.5, False),
        (None, 0.7, False, 0.7, False),
        (None, None, False, None, False),
        (0.3, None, False, 0.3, False),
        (-0.7, 0.7, False, 0.7, True),
        (-0.7, None, False, None, True),
        (float("nan"), 0.7, False, 0.7, True),
        (0.0, 0.7, False, 0.7, True),  # a gap rather than a present
        (70.1, 0.7, False, 70.1, True),
        (0.006, 0.7, False, 0.7, True),
        (None, 0.7, True, 0.0, False),  # failed ones are not billed
        (0.0, 0.7, True, 0.0, False),
        (0.7, 0.7, True, 0.7, False),  # unless the gateway says so
        (-0.7, 0.7, True, 0.7, True),
    ],
)
def test_a_figure_that_cannot_be_meant_never_frees_money(usd, expected, failed, counts, is_odd):
    usage = None if usd is None else Usage(usd_spent=usd)
    charged = cost.charged(usage, expected, failed=failed)
    assert charged.usd == counts
    assert bool(charged.odd) == is_odd
