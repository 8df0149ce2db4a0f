"""The invented prices."""

import pytest


def test_the_price_list_foretells_the_bill_and_says_that_it_is_invented(make):
    with make(seconds=0) as caller:
        model = "klingai/video-v3-pro-text-to-video"
        entry = caller.get(f"/v1/models?id={model}&include=pricing").json()["data"][0]
        pricing = entry["pricing"]
        assert "Invented" in pricing["note"]
        loud = next(v for v in pricing["variants"] if v["when"] == {"generate_audio": True})
        id = caller.submit(model=model, duration=5)
        spent = caller.poll(id).json()["meta"]["usage"]["usd_spent"]
        assert spent == pytest.approx(loud["price"] / loud["per"] * 5)
        assert caller.poll(id).headers["x-aimlapi-usd-spent"] == f"{spent:.9f}"
