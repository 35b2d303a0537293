"""Minimum, maximum, distinct values and a histogram of a mapped column, in one walk by blocks.

Distinct values are counted exactly up to sixteen thousand; beyond, the smallest hashes estimate them
(a "k minimum values" sketch, within some 2 percent). A walk looks at 256 thousand rows at a time, asks
`stop` between them, and keeps some hundred kilobytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prefect_cache.preview.text import is_numeric, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SKETCH = 16_384
"""Hashes that are kept; as many distinct values are counted exactly."""

FEW = 256
"""Distinct values up to which the most frequent ones are told."""

BINS = 24
"""Bars of a histogram."""

BLOCK_ROWS = 1 << 18
BLOCK_BYTES = 4 * 2**20
FREQUENT = 8
"""Values of which the most frequent ones are told, where there are few."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a column holds; texts are as in the pages."""

    missing: int
    minimum: str | None = None
    maximum: str | None = None
    distinct: int | None = None
    exact: bool = True
    histogram: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    """What the bars stand for where they are values; empty where they are equal steps from minimum to maximum."""


def column_statistics(arrays: Sequence[pa.Array], stop: Callable[[], bool] = lambda: False) -> Statistics | None:
    """Return what a column holds, None where `stop` ended the walk."""
    if not arrays or pa.types.is_null(arrays[0].type):
        return Statistics(missing=sum(len(a) for a in arrays))
    first = _Walk(arrays[0].type)
    for block in _blocks(arrays):
        if stop():
            return None
        first.look(block)
    bars = _Bars(first)
    if bars.wanted:
        for block in _blocks(arrays):
            if stop():
                return None
            bars.look(block)
    return Statistics(
        missing=first.missing,
        minimum=first.text(first.low),
        maximum=first.text(first.high),
        distinct=min(first.sketch.estimate, first.there) if first.sketch.usable else None,
        exact=first.sketch.exact,
        histogram=bars.counts,
        labels=bars.labels,
    )


class _Walk:
    """Missing values, bounds and distinct values."""

    def __init__(self, kind: pa.DataType) -> None:
        self.kind = kind
        self.missing = 0
        self.there = 0
        self.low: pa.Scalar | None = None
        self.high: pa.Scalar | None = None
        self.sketch = Sketch()

    def look(self, block: pa.Array) -> None:
        floating = pa.types.is_floating(block.type)
        valid = block.drop_null() if block.null_count else block
        if floating:
            holes = pc.is_nan(valid)
            if pc.any(holes).as_py():
                valid = valid.filter(pc.invert(holes))
        self.missing += len(block) - len(valid)
        self.there += len(valid)
        if len(valid):
            self.bounds(valid)
            self.sketch.add(valid)

    def bounds(self, valid: pa.Array) -> None:
        if isinstance(valid, pa.DictionaryArray):
            valid = valid.dictionary.take(pc.unique(valid.indices))
        try:
            found = _bounds(valid)
        except pa.ArrowNotImplementedError:  # lists, structs: values without an order
            return
        low, high = found["min"], found["max"]
        self.low = low if self.low is None or pc.less(low, self.low).as_py() else self.low
        self.high = high if self.high is None or pc.greater(high, self.high).as_py() else self.high

    def text(self, bound: pa.Scalar | None) -> str | None:
        return None if bound is None else texts(_one(bound))[0]


def _bounds(valid: pa.Array) -> pa.StructScalar:
    if pa.types.is_duration(valid.type):  # min_max knows all times but these
        found = pc.min_max(valid.view(pa.int64()))
        return pa.scalar({k: found[k].cast(valid.type) for k in ("min", "max")})
    return pc.min_max(valid)


def _one(scalar: pa.Scalar) -> pa.Array:
    """Return an array of one value without passing through Python, where nanoseconds would be lost."""
    return pa.repeat(scalar, 1)


def _temporal(kind: pa.DataType) -> bool:
    return bool(pa.types.is_temporal(kind))


class Sketch:
    """How many different values there are: the smallest hashes tell."""

    def __init__(self, size: int = SKETCH) -> None:
        self.size = size
        self.hashes = np.empty(0, np.uint64)
        self.usable = True
        self.exact = True

    def add(self, valid: pa.Array) -> None:
        """Look at values, none of which is missing."""
        if not self.usable:
            return
        hashes = hashes_of(valid)
        if hashes is None:
            self.usable = False
            return
        if not self.exact:
            hashes = hashes[hashes < self.hashes[-1]]
        both = np.unique(np.concatenate([self.hashes, hashes]))
        self.exact = self.exact and len(both) <= self.size
        self.hashes = both[: self.size]

    @property
    def estimate(self) -> int:
        """Distinct values."""
        if self.exact:
            return len(self.hashes)
        share = (float(self.hashes[-1]) + 1.0) / 2.0**64
        return round((self.size - 1) / share)


