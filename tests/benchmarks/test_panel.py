"""What the panel costs the kernel: pages of ten million rows, lists of ten thousand entries, memory.

Small here, so that every run of the tests walks through; in full with ``PANEL_ROWS=10000000 PANEL_ENTRIES=10000``.
The bounds that are asserted are wide: a busy machine must not fail them, a page that reads a whole column must.
The same through a browser is in ``tests/browser/test_figures.py``.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import panels
from prefect_cache.panel.controller import Controller, Host

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = int(os.environ.get("PANEL_ROWS", "1000000"))
ENTRIES = int(os.environ.get("PANEL_ENTRIES", "1000"))


def anonymous() -> float:
    """Return the megabytes of memory that this process has for itself: mapped files do not count."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) / 1000
    return pytest.fail("the kernel does not tell")


def milliseconds(act: Callable[[], object], times: int = 15) -> float:
    """Return the median of some runs."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        act()
        taken.append(time.perf_counter() - started)
    return 1000 * statistics.median(taken)


@pytest.fixture(scope="module")
def trades(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """Ask for pages of a tall frame."""
    store = panels.tall(tmp_path_factory.mktemp("tall") / "store", ROWS)
    (entry,) = store.catalog().entries
    controller = Controller(Host(store, lambda _, name: name, {}))
    place = {"op": "page", "key": entry.digest, "file": entry.manifest.outputs[0].file}

    def ask(**words: object) -> dict[str, Any]:
        reply: dict[str, Any] = controller.handle(place | words)
        assert "error" not in reply, reply["error"]
        return reply

    return ask


def test_pages_are_quick_small_and_cost_no_memory(trades: Callable[..., dict[str, Any]], record_property: Any) -> None:
    """A page is there in milliseconds, in a few kilobytes, and 600 pages leave nothing behind."""
    trades(first=0)
    before = anonymous()
    for i in range(600):
        reply = trades(first=i * (ROWS - 50) // 600)
    grown = anonymous() - before
    taken = milliseconds(lambda: trades(first=ROWS // 2))
    size = len(json.dumps(reply).encode())
    record_property("page", f"{taken:.1f} ms, {size} bytes, {grown:.1f} MB after 600 pages")
    print(f"\npage: {taken:.1f} ms, {size:,} bytes, {grown:+.1f} MB after 600 pages of {ROWS:,} rows")
    assert size < 16_000
    assert taken < 150
    assert grown < 50


def test_filters_and_sorts(trades: Callable[..., dict[str, Any]]) -> None:
    """The first page of a filter or sort walks the column once; later pages do not."""
    told = []
    for words in ({"filter": "x0 > 150 and symbol = C"}, {"sort": "x1"}, {"sort": "id", "descending": True}):
        started = time.perf_counter()
        trades(**words)
        first = 1000 * (time.perf_counter() - started)
        later = milliseconds(lambda words=words: trades(**words, first=50))  # type: ignore[misc]
        told.append(f"{words}: {first:.0f} ms, then {later:.1f} ms")
        assert later < 150
    print("\n" + "\n".join(told))


def test_a_long_list(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The list is sorted, searched and scrolled in milliseconds, and its first window is small."""
    store = panels.many(tmp_path_factory.mktemp("many") / "store", ENTRIES)
    controller = Controller(Host(store, lambda _, name: name, {}))
    request = {"op": "list", "count": 60, "sort": "used", "descending": True}
    started = time.perf_counter()
    reply = controller.handle(request | {"fresh": True})
    cold = 1000 * (time.perf_counter() - started)
    fresh = milliseconds(lambda: controller.handle(request | {"fresh": True}), 5)
    sort = milliseconds(lambda: controller.handle(request | {"sort": "size"}))
    search = milliseconds(lambda: controller.handle(request | {"search": "table_00 price"}))
    size = len(json.dumps(reply).encode())
    print(f"\n{ENTRIES:,} entries: first {cold:.0f} ms, again {fresh:.0f} ms, {size:,} bytes")
    print(f"sort {sort:.1f} ms, search {search:.1f} ms")
    assert reply["total"] == ENTRIES
    assert size < 16_000
    assert sort < 200
    assert search < 200
