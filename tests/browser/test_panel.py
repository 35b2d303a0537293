"""The panel in real JupyterLab and Notebook 7, driven as a person drives it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from playwright.sync_api import expect
from prefect import task
from prefect.cache_policies import INPUTS

import panels
from offline import offline
from prefect_cache.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from playwright.sync_api import Locator

    from conftest import Book

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

SHOW = """
import time
from prefect_cache import codecs
from prefect_cache.panel.widget import Host, show
from prefect_cache.store import Store

def load(entry, name):
    output = next(o for o in entry.manifest.outputs if o.name == name)
    return codecs.codec(output.codec).read(entry.path / output.file, output.meta, trusted=entry.trusted)

panel = show(Host(Store({root!r}), load, globals(), "shop/etl.ipynb"), {mode!r})
panel
"""
ENTRIES = 7


def source(root: Path, mode: str = "auto") -> str:
    """The source of a cell that shows a store's panel."""
    return SHOW.format(root=str(root), mode=mode).strip()


@pytest.fixture
def shop(tmp_path: Path) -> Store:
    """A store with one of each."""
    return panels.shop(tmp_path / "store")


def rows(book: Book) -> Locator:
    """The rows of the list that are there."""
    return book.panel.locator(".pc-space .pc-row:visible")


def entry(book: Book, name: str) -> Locator:
    """The row of an entry."""
    return rows(book).filter(has=book.page.get_by_text(name, exact=True)).first


def choose(book: Book, name: str) -> None:
    """Tick an entry."""
    entry(book, name).get_by_role("checkbox").click()


def line(book: Book) -> Locator:
    """What the panel says at its foot."""
    return book.panel.locator(".pc-status .pc-line")


def test_a_store_is_browsed_in_jupyterlab(open_book: Callable[..., Book], shop: Store) -> None:
    """List, search, sort, filters; rows, schema, provenance, files, figures, arrays; and it looks well."""
    browse(open_book(source(shop.root)), "lab-light")


def test_a_store_is_browsed_in_notebook_7_in_the_dark(open_book: Callable[..., Book], shop: Store) -> None:
    """The same in the other front end and the other theme."""
    browse(open_book(source(shop.root), front="notebook", theme="dark"), "notebook-dark")


def browse(book: Book, shot: str) -> None:
    """Look at everything once."""
    panel = book.panel
    expect(rows(book)).to_have_count(ENTRIES)
    expect(panel.get_by_text("damaged", exact=True)).to_be_visible()
    search_and_sort(book)
    entry(book, "orders").click()
    expect(panel.get_by_text("1152921504606846977")).to_be_visible()
    book.shot(f"{shot}-rows")
    book.shot(f"{shot}-page", panel=False)
    page_through(book)
    panel.get_by_role("tab", name="Schema").click()
    expect(panel.locator(".pc-bars").nth(10)).to_be_visible(timeout=30_000)
    note = panel.get_by_role("row").filter(has=book.page.get_by_role("rowheader", name="note", exact=True))
    expect(note).to_contain_text("13,333 (67 %)")
    book.shot(f"{shot}-schema")
    panel.get_by_role("tab", name="Provenance").click()
    expect(panel.get_by_text("orders.parquet changed")).to_be_visible()
    expect(panel.get_by_role("link", name="Open the run in Prefect")).to_have_attribute(
        "href", "https://prefect.example/runs/1"
    )
    book.shot(f"{shot}-provenance")
    panel.get_by_role("tab", name="Files").click()
    panel.get_by_role("button", name="polars").first.click()
    expect(panel.get_by_text("pl.read_ipc").first).to_be_visible()
    panel.get_by_role("button", name="Check every byte").click()
    expect(panel.get_by_text("every byte is as it was written")).to_be_visible()
    book.shot(f"{shot}-files")
    entry(book, "revenue").click()
    expect(panel.get_by_text("{'alpha': 0.3, 'terms': ['price', 'day']}")).to_be_visible()
    panel.get_by_role("tab", name="Figures").click()
    expect(panel.get_by_role("img", name="What the cell showed")).to_be_visible()
    book.shot(f"{shot}-figure")
    entry(book, "features").click()
    expect(panel.get_by_text("5000 x 40")).to_be_visible()
    book.shot(f"{shot}-array")


