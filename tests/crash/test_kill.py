"""Real processes, killed at random instants: what the store holds is whole, and nothing else is there."""

from __future__ import annotations

import json
import os
import random
import time
from typing import TYPE_CHECKING

import pytest

from crashing import FOREVER, KEYS, State, start, state, work_until_killed
from prefect_cache.store import Store

if TYPE_CHECKING:
    from pathlib import Path

MOST_CHANGES = 8
MOST_SECONDS = 0.03
"""A process is killed at most so long after one of its first changes began: in the midst of it or of a later one."""


def _kill_one(root: Path, journal: Path, seed: int) -> tuple[State, State]:
    """Let a process work and kill it; return what was before its last change and what might be after it."""
    journal.unlink(missing_ok=True)
    chance = random.Random(seed)
    changes, seconds = chance.randrange(1, MOST_CHANGES), chance.random() * MOST_SECONDS
    process = start(work_until_killed, root, journal, seed, dict(os.environ))
    while not (journal.exists() and journal.read_bytes().count(b"\n") > changes):
        assert process.is_alive()
        time.sleep(0.001)
    time.sleep(seconds)
    process.kill()
    process.join()
    lines = journal.read_bytes().split(b"\n")
    before, after = json.loads(lines[-2])
    return before, after


@pytest.mark.timeout(3600)
def test_processes_killed_while_they_change_the_store(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    kills = 400 if request.config.getoption("--long") else 40
    root = tmp_path / "store"
    changes = leftovers = 0
    for seed in range(kills):
        before, after = _kill_one(root, tmp_path / "journal", seed)
        changes += (tmp_path / "journal").read_bytes().count(b"\n")
        store = Store(root, FOREVER)
        found = state(store)
        for name in before.keys() | after.keys() | found.keys():
            assert found.get(name) in (before.get(name), after.get(name)), (seed, name)
        problems = store.check()
        assert all(problem.what.startswith("left by") for problem in problems)
        leftovers += len(problems)
        store.sweep()
        assert store.check() == []
        assert state(store) == found
    print(f"{kills} processes killed in {changes} changes; {leftovers} leftovers swept")  # shown by -s
    assert changes > kills
    assert 0 < len(state(Store(root))) <= KEYS + 3
    assert _bytes_below(root / "drafts") == 0


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*"))