class _Bars:
    """A histogram: equal steps between the bounds, or the most frequent of few values."""

    def __init__(self, walk: _Walk) -> None:
        self.walk = walk
        self.values: dict[str, int] = {}
        self.places: dict[str, float] = {}
        self.bars = np.zeros(BINS, np.int64)
        distinct = walk.sketch.estimate if walk.sketch.usable and walk.sketch.exact else SKETCH
        few = distinct <= FEW
        self.scale = is_numeric(walk.kind) or (_temporal(walk.kind) and not pa.types.is_interval(walk.kind))
        # Eight ratings in 24 steps would be a comb with gaps: few numbers are shown one by one.
        self.stepped = self.scale and walk.low is not None and distinct > BINS
        self.wanted = walk.low is not None and (self.stepped or few)
        if self.stepped:
            self.high = float(_positions(_one(walk.high), walk.low)[0])
            self.stepped = self.wanted = bool(np.isfinite(self.high))

    def look(self, block: pa.Array) -> None:
        if self.stepped:
            places = _positions(block.drop_null(), self.walk.low)
            places = places[np.isfinite(places)]
            self.bars += np.histogram(places, BINS, (0.0, self.high or 1.0))[0]
            return
        counted = pc.value_counts(block.drop_null())
        names = [str(name) for name in texts(counted.field("values"))]
        for name, count in zip(names, counted.field("counts").to_pylist(), strict=True):
            self.values[name] = self.values.get(name, 0) + count
        if self.scale:
            self.places |= dict(zip(names, _positions(counted.field("values"), self.walk.low), strict=True))

    @property
    def counts(self) -> tuple[int, ...]:
        if self.stepped:
            return tuple(int(n) for n in self.bars)
        return tuple(count for _, count in self._frequent())

    @property
    def labels(self) -> tuple[str, ...]:
        return () if self.stepped else tuple(name for name, _ in self._frequent())

    def _in_order(self) -> list[str]:
        places = sorted(self.places.items(), key=lambda item: item[1])
        return [name for name, _ in places]

    def _frequent(self) -> list[tuple[str, int]]:
        """Return numbers in their own order; other values by how many they are."""
        if self.scale and len(self.values) <= BINS:
            return [(name, self.values[name]) for name in self._in_order()]
        return sorted(self.values.items(), key=lambda item: (-item[1], item[0]))[:FREQUENT]


def _positions(array: pa.Array, low: pa.Scalar) -> np.ndarray:
    """Return how far values lie above the lowest; the distance and not the value, which may not fit into a float."""
    kind = array.type
    if pa.types.is_temporal(kind) or pa.types.is_integer(kind):
        bits = {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[kind.bit_width]
        bits = kind if pa.types.is_unsigned_integer(kind) else bits
        base = _one(low).view(bits).to_numpy().astype(np.uint64)[0]
        # Differences of 64-bit integers never leave 64 bits without a sign.
        distance: np.ndarray = array.view(bits).to_numpy().astype(np.uint64) - base
        return distance.astype(np.float64)
    values = np.asarray(array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)
    return values - float(low.as_py())


def _blocks(arrays: Sequence[pa.Array]) -> Iterator[pa.Array]:
    for array in arrays:
        size = sum(b.size for b in array.buffers() if b is not None) / max(1, len(array))
        step = int(min(BLOCK_ROWS, max(256, BLOCK_BYTES / max(size, 1e-9))))
        for at in range(0, len(array), step):
            yield array.slice(at, step)


def hashes_of(valid: pa.Array) -> np.ndarray | None:
    """Return 64 bits for each value, equal for equal values; None for types that have no such hash here."""
    kind = valid.type
    if isinstance(valid, pa.DictionaryArray):
        return hashes_of(valid.dictionary.take(pc.unique(valid.indices)))
    if pa.types.is_boolean(kind):
        return _mixed(np.asarray(valid.to_numpy(zero_copy_only=False), np.uint64))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _text_hashes(valid.cast(pa.large_string()).cast(pa.large_binary()))
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _text_hashes(valid.cast(pa.large_binary()))
    if pa.types.is_floating(kind):
        # Adding zero makes one value of 0.0 and -0.0.
        return _mixed((valid.cast(pa.float64()).to_numpy() + 0.0).view(np.uint64))
    if pa.types.is_integer(kind) or (pa.types.is_temporal(kind) and not pa.types.is_interval(kind)):
        bits = {8: pa.uint8(), 16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}[kind.bit_width]
        return _mixed(valid.view(bits).to_numpy().astype(np.uint64))
    if pa.types.is_decimal(kind):
        return _text_hashes(valid.cast(pa.string()).cast(pa.large_binary()))
    return None


def _mixed(values: np.ndarray) -> np.ndarray:
    """Return splitmix64 of each value: near values end far from each other."""
    with np.errstate(over="ignore"):
        values = (values + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: np.ndarray = values ^ (values >> np.uint64(31))
        return mixed


def _text_hashes(array: pa.Array) -> np.ndarray:
    """Return a polynomial hash of each value's bytes, all at once: differences of one running sum.

    With an odd base every power has an inverse modulo 2**64, which moves each difference back to its own start.
    """
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    body = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]] if data is not None else np.empty(0, np.uint8)
    at = ends - ends[0]
    base, inverse = np.uint64(0x100000001B3), np.uint64(pow(0x100000001B3, -1, 2**64))
    with np.errstate(over="ignore"):
        powers = _powers(base, len(body))
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum((body + np.uint64(1)) * powers, dtype=np.uint64)])
        back = _powers(inverse, len(body) + 1)
        return _mixed((sums[at[1:]] - sums[at[:-1]]) * back[at[:-1]])


def _powers(base: np.uint64, count: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        powers = np.full(count, base, np.uint64)
        powers[:1] = 1
        return np.cumprod(powers, dtype=np.uint64)
