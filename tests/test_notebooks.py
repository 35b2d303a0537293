"""Every notebook runs, and says what the committed one says; the quickstart's second run runs no cached cell."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
QUICKSTART = ROOT / "notebooks" / "quickstart.ipynb"
PAGES = [path for path in NOTEBOOKS if path != QUICKSTART]
"""Notebooks that make a store of their own: each run of them begins anew."""


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


def test_the_second_run_runs_no_cached_cell(tmp_path: Path, store_root: Path) -> None:
    """The first run stores each cached cell; the second, in a new kernel, restores each."""
    copy = Path(shutil.copy(QUICKSTART, tmp_path))
    first = execute(copy)
    assert len(first) >= 5
    assert [name for name, status in first if not status.startswith("ran in") or ", stored" not in status] == []
    before = outputs(copy)
    assert [name for name, status in execute(copy) if not status.startswith("restored ")] == []
    assert outputs(copy) == before
    assert list(store_root.glob("entries/*/*.arrow"))


def outputs(path: Path) -> list[list[tuple[str, str]]]:
    """Return what the cached cells show, status lines left out; pictures by their digests."""
    cells = nbformat.read(path, as_version=4).cells
    return [
        [
            _told(output)
            for output in cell.outputs
            if "prefect-cache-status" not in str(output) and not _taken_back(output)
        ]
        for cell in cells
        if cell.source.startswith("%%prefect_cache")
    ]


def _taken_back(output: nbformat.NotebookNode) -> bool:
    """Tell whether this was a bar that showed for as long as a slow machine stored something."""
    return output.output_type == "display_data" and not any(map(str, output.data.values()))


def _told(output: nbformat.NotebookNode) -> tuple[str, str]:
    if output.output_type == "stream":
        return output.name, output.text
    picture = output.data.get("image/png", "")
    digest = hashlib.sha256(picture.encode()).hexdigest()[:12] if picture else ""
    return (
        output.output_type,
        f"{len(picture)} {digest} {output.data.get('text/html', '')[:500]}{output.data.get('text/plain')}",
    )


def test_the_quickstart_is_committed_as_it_looks_after_the_second_run() -> None:
    """A reader on the web sees each cached cell restored."""
    assert [name for name, status in statuses(QUICKSTART) if not status.startswith("restored ")] == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_with_their_outputs(notebook: Path) -> None:
    """Every cell has run, in order, and raised nothing that it does not say it will; and the README leads to it."""
    assert f"(notebooks/{notebook.name})" in (ROOT / "README.md").read_text()
    cells = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    raised = [cell for cell in cells if any(output.output_type == "error" for output in cell.outputs)]
    assert [cell for cell in raised if "raises-exception" not in cell.metadata.get("tags", ())] == []
    if notebook.stem in ("quickstart", "benchmarks"):
        assert [o for cell in cells for o in cell.outputs if "image/png" in o.get("data", {})]


@pytest.mark.parametrize("notebook", PAGES, ids=lambda path: path.stem)
def test_pages_say_today_what_they_are_committed_with(notebook: Path, tmp_path: Path) -> None:
    """Each status line, and each answer to why, is the committed one, but for times, sizes and keys."""
    for file in notebook.parent.glob("*.json"):
        shutil.copy(file, tmp_path)
    copy = Path(shutil.copy(notebook, tmp_path))
    execute(copy)
    assert told(copy) == told(notebook)


def told(path: Path) -> list[tuple[str, str]]:
    """Return what the extension said under each cell, without what no two runs share."""
    return [
        (cell.source, _lasting(output["data"]["text/plain"]))
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "code" and not re.match(r"%prefect_cache (show|config|where)", cell.source)
        for output in cell.outputs
        if output.get("metadata", {}).get("prefect_cache") in ("status", "lines")
    ]


def _lasting(text: str) -> str:
    """Return a text without its moments, times, sizes and keys."""
    text = re.sub(r"\b(\d+ \w+ \d{4}, \d\d:\d\d|at \d\d:\d\d|on \d+ [A-Z]\w+( \d{4})?)", "then", text)
    text = re.sub(r"\b[0-9a-f]{8}\b", "key", text)
    return re.sub(r"\b(under )?\d[\d.]* (ms|s|min|h|d|B|kB|MB|GB)\b( \d+ (s|min)\b)?", "some", text)


def test_the_trust_page_does_what_its_headings_say() -> None:
    """Under "...: ran" the cell ran and was stored, under "...: restored" it was restored, and so on."""
    fulfilled = {
        "ran": lambda line: line.startswith("ran in") and ", stored" in line,
        "restored": lambda line: line.startswith("restored "),
        "not stored": lambda line: ", not stored: " in line,
    }
    headings = list(_headings(ROOT / "notebooks" / "trust-me.ipynb"))
    assert len(headings) >= 20
    for heading, lines in headings:
        promises = [promise for promise in heading.rpartition(": ")[2].split(", then ") if promise != "nothing stored"]
        assert len(lines) >= len(promises), heading
        kept = [fulfilled[promise](line) for promise, line in zip(reversed(promises), reversed(lines), strict=False)]
        assert all(kept), (heading, lines)


def _headings(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each heading that promises something, with the status lines under it."""
    heading, lines = "", []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            if heading:
                yield heading, lines
            found = re.search(r"^### (.*: .*)$", cell.source, re.MULTILINE)
            heading, lines = (found[1] if found else ""), []
        else:
            shown = [o for o in cell.outputs if o.get("metadata", {}).get("prefect_cache") == "status"]
            lines += [output["data"]["text/plain"] for output in shown]
            printed = "".join(o.text for o in cell.outputs if o.output_type == "stream")  # by IPython in a terminal
            lines += re.findall(r"(?:ran in|restored) .*", printed)
