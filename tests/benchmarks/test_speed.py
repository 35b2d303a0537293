"""Restore, save, fingerprint and whole cells, against the peers and against physics.

Here they run once, on values of a few kilobytes, and check that every way gives the value back. Measured in
full, with a table and plots, by::

    python tests/benchmarks/run.py
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.values import KINDS, bytes_of, value
from benchmarks.ways import Way, clean, hashes, ways

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES = [float(size) for size in os.environ.get("BENCHMARK_MB", "0.02").split(",")]
"""Megabytes of the values."""

MEDIUM = 50
"""Megabytes from which the slowest way is measured once."""

LARGE = 500
"""Megabytes from which only the most common kinds are measured, and slow ways once."""

COMMON = ("numeric", "text", "nullable", "mixed")

WAYS = ways()


CASES = [
    pytest.param(size, kind, way, id=f"{size:g}MB-{kind}-{way.name}")
    for size in SIZES
    for kind in (KINDS if size < LARGE else COMMON)
    for way in WAYS
    if way.can(kind) and size <= way.largest
]
"""Size, kind and way of each measurement, those of one value side by side."""


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    """Return a folder on the disk that the store would be on."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_DIR")) as folder:
        yield Path(folder)


def rounds(size: float, way: Way | None = None) -> int:
    """Return how often to measure."""
    if way is not None and way.slow and size >= MEDIUM:
        return 1
    if size >= LARGE:
        return 3 if way is None or way.fast else 1
    if size >= MEDIUM:
        return 5 if way is None or way.fast else 3
    return 5 if size >= 1 else 1


@pytest.mark.parametrize(("size", "kind", "way"), CASES)
def test_save(benchmark: Any, size: float, kind: str, way: Way, disk: Path) -> None:
    """How long until the value is in a file."""
    frame = value(kind, size)
    benchmark.group = f"save {kind} {size:g} MB"
    benchmark.extra_info |= {"operation": "save", "kind": kind, "size": size, "way": way.name, "bytes": bytes_of(frame)}
    folder = disk / "saved"

    def ready() -> tuple[tuple[Any, Path], dict[str, Any]]:
        os.sync()  # else each way waits for the pages that the one before it has left to be written
        return (frame, clean(folder)), {}

    with way.ready():
        benchmark.pedantic(way.save, setup=ready, rounds=rounds(size, way))
    assert any(folder.iterdir())
    clean(folder)


@pytest.mark.parametrize(("size", "kind", "way"), CASES)
def test_restore(benchmark: Any, size: float, kind: str, way: Way, disk: Path) -> None:
    """How long until the value is back, its file in the page cache."""
    frame = value(kind, size)
    benchmark.group = f"restore {kind} {size:g} MB"
    benchmark.extra_info |= {"operation": "restore", "kind": kind, "size": size, "way": way.name}
    folder = clean(disk / "kept")
    with way.ready():
        way.save(frame, folder)
        warm = int(rounds(size, way) > 1)
        found = benchmark.pedantic(way.restore, args=(folder,), rounds=rounds(size, way), warmup_rounds=warm)
    # Whether it is the same to the bit is for the exactness table to say; peers lose dtypes.
    assert len(found) in (len(frame), frame.shape[1])
    del found
    clean(folder)


@pytest.mark.parametrize("name", hashes())
@pytest.mark.parametrize(
    ("size", "kind"), [(size, kind) for size in SIZES for kind in (KINDS if size < LARGE else COMMON)]
)
def test_fingerprint(benchmark: Any, size: float, kind: str, name: str) -> None:
    """How long until a value is told from every other."""
    frame = value(kind, size)
    benchmark.group = f"fingerprint {kind} {size:g} MB"
    benchmark.extra_info |= {
        "operation": "fingerprint",
        "kind": kind,
        "size": size,
        "way": name,
        "bytes": bytes_of(frame),
    }
    # A peer that takes seconds takes as many in the next round.
    often = size < MEDIUM or name in ("prefect_cache", "np.sum (limit)")
    times, warm = (rounds(size), int(size < LARGE)) if often else (1, 0)
    benchmark.pedantic(hashes()[name], args=(frame,), rounds=times, warmup_rounds=warm)
