"""Whole cells in a real kernel: the cell by itself, what a miss adds to it, how long a hit takes, and a fresh one."""

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


SMALL = "%%prefect_cache\nx = [1, 2.5, 'three']\nx"
OVERHEAD = ("load the extension", "the first hit after it", "a hit", "the same cell, plain")


@pytest.mark.parametrize("way", OVERHEAD)
def test_overhead(benchmark: Any, start_kernel: Any, way: str) -> None:
    """What a person waits for who opens yesterday's notebook: kernels that have loaded nothing yet, and small values.

    From the request to the reply. The kernel's own part is that of the plain cell.
    """
    benchmark.group = "overhead"
    benchmark.extra_info |= {"operation": "overhead", "kind": "a list", "size": 0.0, "way": way}
    compiled = {"PYTHONDONTWRITEBYTECODE": ""}  # as installed; else imports take thrice the time
    first = start_kernel(cold=True, env=compiled)
    first.run("%load_ext prefect_cache")
    first.run(SMALL)
    first.run(SMALL)

    def fresh() -> tuple[tuple[Kernel, str], dict[str, Any]]:
        kernel = start_kernel(cold=True, env=compiled)
        kernel.run("1 + 1")  # the kernel's own first cell
        if way == OVERHEAD[0]:
            return (kernel, "%load_ext prefect_cache"), {}
        kernel.run("%load_ext prefect_cache")
        return (kernel, SMALL), {}

    def same() -> tuple[tuple[Kernel, str], dict[str, Any]]:
        return (first, SMALL if way == OVERHEAD[2] else SMALL.partition("\n")[2]), {}

    rounds = 1 if SIZES == [0.02] else 9
    found = benchmark.pedantic(
        lambda kernel, source: (kernel, kernel.run(source)),
        setup=fresh if way in OVERHEAD[:2] else same,
        rounds=rounds,
    )
    if way in OVERHEAD[1:3]:
        assert found[0].run("import prefect_cache; prefect_cache.last.status").result == "'hit'"
        assert found[0].value("'prefect' in __import__('sys').modules or 'pandas' in __import__('sys').modules") == (
            found[0] is first
        )
