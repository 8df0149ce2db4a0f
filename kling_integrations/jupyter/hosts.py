"""Which hosted notebook this is, as far as its environment tells, and what works there.

A relative link works where the notebook's server serves the files beside it: JupyterLab, Notebook,
Voila. Elsewhere an output has to hold what it shows. The signs are from the hosts' documentation;
``docs/how-to/other-notebooks.md`` says what was seen.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SAGEMAKER = Path("/opt/ml/metadata/resource-metadata.json")  # on every instance of it


@dataclass(frozen=True)
class Host:
    """A place that shows notebooks in a page of its own, without the files beside them.

    ``most_mb`` is what the outputs of one cell may hold (MB of text), None where no limit is known;
    ``in_batch`` whether this run has no frontend.
    """

    name: str
    most_mb: float | None = None
    in_batch: bool = False


def host(shell: Any) -> Host | None:
    """The host of this notebook; None where links to files work, or nothing is known."""
    env = os.environ
    if "__vsc_ipynb_file__" in getattr(shell, "user_ns", {}):
        return Host("VS Code")
    if "COLAB_RELEASE_TAG" in env or "google.colab" in str(type(shell)):
        return Host("Colab")
    if "DATABRICKS_RUNTIME_VERSION" in env:
        return Host("Databricks", most_mb=10.0)
    if "KAGGLE_KERNEL_RUN_TYPE" in env:
        return Host("Kaggle", in_batch=env["KAGGLE_KERNEL_RUN_TYPE"].lower() == "batch")
    if "DEEPNOTE_PROJECT_ID" in env:
        return Host("Deepnote")
    if env.get("JPY_SESSION_NAME"):  # a Jupyter server, wherever it was started from
        return None
    if "VSCODE_PID" in env:
        return Host("VS Code")
    return Host("SageMaker") if _SAGEMAKER.exists() else None
