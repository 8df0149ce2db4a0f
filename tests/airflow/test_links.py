"""The link of a task's page."""

from __future__ import annotations

from kling_integrations import KlingClient
from kling_integrations.airflow import KlingVideoLink


def test_the_link_names_the_generation_and_opens_nothing_by_itself(sandbox):
    with KlingClient(api_key="sandbox-secret-key", base_url=sandbox.base_url) as client:
        link = KlingVideoLink.address(client, "a:b/c")
    assert link == f"{sandbox.base_url}/v2/video/generations?generation_id=a%3Ab%2Fc"


def test_the_link_is_known_to_airflow():
    from kling_integrations.airflow.get_provider_info import get_provider_info

    assert get_provider_info()["extra-links"] == [
        f"{KlingVideoLink.__module__}.{KlingVideoLink.__qualname__}"
    ]
