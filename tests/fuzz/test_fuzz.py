"""Random notebooks, lived plain and cached, cannot be told apart; nor can those that once could."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FOUND = sorted((HERE / "found").glob("*.txt"))
NOTEBOOKS = 24
LONG_NOTEBOOKS = 2000


def run(*arguments: object) -> None:
    """Run the fuzzer in a process of its own: it forks, and pytest's workers have threads."""
    ran = subprocess.run(
        [sys.executable, HERE / "run.py", *map(str, arguments)], check=False, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout[-20000:] + ran.stderr[-4000:]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("block", [0, 1])
def test_random_notebooks_are_the_same_plain_and_cached(block: int, tmp_path: Path) -> None:
    """After every cell: names, values, aliasing, displays, errors, process state and files."""
    run("--seed", 1_000_000 + block * NOTEBOOKS, "--notebooks", NOTEBOOKS, "--workers", 1, "--keep", tmp_path)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_many_random_notebooks_are_the_same_plain_and_cached(tmp_path: Path) -> None:
    """The same, two thousand times."""
    run("--seed", 0, "--notebooks", LONG_NOTEBOOKS, "--workers", 2, "--keep", tmp_path)


@pytest.mark.timeout(900)
def test_what_was_found_once_stays_right() -> None:
    """Each history in ``found/`` once told the two apart."""
    if FOUND:
        run("--replay", *FOUND)
