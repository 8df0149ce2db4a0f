"""The "Kling video" link of a task, which leads to its Video tab.

Why it does not lead to the video itself: the address of a finished video is signed, and opens it to
every holder. A link in Airflow is an XCom, readable by everyone who may see the DAG, and kept long
after the signature has expired. The tab asks Airflow who may see it. Before Airflow 3.1, which has
no such tabs, the link is the generation's own address at the gateway: it names the generation, and
answers only to requests with the account's key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom, conf

from .get_provider_info import TASK_ROUTE
from .version_compat import HAS_TABS

if TYPE_CHECKING:
    from ..core.http.client import KlingClient


class KlingVideoLink(BaseOperatorLink):
    """On the task's page as soon as the generation's id is known."""

    name = "Kling video"

    @staticmethod
    def address(client: KlingClient, generation_id: str, ti: Any) -> str:
        """``ti``: the task instance, which the tab belongs to."""
        return tab_of(ti) if HAS_TABS else client.endpoint.poll(generation_id).url

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The address that the task pushed to XCom; empty where nothing was submitted."""
        return XCom.get_value(key=self.xcom_key, ti_key=ti_key) or ""


def tab_of(ti: Any) -> str:
    """The address of a task instance's Video tab, below ``[api] base_url``."""
    base = str(conf.get("api", "base_url", fallback="") or "").rstrip("/")
    path = f"/dags/{_part(ti.dag_id)}/runs/{_part(ti.run_id)}/tasks/{_part(ti.task_id)}"
    mapped = f"/mapped/{ti.map_index}" if ti.map_index >= 0 else ""
    return f"{base}{path}{mapped}/plugin/{TASK_ROUTE}"


def _part(text: object) -> str:
    return quote(str(text), safe="")
