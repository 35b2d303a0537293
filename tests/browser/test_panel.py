"""The panel in real JupyterLab and Notebook 7, driven as a person drives it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import panels
import pytest
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Book

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

SHOW = """
from prefect_cache.panel.widget import Host, show
from prefect_cache.store import Store
from prefect_cache import codecs

def load(entry, name):
    output = next(o for o in entry.manifest.outputs if o.name == name)
    return codecs.codec(output.codec).read(entry.path / output.file, output.meta, trusted=entry.trusted)

panel = show(Host(Store({root!r}), load, globals(), "shop/etl.ipynb"), {mode!r})
panel
"""


def show(root: Path, mode: str = "auto") -> str:
    """The source of a cell that shows a store's panel."""
    return SHOW.format(root=str(root), mode=mode)


def test_shots(open_book: Callable[..., Book], tmp_path: Path) -> None:
    panels.shop(tmp_path / "store")
    for front, theme in (("lab", "light"), ("notebook", "dark")):
        book = open_book(show(tmp_path / "store"), front=front, theme=theme)
        book.page.on("console", lambda m: print("CONSOLE", m.text))
        book.page.on("pageerror", lambda m: print("ERROR", m))
        book.page.wait_for_timeout(5000)
        book.page.screenshot(path="/tmp/e1.png")
        expect(book.panel).to_be_visible(timeout=30_000)
        book.panel.get_by_role("row").filter(has_text="orders").first.click()
        expect(book.panel.locator("tbody tr").first).to_be_visible()
        book.shot(f"{front}-{theme}-rows")
        book.shot(f"{front}-{theme}-page", panel=False)
        for tab in ("Schema", "Provenance", "Files"):
            book.panel.get_by_role("tab", name=tab).click()
            book.page.wait_for_timeout(700)
            book.shot(f"{front}-{theme}-{tab.lower()}")
        book.panel.get_by_role("row").filter(has_text="revenue").first.click()
        book.page.wait_for_timeout(700)
        book.shot(f"{front}-{theme}-value")
        book.panel.get_by_role("tab", name="Figures").click()
        book.page.wait_for_timeout(700)
        book.shot(f"{front}-{theme}-figures")
        book.panel.get_by_role("row").filter(has_text="features").first.click()
        book.page.wait_for_timeout(700)
        book.panel.get_by_role("checkbox").nth(2).click()
        book.panel.get_by_role("checkbox").nth(3).click()
        book.panel.get_by_role("button", name="Evict").click()
        book.page.wait_for_timeout(700)
        book.shot(f"{front}-{theme}-array")
