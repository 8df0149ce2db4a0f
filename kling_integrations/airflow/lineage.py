"""What OpenLineage is told of a finished task: the file, what it was made from, what it cost.

Nothing here runs unless the OpenLineage provider is installed and asks. Prompts and signed
addresses are left out; ``[kling] lineage_prompt = True`` adds the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import conf

_FIGURES = {
    "generation_id": "generation_id",
    "model": "model",
    "seconds": "elapsed_seconds",
    "usd": "usd",
    "polls": "polls",
    "sandbox": "sandbox",
}

_OF_TABLE = ("rows", "completed", "failed", "usd")


class WithLineage:
    """For operators: ``manifest`` is what this process delivered."""

    manifest: Mapping[str, Any] | None = None

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """An OperatorLineage; None where this task delivered nothing."""
        return lineage_of(self.manifest) if self.manifest else None


def lineage_of(made: Mapping[str, Any]) -> Any:
    """Outputs with size and SHA-256, inputs where an image came from a file, a run facet.

    Of a table: its results, what its rows were read from, and how many became videos.
    """
    from airflow.providers.openlineage.extractors import OperatorLineage

    if made.get("results_path"):
        rows = _address(made.get("rows_path"))
        return OperatorLineage(
            inputs=[_input(rows)] if rows else [],
            outputs=[_output({"path": made["results_path"]})],
            run_facets={"kling": _facet_class()(**{name: made.get(name) for name in _OF_TABLE})},
        )
    parameters = made.get("parameters")
    inputs = parameters if isinstance(parameters, Mapping) else {}
    images = [_address(inputs.get(name)) for name in ("image", "tail_image")]
    facet = {name: made.get(key) for name, key in _FIGURES.items()}
    if conf.getboolean("kling", "lineage_prompt", fallback=False):
        facet["prompt"] = made.get("prompt")
    return OperatorLineage(
        inputs=[_input(address) for address in images if address],
        outputs=[_output(made)] if made.get("path") else [],
        run_facets={"kling": _facet_class()(**facet)},
    )


def dataset_name(address: str) -> tuple[str, str]:
    """Namespace and name by OpenLineage's rules: ``s3://bucket`` and ``key``, ``file`` and path."""
    if "://" not in address:
        return "file", address
    parts = urlsplit(address)
    if parts.scheme == "file":
        return "file", parts.path
    host = parts.netloc.rpartition("@")[2]  # an Airflow connection is no part of the bucket
    return f"{parts.scheme}://{host}", parts.path.lstrip("/") or "/"


def _address(image: Any) -> str | None:
    """Where an image is, without a query; None for one that was handed over as data."""
    if isinstance(image, Mapping):
        image = image.get("path")
    if not isinstance(image, str) or not ("://" in image or image.startswith("/")):
        return None
    return image.partition("?")[0]


def _input(address: str) -> Any:
    from openlineage.client.event_v2 import InputDataset

    namespace, name = dataset_name(address)
    return InputDataset(namespace=namespace, name=name)


def _output(made: Mapping[str, Any]) -> Any:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import (
        dataset_version_dataset,
        output_statistics_output_dataset,
    )

    namespace, name = dataset_name(str(made["path"]))
    sha256 = made.get("sha256")
    facets: dict[str, Any] = {}
    if sha256:
        version = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=str(sha256))
        facets["version"] = version
    statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        size=made.get("size"), fileCount=1
    )
    return OutputDataset(
        namespace=namespace,
        name=name,
        facets=facets,
        outputFacets={"outputStatistics": statistics},
    )


@cache
def _facet_class() -> Any:
    import attrs
    from openlineage.client.facet_v2 import RunFacet

    names = dict.fromkeys((*_FIGURES, *_OF_TABLE, "prompt"))
    fields = {name: attrs.field(default=None) for name in names}
    return attrs.make_class("KlingRunFacet", fields, bases=(RunFacet,), kw_only=True)
