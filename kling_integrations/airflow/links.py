"""The "Kling video" link of a task.

Why it does not lead to the video: the address of a finished video is signed, and opens it to
every holder. A link in Airflow is an XCom, readable by everyone who may see the DAG, and kept
long after the signature has expired. So the link is the generation's own address at the gateway:
it names the generation for ever, and gives its state and a fresh video only to requests with the
account's key. The path of the saved file is in the task's manifest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

if TYPE_CHECKING:
    from ..core.http.client import KlingClient


class KlingVideoLink(BaseOperatorLink):
    """On the task's page as soon as the generation's id is known."""

    name = "Kling video"

    @staticmethod
    def address(client: KlingClient, generation_id: str) -> str:
        return client.endpoint.poll(generation_id).url

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The address that the task pushed to XCom; empty where nothing was submitted."""
        return XCom.get_value(key=self.xcom_key, ti_key=ti_key) or ""
