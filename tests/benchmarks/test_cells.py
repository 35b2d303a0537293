"""Whole cells: what a miss adds to the run, and how long a hit takes, through IPython's own ``run_cell``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

import prefect_cache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZES = [float(size) for size in os.environ.get("BENCHMARK_MB", "0.02").split(",")]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    """Return a shell with the extension, over a store of its own."""
    monkeypatch.setenv("PREFECT_CACHE_DIR", str(tmp_path / "store"))
    shell = InteractiveShell()
    shell.history_manager.enabled = False
    shell.run_line_magic("load_ext", "prefect_cache")
    shell.run_cell("import numpy as np, pandas as pd")
    yield shell
    shell.run_line_magic("unload_ext", "prefect_cache")


def cell(size: float, number: int, magic: str = "%%prefect_cache --quiet\n") -> str:
    """Return a cell that makes a frame of about so many megabytes; its number makes it another cell."""
    rows = max(int(size * 1e4), 8)
    return f"{magic}df = pd.DataFrame(np.arange({rows} * 12.0).reshape({rows}, 12) + {number})\ntotal = df[0].sum()"


def run(shell: InteractiveShell, source: str) -> None:
    """Run a cell; what it raises is raised."""
    shell.run_cell(source).raise_error()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("way", ["plain", "miss", "hit"])
def test_cell(benchmark: Any, shell: InteractiveShell, size: float, way: str) -> None:
    """The cell by itself, with its result stored, and restored."""
    benchmark.group = f"cell {size:g} MB"
    benchmark.extra_info |= {"operation": "cell", "kind": "numeric", "size": size, "way": way}
    run(shell, cell(size, -1))  # the first one loads what there is to load
    run(shell, cell(size, 0))
    numbers = iter(range(1, 1000))
    sources = {
        "plain": lambda: cell(size, next(numbers), magic=""),
        "miss": lambda: cell(size, next(numbers)),
        "hit": lambda: cell(size, 0),
    }
    benchmark.pedantic(run, setup=lambda: ((shell, sources[way]()), {}), rounds=5 if size >= 1 else 1)
    if way != "plain":
        assert prefect_cache.last.status == way