def search_and_sort(book: Book) -> None:
    """Search by name, column and size; filter; sort both ways."""
    panel, search = book.panel, book.panel.get_by_label("Search the cache")
    search.fill("sensor_042")
    expect(rows(book)).to_have_count(1)
    search.fill("nothing is called so")
    expect(panel.get_by_text("Nothing matches")).to_be_visible()
    search.fill("size>1.5MB unused<1d")
    expect(rows(book)).to_have_count(3)
    search.fill("size>big")
    expect(line(book)).to_contain_text("is no size")
    search.fill("")
    expect(rows(book)).to_have_count(ENTRIES)
    for chip, count in (("Pinned", 1), ("Expired", 1), ("Damaged", 1), ("This notebook", 3)):
        panel.get_by_role("button", name=chip, exact=True).click()
        expect(rows(book)).to_have_count(count)
        panel.get_by_role("button", name=chip, exact=True).click()
        expect(rows(book)).to_have_count(ENTRIES)
    panel.get_by_role("button", name="Size", exact=True).click()
    expect(rows(book).locator(".pc-label").first).to_have_text("orders")
    panel.get_by_role("button", name="Name", exact=True).click()
    expect(panel.get_by_role("columnheader", name="Name")).to_have_attribute("aria-sort", "ascending")
    panel.get_by_role("button", name="Used", exact=True).click()
    expect(rows(book).locator(".pc-label").first).to_have_text("features")


def page_through(book: Book) -> None:
    """Turn pages, go to a row, filter and sort rows, look at a whole cell; what cannot be shown is a line."""
    panel = book.panel
    panel.get_by_role("button", name="Page after").click()
    expect(panel.get_by_text("rows 51-100 of 20,000")).to_be_visible()
    panel.get_by_role("button", name="Last page").click()
    expect(panel.get_by_text("rows 19,951-20,000 of 20,000")).to_be_visible()
    panel.get_by_role("button", name="Page after").click()
    goto, note = panel.get_by_label("Go to row"), panel.locator(".pc-note")
    goto.fill("12,345")
    goto.press("Enter")
    expect(panel.get_by_text("rows 12,345-12,394 of 20,000")).to_be_visible()
    for wrong, words in (("99999", "there is no row 99,999"), ("x", "is no row")):
        goto.fill(wrong)
        goto.press("Enter")
        expect(note).to_contain_text(words)
    given = panel.get_by_label("Filter rows")
    given.fill("customer = null and price > 100 and country in (DE, FR)")
    given.press("Enter")
    expect(panel.locator(".pc-range").first).to_contain_text(re.compile(r"rows 1-50 of \d,?\d\d\d$"))
    for wrong, words in (
        ("pric > 1", "did you mean 'price'?"),
        ("price >", "ends where"),
        ("price > much", "cannot be compared"),
    ):
        given.fill(wrong)
        given.press("Enter")
        expect(note).to_contain_text(words)
    given.fill("")
    given.press("Enter")
    expect(panel.get_by_text("rows 1-50 of 20,000")).to_be_visible()
    panel.get_by_role("columnheader", name="price").get_by_role("button").click()
    expect(panel.locator(".pc-body tbody tr").first).to_contain_text("1.75")
    panel.get_by_role("columnheader", name="price").get_by_role("button").click()
    expect(panel.get_by_role("columnheader", name="price")).to_have_attribute("aria-sort", "descending")
    panel.locator(".pc-body td").nth(1).dblclick()
    expect(panel.locator(".pc-full")).to_be_visible()


