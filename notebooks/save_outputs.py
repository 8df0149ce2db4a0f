"""Runs the notebooks of this folder on a sandbox and saves them with what a reader should see.

    python notebooks/save_outputs.py

The videos themselves stay out of the repository; their posters are in the notebooks.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent


def main() -> None:
    for name in ("AIML_API_KEY", "AIMLAPI_API_KEY", "AIMLAPI_KEY", "AIML_BASE_URL", "CI"):
        os.environ.pop(name, None)
    for path in sorted(HERE.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["KLING_HOME"] = str(Path(folder) / "home")
            copy = Path(shutil.copy(path, folder))
            os.environ["JPY_SESSION_NAME"] = str(copy)  # as in JupyterLab: no lines of a log
            notebook = nbformat.read(copy, as_version=4)
            NotebookClient(
                notebook,
                timeout=300,
                store_widget_state=False,
                resources={"metadata": {"path": folder}},
            ).execute()
        tidy(notebook)
        nbformat.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Without times of execution, and without what the live strips left."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [
                output for output in cell.outputs if output.get("data") != {}
            ]
    notebook.metadata = {
        "kernelspec": notebook.metadata.kernelspec,
        "language_info": {"name": "python"},
    }


if __name__ == "__main__":
    main()
