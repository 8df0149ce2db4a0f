"""`kling models`, `cost` and `balance`."""

import pytest


def test_models_lists_all_and_describes_one(shell_on):
    shell = shell_on()
    assert len(shell("models", "--json").json["models"]) == 46
    turbo = shell("models", "turbo pro").out
    assert "v2.5-turbo-pro" in turbo
    assert "v1.6" not in turbo
    assert "cfg_scale" in shell("models", "v2.5-turbo-pro").out
    missed = shell("models", "v2.5trubo")
    assert missed.code == 2
    assert "v2.5-turbo-pro" in missed.err


@pytest.mark.parametrize(
    ("words", "usd"),
    [
        ([], 0.5),
        (["-d", "10"], 1.0),
        (["-m", "v2.6-pro"], 0.75),
        (["-m", "v2.6-pro", "--no-audio"], 0.5),
        (["-m", "v2-master", "-i", "not-there.png"], 1.4),
        (["-m", "klingai/v2.5-turbo/pro/image-to-video"], 0.5),
    ],
)
def test_cost_is_the_gateways_price_for_the_request(shell, sandbox, words, usd):
    assert shell("cost", "--json", *words).json["expected_usd"] == pytest.approx(usd)
    assert sandbox.posts == []


def test_balance_is_shown_and_trouble_with_it_too(shell, sandbox):
    assert shell("balance").out.startswith("$1,000,000.00")
    assert shell("balance", "--json").json["current_balance"] == 1_000_000
    sandbox.fault("billing", "503")
    assert shell("balance").code == 4
