"""Every notebook runs, and runs again without running a cached cell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def statuses(path: Path) -> list[tuple[str, str]]:
    """Return the magic line and the status line of each cached cell, as ``bash notebooks/run`` prints them."""
    printed = subprocess.run(
        [sys.executable, ROOT / "notebooks" / "statuses.py", path], check=True, capture_output=True, text=True
    )
    return [(line[:12].strip(), line[13:]) for line in printed.stdout.splitlines()]


def execute(notebook: Path) -> list[tuple[str, str]]:
    """Run a notebook with ``jupyter execute`` in a new kernel and return its status lines."""
    ran = subprocess.run(
        ["jupyter", "execute", notebook.name, "--inplace", "--timeout=280"],
        cwd=notebook.parent,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    return statuses(notebook)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_second_run_runs_no_cached_cell(notebook: Path, tmp_path: Path, store_root: Path) -> None:
    """The first run stores each cached cell; the second, in a new kernel, restores each."""
    copy = Path(shutil.copy(notebook, tmp_path))
    first = execute(copy)
    assert len(first) >= 5
    assert [name for name, status in first if not status.startswith("ran in") or ", stored" not in status] == []
    before = outputs(copy)
    assert [name for name, status in execute(copy) if not status.startswith("restored ")] == []
    assert outputs(copy) == before
    assert list(store_root.glob("entries/*/*.arrow"))


def outputs(path: Path) -> list[object]:
    """Return what the cached cells show, status lines left out."""
    cells = nbformat.read(path, as_version=4).cells
    return [
        [output for output in cell.outputs if "prefect-cache-status" not in str(output)]
        for cell in cells
        if cell.source.startswith("%%prefect_cache")
    ]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_as_they_look_after_the_second_run(notebook: Path) -> None:
    """A reader on the web sees figures and tables, and each cached cell restored."""
    assert [name for name, status in statuses(notebook) if not status.startswith("restored ")] == []
    cells = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.source for cell in cells if cell.execution_count is None] == []
    pictures = [output for cell in cells for output in cell.outputs if "image/png" in output.get("data", {})]
    assert pictures
