"""What the store costs when it is large: a hit, lists, totals, a plan; as Python, as a magic, as a command.

Some thousands of entries here, so that every run of the tests walks through; in full with ``STORE_ENTRIES=100000``.
What is asserted is CPU time, and twice of what a quiet machine takes at most: a busy one lengthens that as well.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

import panels
from prefect_cache import report
from prefect_cache.panel.controller import Controller, Host
from prefect_cache.store.catalog import INDEX

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from prefect_cache.store import Store

ENTRIES = int(os.environ.get("STORE_ENTRIES", "2000"))
MOST = 2.0
"""Seconds of CPU time that anything may take which looks at the whole store; half of that on a quiet machine."""

PRUNED = "--max-size", "700MB" if ENTRIES > 50_000 else "10MB"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A large store whose index is made."""
    store = panels.many(tmp_path_factory.mktemp("large") / "store", ENTRIES)
    told("making the index", store.usage, most=ENTRIES / 500)
    return store


def told(name: str, act: Callable[[], Any], *, most: float = MOST, times: int = 1) -> Any:
    """Return what an act returns; say what it took, and fail where its CPU time is over a bound."""
    walls, cpus = [], []
    for _ in range(times):
        wall, cpu = time.perf_counter(), _cpu()
        answer = act()
        walls.append(time.perf_counter() - wall)
        cpus.append(_cpu() - cpu)
    print(f"\n{name}, {ENTRIES:,} entries: {1000 * min(walls):,.1f} ms, {1000 * min(cpus):,.1f} ms of CPU", end="")
    assert min(cpus) < most, name
    return answer


def _cpu() -> float:
    """Return the seconds that this process and those that it ran have taken."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def test_a_hit_costs_the_same_in_a_store_of_any_size(large: Store, tmp_path: Path) -> None:
    """What a hit asks of the store: its entry, whole, and a note that it was used."""
    small = panels.many(tmp_path / "small", 50)

    def hit(store: Store) -> float:
        taken = []
        for _ in range(50):
            started = time.process_time()
            (entry,) = store.variants(panels.digest(b"many 7"))
            store.check_files(entry)
            store.touch(entry)
            taken.append(time.process_time() - started)
        return min(taken)

    few, many = hit(small), hit(large)
    print(f"\na hit's part of the store: {1000 * few:.2f} ms among 50 entries, {1000 * many:.2f} ms among {ENTRIES:,}")
    assert many < 2 * few + 0.0005


def test_python(large: Store) -> None:
    """The store's own methods."""
    catalog = told("catalog()", large.catalog, times=3)
    assert catalog.total == len(catalog.entries) == ENTRIES
    assert catalog.entries[0].last_used >= catalog.entries[-1].last_used
    fifty = told("catalog(50, sort='size')", lambda: large.catalog(50, sort="size"), times=3)
    assert len(fifty.entries) == 50
    assert fifty.total == ENTRIES
    assert told("usage()", large.usage, times=3).entries == ENTRIES
    assert told("plan()", large.plan, times=3).evict
    told("freed_by() of all", lambda: large.freed_by(e.address for e in large.briefs()), times=3)


def test_magics(large: Store) -> None:
    """What `%prefect_cache list`, `stats` and `prune --dry-run` do."""
    for words in ([], ["table_00", "price", "size<1GB"]):
        table = told(
            f"list {' '.join(words)}", lambda words=words: report.entries(large.briefs(), words, "size", ""), times=3
        )
        assert len(table.rows) == min(50, ENTRIES)
    assert told("stats", lambda: report.stats([], large.usage()), times=3)
    assert told("prune --dry-run", lambda: report.plan(large.plan()), times=3).rows


def test_the_panel(large: Store) -> None:
    """A list of the panel, sorted and searched."""
    controller = Controller(Host(large, lambda _, name: name, {}))
    request = {"op": "list", "count": 60, "sort": "used", "descending": True}
    assert told("panel, read again", lambda: controller.handle(request | {"fresh": True}))["total"] == ENTRIES
    told("panel, sorted", lambda: controller.handle(request | {"sort": "size"}), times=3)
    told("panel, searched", lambda: controller.handle(request | {"search": "table_00 price"}), times=3)


@pytest.mark.parametrize(
    "words", [("ls",), ("ls", "--sort", "name"), ("stats",), ("prune", "--dry-run", *PRUNED)], ids=" ".join
)
def test_commands(large: Store, words: tuple[str, ...]) -> None:
    """Commands, with what it takes to start Python."""
    command = [sys.executable, "-m", "prefect_cache", *words, "--json", "--store", str(large.root)]
    done = told(
        " ".join(words), lambda: subprocess.run(command, check=True, capture_output=True), times=2, most=2 * MOST
    )
    assert json.loads(done.stdout)


def test_the_index_may_be_lost_at_any_time(large: Store, tmp_path: Path) -> None:
    """It is made again from the entries, and says the same."""
    kept = tmp_path / INDEX
    before = sorted(large.briefs())
    shutil.copy(large.root / INDEX, kept)
    (large.root / INDEX).unlink()
    again = told("briefs() without an index", large.briefs, most=ENTRIES / 500)
    assert sorted(again) == before