def test_entries_are_pinned_evicted_brought_back_loaded_and_exported(
    open_book: Callable[..., Book], shop: Store, jupyter: object
) -> None:
    """What the panel does is done in the store, in the notebook's namespace, and in the working folder."""
    book = open_book(source(shop.root), "sensors = 'mine'")
    panel = book.panel
    expect(rows(book)).to_have_count(ENTRIES)
    choose(book, "sensors")
    choose(book, "old prices")
    expect(panel.get_by_text("2 chosen")).to_be_visible()
    panel.get_by_role("button", name="Pin", exact=True).click()
    expect(line(book)).to_have_text("Pinned 2 entries.")
    assert {e.manifest.name for e in shop.catalog().entries if e.pinned} == {"features", "sensors", "old prices"}
    panel.get_by_role("button", name="Unpin").click()
    expect(line(book)).to_have_text("Unpinned 2 entries.")
    panel.get_by_role("button", name="Evict…").click()
    expect(panel.get_by_text("That is 2 entries and frees 1.8 MB.")).to_be_visible()
    book.shot("evict")
    panel.locator(".pc-confirm:visible").get_by_role("button", name="Evict 1.8 MB").click()
    expect(line(book)).to_contain_text("Evicted 2 entries")
    expect(rows(book)).to_have_count(ENTRIES - 2)
    assert len(shop.catalog().entries) == ENTRIES - 3
    panel.get_by_role("button", name="Undo").click()
    expect(line(book)).to_have_text("Brought back 2 entries.")
    expect(rows(book)).to_have_count(ENTRIES)
    entry(book, "sensors").click()
    panel.get_by_role("button", name="Load…").click()
    panel.get_by_role("button", name="Load", exact=True).click()
    expect(panel.get_by_text("sensors exists already (str).")).to_be_visible()
    assert book.ask("sensors") == "'mine'"
    panel.get_by_role("button", name="Replace sensors").click()
    expect(line(book)).to_have_text("Loaded sensors into sensors.")
    assert book.ask("sensors.shape") == "(400, 500)"
    panel.get_by_role("button", name="Export…").click()
    panel.get_by_role("button", name="Parquet").click()
    expect(line(book)).to_contain_text("Exported sensors.parquet")
    assert book.ask("__import__('pandas').read_parquet('sensors.parquet').equals(sensors)") == "True"
    damaged = rows(book).filter(has_text="unreadable entry")
    damaged.get_by_role("checkbox").click()
    panel.locator(".pc-actions").get_by_role("button", name="Evict").click()
    panel.locator(".pc-confirm:visible").get_by_role("button", name="Evict").click()
    expect(rows(book)).to_have_count(ENTRIES - 1)


def test_hostile_text_stays_text(open_book: Callable[..., Book], shop: Store) -> None:
    """Names, columns, values, sources and paths that are HTML show as they are; nothing in them runs."""
    book = open_book(source(shop.root))
    panel = book.panel
    entry(book, panels.EVIL).click()
    expect(panel.locator(".pc-column").first).to_have_text(panels.EVIL)
    expect(panel.locator(".pc-body td").first).to_have_text(panels.EVIL)
    expect(panel.locator(".pc-body td.pc-null")).to_have_count(1)
    panel.locator(".pc-body td").first.dblclick()
    expect(panel.locator(".pc-full")).to_have_text(panels.EVIL)
    panel.locator(".pc-column").first.click()
    given = panel.get_by_label("Filter rows")
    given.fill(f"{panels.EVIL} = 1")
    given.press("Enter")
    expect(panel.locator(".pc-note")).to_be_visible()
    book.shot("hostile")
    for tab in ("Schema", "Provenance", "Files"):
        panel.get_by_role("tab", name=tab).click()
        expect(panel.locator(".pc-body")).to_contain_text("evil" if tab == "Files" else panels.EVIL)
    panel.get_by_label("Search the cache").fill(panels.EVIL)
    panel.get_by_role("button", name="Load…").click()
    panel.get_by_label("Variable").fill(panels.EVIL)
    panel.get_by_label("Variable").press("Enter")
    expect(line(book)).to_contain_text("cannot be the name of a variable")
    assert panel.locator("img, script, iframe").count() == 0
    assert "owned" not in book.page.title()


