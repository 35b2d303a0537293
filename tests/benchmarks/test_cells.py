"""Whole cells in a real kernel: the cell by itself, what a miss adds to it, and how long a hit takes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kernels import Kernel

SIZES = [float(size) for size in os.environ.get("BENCHMARK_MB", "0.02").split(",")]


def cell(size: float, number: int, magic: str = "%%prefect_cache\n") -> str:
    """Return a cell that makes a frame of about so many megabytes; its number makes it another cell."""
    rows = max(int(size * 1e4), 8)
    return f"{magic}df = pd.DataFrame(np.arange({rows} * 12.0).reshape({rows}, 12) + {number})\ntotal = df[0].sum()"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("way", ["plain", "miss", "hit"])
def test_cell(benchmark: Any, kernel: Kernel, size: float, way: str) -> None:
    """From the request to the reply, the kernel warm."""
    benchmark.group = f"cell {size:g} MB"
    benchmark.extra_info |= {"operation": "cell", "kind": "frame of 12 columns", "size": size, "way": way}
    kernel.run("%load_ext prefect_cache\nimport numpy as np, pandas as pd")
    kernel.run(cell(size, -1))  # the first one loads what there is to load
    kernel.run(cell(size, 0))
    numbers = iter(range(1, 1000))
    sources = {
        "plain": lambda: cell(size, next(numbers), magic=""),
        "miss": lambda: cell(size, next(numbers)),
        "hit": lambda: cell(size, 0),
    }
    benchmark.pedantic(kernel.run, setup=lambda: ((sources[way](),), {}), rounds=5 if size >= 1 else 1)
    if way != "plain":
        assert kernel.run("import prefect_cache; prefect_cache.last.status").result == repr(way)
