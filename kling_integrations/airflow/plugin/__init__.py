"""The "Video" tab of a task instance and the gallery of a DAG run, in Airflow's own UI.

Airflow loads this plugin in every component; the application behind it is only built when the API
server gets its first request. From Airflow 3.1 on there are such tabs; 3.0 passes them over.
"""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from ..get_provider_info import OPERATOR_NAMES, RUN_ROUTE, TASK_ROUTE

PREFIX = "kling"


class LazyApp:
    """The application of ``plugin.app``, made at its first request."""

    def __init__(self) -> None:
        self._app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._app is None:
            from .app import make_app

            self._app = make_app()
        await self._app(scope, receive, send)


class KlingPlugin(AirflowPlugin):
    """Relative addresses, so that an Airflow below a base path finds them."""

    name = "kling"
    fastapi_apps = [  # noqa: RUF012 (as Airflow declares it)
        {"app": LazyApp(), "url_prefix": f"/{PREFIX}", "name": "Kling videos"}
    ]
    external_views = [  # noqa: RUF012
        {
            "name": "Video",
            "href": f"{PREFIX}/dags/{{DAG_ID}}/video?run_id={{RUN_ID}}&task_id={{TASK_ID}}"
            "&map_index={MAP_INDEX}",
            "destination": "task_instance",
            "url_route": TASK_ROUTE,
            "icon": f"{PREFIX}/static/icon.svg",
            "icon_dark_mode": f"{PREFIX}/static/icon_dark.svg",
            # Airflow 3.4 shows the tab on these tasks only; older ones show it on each.
            "applies_to": {"operator_name": list(OPERATOR_NAMES)},
        },
        {
            "name": "Videos",
            "href": f"{PREFIX}/dags/{{DAG_ID}}/gallery?run_id={{RUN_ID}}",
            "destination": "dag_run",
            "url_route": RUN_ROUTE,
            "icon": f"{PREFIX}/static/icon.svg",
            "icon_dark_mode": f"{PREFIX}/static/icon_dark.svg",
        },
    ]