def test_keys_drive_the_panel_and_not_the_notebook(open_book: Callable[..., Book], shop: Store) -> None:
    """Arrows, Enter, Space, slash and Escape work; what JupyterLab would take for commands does not reach it."""
    book = open_book(source(shop.root), "1 + 1")
    panel, keyboard = book.panel, book.page.keyboard
    expect(rows(book)).to_have_count(ENTRIES)
    cells = book.page.locator(".jp-Notebook .jp-Cell").count()
    grid = panel.get_by_role("grid", name="Cached entries")
    expect(grid).to_have_attribute("aria-rowcount", str(ENTRIES + 1))
    grid.focus()
    for key in ("d", "d", "a", "b", "x", "m"):
        keyboard.press(key)
    panel.get_by_label("Search the cache").press("Shift+Enter")
    grid.focus()
    assert book.page.locator(".jp-Notebook .jp-Cell").count() == cells
    keyboard.press("Home")
    keyboard.press("ArrowDown")
    active = grid.get_attribute("aria-activedescendant")
    assert panel.locator(f"#{active}").get_attribute("aria-rowindex") == "3"
    keyboard.press("Space")
    expect(panel.locator(f"#{active}")).to_have_attribute("aria-selected", "true")
    keyboard.press("Space")
    keyboard.press("/")
    keyboard.type("orders")
    expect(rows(book)).to_have_count(1)
    keyboard.press("ArrowDown")
    keyboard.press("Enter")
    expect(panel.get_by_role("tab", name="Rows")).to_be_focused()
    keyboard.press("ArrowRight")
    expect(panel.get_by_role("tab", name="Schema")).to_be_focused()
    keyboard.press("ArrowLeft")
    table = panel.get_by_role("grid", name="Rows")
    expect(panel.get_by_text("rows 1-50 of 20,000")).to_be_visible()
    table.focus()
    keyboard.press("PageDown")
    expect(panel.get_by_text("rows 51-100 of 20,000")).to_be_visible()
    keyboard.press("Control+End")
    expect(panel.get_by_text("rows 19,951-20,000 of 20,000")).to_be_visible()
    keyboard.press("ArrowRight")
    keyboard.press("Enter")
    expect(panel.locator(".pc-full")).to_be_visible()
    book.shot("keys")
    keyboard.press("Escape")
    expect(grid).to_be_focused()
    keyboard.press("Delete")
    expect(panel.get_by_text("Evict orders? That is 1 entry")).to_be_visible()
    keyboard.press("Escape")
    expect(grid).to_be_focused()
    assert book.page.locator(".jp-Notebook .jp-Cell").count() == cells


def test_the_panel_works_while_a_cell_runs(open_book: Callable[..., Book], shop: Store) -> None:
    """A long cell does not hold up the panel; a slow answer is told as a busy kernel."""
    book = open_book(source(shop.root), "time.sleep(60)")
    panel = book.panel
    expect(rows(book)).to_have_count(ENTRIES)
    running = book.page.locator(".jp-Notebook .jp-CodeCell").nth(1).locator(".jp-InputPrompt").first
    expect(running).to_have_text("[*]:")
    entry(book, "orders").click()
    expect(panel.get_by_text("rows 1-50 of 20,000")).to_be_visible()
    expect(running).to_have_text("[*]:")


def test_a_slow_kernel_is_said_to_be_busy(open_book: Callable[..., Book], shop: Store) -> None:
    """After 300 ms without an answer the panel says so, and takes it back with the answer."""
    slow = "answer = panel._controller.handle\npanel._controller.handle = lambda r: (time.sleep(1.5), answer(r))[1]"
    book = open_book(source(shop.root), slow)
    expect(rows(book)).to_have_count(ENTRIES)
    book.page.wait_for_timeout(1000)
    entry(book, "orders").click()
    expect(book.panel.get_by_text("kernel busy…")).to_be_visible()
    expect(book.panel.get_by_text("rows 1-50 of 20,000")).to_be_visible()
    expect(book.panel.get_by_text("kernel busy…")).to_be_hidden()


