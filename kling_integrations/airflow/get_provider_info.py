"""What this provider adds to Airflow, for its entry point. Imports nothing of Airflow.

``conn-fields`` and ``ui-field-behaviour`` draw the connection form from Airflow 3.2 on; older
versions ask the hook's classmethods, which read the same constants.
"""

from __future__ import annotations

from typing import Any

from ..version import __version__

CONNECTION_TYPE = "kling"
DEFAULT_CONNECTION = "kling_default"
HOOK_NAME = "Kling (AI/ML API)"

TASK_ROUTE, RUN_ROUTE = "kling-video", "kling-videos"
"""The ends of the addresses of the Video tab and of the gallery."""

OPERATOR_NAMES = (
    "KlingVideoOperator",
    "KlingVideoSensor",
    "KlingBatchOperator",
    "KlingReviewOperator",
    "@task.kling",
)
"""Tasks that have a Video tab, as Airflow names their operators."""

# The extras that are read, and no others: the right to edit a connection must not give control
# over more of the client than this.
EXTRAS: dict[str, dict[str, Any]] = {
    "timeout": {
        "label": "Timeout of one HTTP exchange (seconds)",
        "description": "How long one request may take before it counts as lost. Default: 60.",
        "schema": {"type": ["number", "null"], "minimum": 1, "maximum": 600},
    },
    "legacy_endpoint": {
        "label": "Legacy endpoint",
        "description": "Leave it off. Only for an account whose requests are refused at "
        "/v2/video/generations: uses /v2/generate/video/kling/generation.",
        "schema": {"type": ["boolean", "null"], "default": False},
    },
}

GUIDES = (
    "first_dag",
    "connection",
    "video",
    "batch",
    "review",
    "video_tab",
    "manifest",
    "operating",
)
"""Pages of docs/airflow."""

OPTIONS: dict[str, dict[str, Any]] = {
    "record_path": {
        "description": "Where the tasks keep the records of what they have paid for, unless they "
        "name a record_path: a folder or a prefix that all workers reach. Without it: a hidden "
        "folder beside the video.",
        "version_added": "0.2.0",
        "type": "string",
        "example": "s3://aws_default@my-bucket/kling-records",
        "default": None,
    },
    "max_usd_per_run": {
        "description": "USD that all Kling tasks of one DAG run may cost together: reserved before "
        "each submit by the gateway's price list, settled by what was paid. Needs a record_path "
        "that all workers reach. Operators and default_args have an argument of this name. Empty: "
        "no budget.",
        "version_added": "0.2.0",
        "type": "float",
        "example": "25.0",
        "default": None,
    },
    "video_roots": {
        "description": "Folders, with commas between, that bound what the Video tab opens. Empty: "
        "wherever a task was told to save, for runs whose rendered fields Airflow still has.",
        "version_added": "0.2.0",
        "type": "string",
        "example": "s3://films, /videos",
        "default": "",
    },
    "lineage_prompt": {
        "description": "Whether OpenLineage is told the prompt of a video, too.",
        "version_added": "0.2.0",
        "type": "boolean",
        "example": None,
        "default": "False",
    },
}
"""Of the section ``[kling]`` of Airflow's configuration."""

FORM = {
    "hidden-fields": ["login", "port", "schema"],
    "relabeling": {"host": "Base URL", "password": "API key"},
    "placeholders": {
        "host": "https://api.aimlapi.com (the default)",
        "password": "key from the AI/ML API dashboard; any word for the sandbox",
    },
}


def get_provider_info() -> dict[str, Any]:
    package = "kling_integrations.airflow"
    return {
        "package-name": "kling-integrations",
        "name": "Kling",
        "description": "Kling AI video generation through the AI/ML API gateway.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": "Kling",
                "external-doc-url": "https://docs.aimlapi.com/api-references/video-models/kling-ai",
                "how-to-guide": [f"/docs/airflow/{page}.md" for page in GUIDES],
                "tags": ["service"],
            }
        ],
        "hooks": [{"integration-name": "Kling", "python-modules": [f"{package}.hooks"]}],
        "operators": [
            {"integration-name": "Kling", "python-modules": [f"{package}.operators"]},
            {"integration-name": "Kling", "python-modules": [f"{package}.batch_operator"]},
            {"integration-name": "Kling", "python-modules": [f"{package}.review"]},
        ],
        "sensors": [{"integration-name": "Kling", "python-modules": [f"{package}.sensors"]}],
        "triggers": [
            {
                "integration-name": "Kling",
                "python-modules": [f"{package}.triggers", f"{package}.batch_trigger"],
            }
        ],
        "connection-types": [
            {
                "connection-type": CONNECTION_TYPE,
                "hook-name": HOOK_NAME,
                "hook-class-name": f"{package}.hooks.KlingHook",
                "ui-field-behaviour": FORM,
                "conn-fields": EXTRAS,
            }
        ],
        "extra-links": [f"{package}.links.KlingVideoLink"],
        "config": {"kling": {"description": "Kling videos.", "options": OPTIONS}},
        "plugins": [{"name": "kling", "plugin-class": f"{package}.plugin.KlingPlugin"}],
        "task-decorators": [{"name": "kling", "class-name": f"{package}.decorators.kling_task"}],
    }
