"""Many processes on one store, evicting in between: each cell runs once, and nobody reads anything wrong."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from crashing import hammer, start, state
from prefect_cache.store import Store

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.timeout(600)
def test_neighbours_run_each_key_once(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    workers, keys, seconds = (8, 50, 60.0) if request.config.getoption("--long") else (4, 10, 5.0)
    until = time.time() + seconds
    log = tmp_path / "log"
    arguments = (tmp_path / "store", log)
    running = [start(hammer, *arguments, seed, keys, until, dict(os.environ)) for seed in range(workers)]
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0] * workers

    store = Store(tmp_path / "store")
    counts = Counter(log.read_text().splitlines())
    held = Counter(state(store).values())
    for number in range(keys):
        ran, evicted = counts[f"ran {number}"], counts[f"evicted {number}"]
        assert ran - evicted == held[f"{number}"], number
    totals = Counter(line.split()[0] for line in counts.elements())
    print(f"{workers} processes, {keys} keys, {seconds:.0f} s: {dict(totals)}")  # shown by -s
    assert totals["hit"] > totals["ran"] >= keys
    assert totals["waited"]
    assert store.check() == []
    assert list((tmp_path / "store" / "drafts").iterdir()) == []
