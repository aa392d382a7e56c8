"""Run an example page from top to bottom and store it with its output, and its picture for docs/examples.md.

    python examples/pages/store.py NAME [NAME ...]

runs NAME.ipynb in a Jupyter kernel, in a copy of this folder, so that nothing is left here. Needs nbclient and
ipykernel. The last picture of the page becomes docs/images/example-NAME.png, unless a cell says "# the picture".
A page can be written as a Python file with `# %%` cells: `jupytext --to notebook NAME.py` makes the notebook.
"""

from __future__ import annotations

import base64
import os
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

PAGES = Path(__file__).parent
PICTURES = PAGES.parents[1] / "docs" / "images"
LONGEST_S = 3600
MARK = "# the picture"
KEPT = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def run(name: str) -> nbformat.NotebookNode:
    """The notebook with the output of this run. Raises `CellExecutionError` where a cell fails."""
    page = nbformat.read(PAGES / f"{name}.ipynb", as_version=4)
    page.metadata = nbformat.from_dict(KEPT)
    for number, cell in enumerate(page.cells):
        cell.id, cell.metadata = f"cell-{number}", nbformat.from_dict({})
    with tempfile.TemporaryDirectory() as there:
        folder = Path(shutil.copytree(PAGES, Path(there) / "pages"))
        client = NotebookClient(
            page,
            timeout=LONGEST_S,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": str(folder)}},
        )
        return client.execute()


def picture(page: nbformat.NotebookNode) -> bytes:
    """The marked picture, as a PNG file, else the last one. Raises `IndexError` where there is none."""
    found = [
        (MARK in cell.source, output.data["image/png"])
        for cell in page.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    return base64.b64decode(next((png for marked, png in found if marked), found[-1][1]))


def main() -> None:
    """Run the named pages."""
    os.environ.pop("LIVEPTV_QUICK", None)  # stored in full
    for name in (Path(argument).stem for argument in sys.argv[1:]):
        page = run(name)
        nbformat.write(page, PAGES / f"{name}.ipynb")
        (PICTURES / f"example-{name.replace('_', '-')}.png").write_bytes(picture(page))


if __name__ == "__main__":
    main()
