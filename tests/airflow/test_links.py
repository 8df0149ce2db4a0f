"""The link of a task's page."""

from __future__ import annotations

from types import SimpleNamespace

from kling_integrations import KlingClient
from kling_integrations.airflow import KlingVideoLink, links

TI = SimpleNamespace(dag_id="films", run_id="manual__2026-11-01T00:00:00+00:00", task_id="v")


def test_the_link_leads_to_the_tab_of_the_task_instance(monkeypatch):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.test/team/")
    run = "https://airflow.test/team/dags/films/runs/manual__2026-11-01T00%3A00%3A00%2B00%3A00"
    one, mapped = (
        SimpleNamespace(**vars(TI), map_index=-1),
        SimpleNamespace(**vars(TI), map_index=3),
    )
    assert links.tab_of(one) == f"{run}/tasks/v/plugin/kling-video"
    assert links.tab_of(mapped) == f"{run}/tasks/v/mapped/3/plugin/kling-video"


def test_without_tabs_the_link_names_the_generation_and_opens_nothing_by_itself(
    sandbox, monkeypatch
):
    monkeypatch.setattr(links, "HAS_TABS", False)
    with KlingClient(api_key="sandbox-secret-key", base_url=sandbox.base_url) as client:
        link = KlingVideoLink.address(client, "a:b/c", TI)
    assert link == f"{sandbox.base_url}/v2/video/generations?generation_id=a%3Ab%2Fc"


def test_the_link_is_known_to_airflow():
    from kling_integrations.airflow.get_provider_info import get_provider_info

    assert get_provider_info()["extra-links"] == [
        f"{KlingVideoLink.__module__}.{KlingVideoLink.__qualname__}"
    ]