def test_changes_from_elsewhere_appear(open_book: Callable[..., Book], shop: Store) -> None:
    """What another process caches, evicts or removes is seen; without its store the panel lives on."""
    book = open_book(source(shop.root))
    expect(rows(book)).to_have_count(ENTRIES)
    panels.save(shop, "new one", {"frame": panels.orders(20)}, age=1)
    expect(rows(book)).to_have_count(ENTRIES + 1)
    entry(book, "new one").click()
    expect(book.panel.get_by_text("rows 1-20 of 20")).to_be_visible()
    shop.evict([e for e in shop.catalog().entries if e.manifest.name == "new one"])
    expect(rows(book)).to_have_count(ENTRIES)
    expect(book.panel.get_by_role("tab")).to_have_count(0)
    shop.root.rename(shop.root.with_name("moved away"))
    expect(book.panel.get_by_text("Nothing is cached yet")).to_be_visible(timeout=10_000)
    panels.save(Store(shop.root), "after all", {"frame": panels.orders(20)})
    book.panel.get_by_role("button", name="Refresh").click()
    expect(rows(book)).to_have_count(1)


def test_little_is_added_to_a_saved_notebook(open_book: Callable[..., Book], shop: Store) -> None:
    """The saved notebook holds a table to read, no widget state, and no more than 25 kB."""
    book = open_book(source(shop.root))
    expect(rows(book)).to_have_count(ENTRIES)
    entry(book, "orders").click()
    expect(book.panel.get_by_text("rows 1-50 of 20,000")).to_be_visible()
    book.page.keyboard.press("Control+s")
    book.page.wait_for_timeout(2500)
    saved = json.loads(book.path.read_text())
    (output,) = saved["cells"][0]["outputs"]
    assert "widgets" not in saved["metadata"]
    assert "<table>" in "".join(output["data"]["text/html"])
    assert "<img" not in "".join(output["data"]["text/html"])
    assert len(json.dumps(output)) <= 25_000


def test_prefects_own_results_are_looked_at_and_evicted(
    open_book: Callable[..., Book], shop: Store, tmp_path: Path
) -> None:
    """A chip lists them; they have rows to page and can go, and are not offered to be loaded or brought back."""
    storage = tmp_path / "storage"
    with offline(storage):

        @task(name="prices", persist_result=True, result_serializer="arrow", cache_policy=INPUTS)
        def prices(count: int) -> pd.DataFrame:
            return pd.DataFrame({"price": range(count)})

        prices(120)
    named = f"import os; os.environ['PREFECT_RESULTS_LOCAL_STORAGE_PATH'] = {str(storage)!r}\n"
    book = open_book(named + source(shop.root))
    panel = book.panel
    expect(rows(book)).to_have_count(ENTRIES)
    panel.get_by_role("button", name="Prefect results").click()
    expect(rows(book)).to_have_count(1)
    expect(rows(book).first).to_contain_text("prices")
    rows(book).first.click()
    expect(panel.get_by_text("rows 1-50 of 120")).to_be_visible()
    expect(panel.get_by_role("button", name="Load…")).to_have_count(0)
    book.shot("results")
    choose(book, "prices")
    panel.locator(".pc-actions").get_by_role("button", name="Evict").click()
    panel.locator(".pc-confirm:visible").get_by_role("button", name="Evict").click()
    expect(rows(book)).to_have_count(0)
    expect(panel.get_by_role("button", name="Undo")).to_be_hidden()
    panel.get_by_role("button", name="Prefect results").click()
    expect(rows(book)).to_have_count(ENTRIES)


def test_the_basic_form_does_the_same_with_core_widgets(open_book: Callable[..., Book], shop: Store) -> None:
    """List, page, pin, evict and undo without anywidget."""
    book = open_book(source(shop.root, "basic"))
    area = book.page.locator(".jp-OutputArea").first
    expect(area.get_by_text("7 entries")).to_be_visible()
    listed = area.locator("select").first
    listed.select_option(label=listed.locator("option", has_text="orders").first.inner_text())
    expect(area.get_by_text("1152921504606846977")).to_be_visible()
    area.get_by_role("button", name="Evict", exact=True).click()
    area.get_by_role("button", name="Evict 2.1 MB").click()
    expect(area.get_by_text("6 entries")).to_be_visible()
    area.get_by_role("button", name="Undo").click()
    expect(area.get_by_text("7 entries")).to_be_visible()
    book.page.screenshot(path=str(book.shots / "basic.png"))
