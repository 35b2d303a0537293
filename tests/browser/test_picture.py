"""The README's picture: the quickstart as its second run leaves it, with the panel open."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Book, Jupyter

pytestmark = [
    pytest.mark.browser,
    pytest.mark.long,
    pytest.mark.xdist_group("browser"),
    pytest.mark.timeout(1500),  # the quickstart runs twice, and all of it
]

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
QUICKSTART = NOTEBOOKS / "quickstart.ipynb"
PICTURE = Path(os.environ.get("README_PICTURE", Path(__file__).parent / "shots" / "panel.png"))
"""Where the picture goes; ``README_PICTURE=notebooks/panel.png`` makes the README's own."""


def test_the_quickstart_with_the_panel_open(open_book: Callable[..., Book], jupyter: Jupyter) -> None:
    """After one run elsewhere every cell is restored, and the panel shows the flights."""
    shutil.copy(QUICKSTART, jupyter.root / "quickstart.ipynb")
    command = [sys.executable, "-m", "jupyter", "execute", "quickstart.ipynb"]
    named = {"JPY_SESSION_NAME": "quickstart.ipynb"}  # as a server would name it to its kernel
    subprocess.run(command, cwd=jupyter.root, env=jupyter.env | named, check=True, timeout=900)
    book = open_book(path=jupyter.root / "quickstart.ipynb", size=(1280, 960))
    entry = book.panel.locator(".pc-space .pc-row").filter(has_text="tables").first
    expect(entry).to_be_visible(timeout=120_000)
    entry.click()
    expect(book.panel.locator(".pc-body tbody tr").first).to_be_visible()
    cell = book.page.locator(".jp-Notebook .jp-CodeCell").filter(has=book.page.locator(".pc"))
    cell.evaluate("node => node.scrollIntoView({block: 'end'})")
    book.page.mouse.move(5, 5)
    book.page.wait_for_timeout(1000)
    book.page.screenshot(path=PICTURE)
