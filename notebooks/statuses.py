"""Print the status line of each cached cell of an executed notebook: python statuses.py NOTEBOOK."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import nbformat

if TYPE_CHECKING:
    from collections.abc import Iterator


def statuses(path: str) -> Iterator[tuple[str, str]]:
    """Yield the ``%%prefect_cache`` line of each cached cell and the status line after it, "" where there is none."""
    for cell in nbformat.read(path, as_version=4).cells:
        magic = cell.source.partition("\n")[0]
        if cell.cell_type == "code" and magic.startswith("%%prefect_cache"):
            yield magic, next(_status_lines(cell), "")


def _status_lines(cell: nbformat.NotebookNode) -> Iterator[str]:
    for output in cell.outputs:
        data = output.get("data", {})
        if "prefect-cache-status" in data.get("text/html", ""):
            yield re.sub(r"^\W+", "", data["text/plain"])


def main() -> None:
    """Print them, one line each."""
    for magic, status in statuses(sys.argv[1]):
        words = magic.split()
        print(f"{words[1] if len(words) > 1 else magic:12} {status}")


if __name__ == "__main__":
    main()
