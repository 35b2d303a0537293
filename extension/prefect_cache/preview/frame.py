"""One stored frame, opened where it lies: pages, filters and sorts of a mapped Arrow file.

Nothing is ever read as a whole. A page slices the mapped columns; a filter walks them in blocks and keeps
one bit for each row; a sort keeps the row numbers that it can show. So a frame of a gigabyte costs the
kernel a few megabytes, and they are given back when the preview is closed.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prefect_cache.codecs.mapping import whole
from prefect_cache.codecs.parts import JOINT
from prefect_cache.errors import Damaged, UsageProblem
from prefect_cache.model import Column, Page
from prefect_cache.preview import filters
from prefect_cache.preview.statistics import Statistics, column_statistics
from prefect_cache.preview.text import CELL, dtype_text, is_numeric, shorten, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from prefect_cache.model import Entry, Json, Output

PAGE = 50
"""Rows of a page."""

WINDOW = 12
"""Columns of a page, unless asked for otherwise."""

PAGE_BYTES = 56_000
"""A page's text is cut so that its message stays below 64 kB, however wide the cells are."""

SORT_ALL = 1_000_000
"""Frames of at most so many rows are sorted whole."""

SORT_FIRST = 10_000
"""Of longer frames a sort shows so many rows: the first ones in its order."""

BLOCK_ROWS = 1_000_000
BLOCK_BYTES = 8 * 2**20
REMEMBERED = 4
WHOLE_CELL = 20_000
SHORTEST_CELL = 8


@dataclass(frozen=True, slots=True)
class Selection:
    """The rows that a filter keeps: one bit for each row, in blocks, with what each block holds."""

    starts: np.ndarray
    bits: tuple[np.ndarray, ...]
    ends: np.ndarray
    """Kept rows up to the end of each block."""

    @property
    def total(self) -> int:
        """Kept rows."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def rows(self, first: int, count: int) -> np.ndarray:
        """Return the numbers of some kept rows; touches only the blocks that hold them."""
        found: list[np.ndarray] = []
        block = int(np.searchsorted(self.ends, first, side="right"))
        while count > 0 and block < len(self.bits):
            before = int(self.ends[block - 1]) if block else 0
            inside = np.flatnonzero(np.unpackbits(self.bits[block]))[first - before : first - before + count]
            found.append(inside + self.starts[block])
            first, count, block = first + len(inside), count - len(inside), block + 1
        return np.concatenate(found) if found else np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class _Order:
    """The first rows in the order of a column, and how many rows there are to sort."""

    rows: np.ndarray
    total: int


class Preview:
    """One Arrow file of an entry; safe to use from several threads.

    Parameters
    ----------
    path
        The file: any uncompressed Arrow IPC file.
    meta
        What the codec said of the value: names and dtypes of its columns, where it knows better than Arrow.
    size
        Bytes that the file must have. A shorter one is never mapped: to touch what is beyond its end kills the process.
    """

    def __init__(self, path: Path, meta: Mapping[str, Json] | None = None, size: int | None = None) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._batches = _open(path, size)
        self._schema = schema = self._batches[0].schema if self._batches else _schema(path)
        self._fields = _shown_first(schema)
        self._labels = _labels(schema, self._fields, meta or {})
        self._starts = np.cumsum([0, *(len(b) for b in self._batches)])
        self._selections: OrderedDict[str, Selection] = OrderedDict()
        self._orders: OrderedDict[tuple[str, str, bool], _Order] = OrderedDict()

    @classmethod
    def of(cls, entry: Entry, output: Output) -> Preview:
        """Return the preview of one output of an entry."""
        return cls(entry.path / output.file, output.meta, output.size)

    @property
    def total(self) -> int:
        """Rows of the frame."""
        return int(self._starts[-1])

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns, an index first."""
        return self._labels

    def page(
        self,
        first: int = 0,
        count: int = PAGE,
        *,
        columns: tuple[int, int] = (0, WINDOW),
        filter: str = "",  # noqa: A002 - the word that people know
        sort: str = "",
        descending: bool = False,
    ) -> Page:
        """Return some rows and columns; UsageProblem says what cannot be shown and why."""
        with self._lock:
            rows, total, note = self._rows(first, count, filter.strip(), sort, descending=descending)
            window = range(len(self._fields))[columns[0] : columns[0] + columns[1]]
            shown = _capped(self._texts(rows, window))
            return Page(
                columns=tuple(self._labels[i] for i in window[: len(shown[0]) if shown else None]),
                rows=shown,
                first=first,
                total=total,
                total_columns=len(self._fields),
                note=note,
                numbers=tuple(int(n) for n in rows),
            )

    def cell(self, row: int, column: int) -> str | None:
        """Return one value in full, or its first 20,000 characters."""
        if not (0 <= row < self.total and 0 <= column < len(self._fields)):
            msg = "that cell is not in the frame"
            raise UsageProblem(msg)
        return texts(self._take(np.array([row]), self._fields[column]), WHOLE_CELL)[0]

    def nulls(self, column: int) -> int | None:
        """Return the missing values of a column where its validity says so at once; None where NaN may hide."""
        arrays = self._arrays(self._fields[column])
        if any(pa.types.is_floating(a.type) for a in arrays):
            return None
        return sum(int(a.null_count) for a in arrays)

    def statistics(self, column: int, stop: Callable[[], bool] = lambda: False) -> Statistics | None:
        """Return minimum, maximum, distinct values and a histogram of a column; None where `stop` said so."""
        return column_statistics(self._arrays(self._fields[column]), stop)

    def blocks(self) -> Iterator[list[pa.Array]]:
        """Yield all columns of one block of rows after another; the first also where there are no rows."""
        if not self.total:
            yield [_storage(pa.array([], self._type(at))) for at in self._fields]
        for _, batch in self._blocks():
            yield [_storage(batch.column(at)) for at in self._fields]

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._batches = []
            self._starts = np.zeros(1, np.int64)
            self._selections.clear()
            self._orders.clear()

    def _rows(self, first: int, count: int, words: str, sort: str, *, descending: bool) -> tuple[np.ndarray, int, str]:
        """Return the numbers of the rows of a page, how many there are to page through, and what to say of it."""
        selection = self._selection(words) if words else None
        total = self.total if selection is None else selection.total
        if first and first >= total:
            msg = f"there is no row {first + 1:,}: the {'filter keeps' if words else 'frame has'} {total:,} rows"
            raise UsageProblem(msg)
        if sort:
            order = self._order(words, selection, sort, descending=descending)
            return _sorted_page(order, first, count, sort)
        if selection is not None:
            return selection.rows(first, count), total, ""
        return np.arange(first, min(first + count, total)), total, ""

    def _selection(self, words: str) -> Selection:
        if words not in self._selections:
            self._selections[words] = self._select(filters.parse(words))
            _forget_oldest(self._selections)
        self._selections.move_to_end(words)
        return self._selections[words]

    def _select(self, conditions: tuple[filters.Condition, ...]) -> Selection:
        names = [c.name for c in self._labels]
        tests = []
        for condition in conditions:
            at = self._fields[filters.find_column(condition.column, names)]
            tests.append((at, filters.predicate(condition, self._type(at))))
        starts, bits, counts = [], [], []
        for start, batch in self._blocks():
            mask = np.ones(len(batch), bool)
            for at, test in tests:
                mask &= _as_mask(test, batch.column(at))
            starts.append(start)
            bits.append(np.packbits(mask))
            counts.append(int(mask.sum()))
        return Selection(np.array(starts, np.int64), tuple(bits), np.cumsum(counts, dtype=np.int64))

    def _order(self, words: str, selection: Selection | None, sort: str, *, descending: bool) -> _Order:
        key = (words, sort, descending)
        if key not in self._orders:
            at = self._fields[filters.find_column(sort, [c.name for c in self._labels])]
            try:
                self._orders[key] = self._sorted(at, selection, descending=descending)
            except (pa.ArrowNotImplementedError, pa.ArrowTypeError):
                msg = f"a column of {dtype_text(self._type(at))} has no order to sort {sort!r} by"
                raise UsageProblem(msg) from None
            _forget_oldest(self._orders)
        self._orders.move_to_end(key)
        return self._orders[key]

    def _sorted(self, at: int, selection: Selection | None, *, descending: bool) -> _Order:
        """Return the rows in a column's order: all of a short frame, the first ones of a long one.

        Blocks are sorted one by one, each after what cannot be among the first rows has been
        dropped from it, so that a long frame costs little more than one pass over the column.
        """
        total = self.total if selection is None else selection.total
        wanted = total if total <= SORT_ALL else SORT_FIRST
        best, rows = pa.array([], _sortable(self._type(at))), np.empty(0, np.int64)
        for block, (start, batch) in enumerate(self._blocks()):
            values = _to_sortable(batch.column(at))
            numbers = np.arange(start, start + len(batch), dtype=np.int64)
            if selection is not None:
                keep = np.unpackbits(selection.bits[block], count=len(batch)).astype(bool)
                values, numbers = values.filter(pa.array(keep)), numbers[keep]
            if total > SORT_ALL and len(best) >= wanted:
                values, numbers = _better(values, numbers, best[-1], descending=descending)
            if len(values):
                best, rows = _merged(best, rows, values, numbers, wanted, descending=descending)
        return _Order(rows, total)

    def _type(self, at: int) -> pa.DataType:
        kind = self._schema.field(at).type
        return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind

    def _arrays(self, at: int) -> list[pa.Array]:
        return [_storage(b.column(at)) for b in self._batches]

    def _blocks(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield first row and slice of blocks that are short enough to be worked on at once.

        The blocks of one frame are the same for every filter and sort: those of the whole frame.
        """
        for start, batch in zip(self._starts, self._batches, strict=False):
            step = _block_rows(batch)
            for at in range(0, len(batch), step):
                yield int(start) + at, batch.slice(at, step)

    def _texts(self, rows: np.ndarray, window: range) -> list[list[str | None]]:
        shown = [texts(self._take(rows, self._fields[i])) for i in window]
        return [list(row) for row in zip(*shown, strict=True)] if shown else [[] for _ in rows]

    def _take(self, rows: np.ndarray, at: int) -> pa.Array:
        """Return a column's values at some rows, in the order of the rows."""
        if len(rows) and len(self._batches) == 1 and rows[-1] - rows[0] == len(rows) - 1 and _consecutive(rows):
            return _storage(self._batches[0].column(at)).slice(int(rows[0]), len(rows))
        pieces, places = [], []
        for number, batch in enumerate(self._batches):
            inside = np.flatnonzero((rows >= self._starts[number]) & (rows < self._starts[number + 1]))
            if len(inside):
                pieces.append(_storage(batch.column(at)).take(pa.array(rows[inside] - self._starts[number])))
                places.append(inside)
        if not pieces:
            return pa.array([], self._type(at))
        back = np.argsort(np.concatenate(places), kind="stable")
        return pa.chunked_array(pieces).combine_chunks().take(pa.array(back))


def _open(path: Path, size: int | None) -> list[pa.RecordBatch]:
    try:
        found = path.stat().st_size
        if size is not None and found != size:
            msg = f"{path.name} has {found:,} bytes and should have {size:,}"
            raise Damaged(msg)
        reader = _reader(path)
        return [reader.get_batch(i) for i in range(reader.num_record_batches)]
    except (pa.ArrowInvalid, pa.ArrowSerializationError) as error:
        msg = f"{path.name} cannot be read: {error}"
        raise Damaged(msg) from error
    except FileNotFoundError as error:
        msg = f"{path.name} is gone"
        raise Damaged(msg) from error


def _reader(path: Path) -> pa.RecordBatchFileReader:
    """Open a file, with what it shares with its parts (``codecs.parts``)."""
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    if JOINT in (reader.schema.metadata or {}):
        return pa.ipc.open_file(pa.py_buffer(whole(path)))
    return reader


def _schema(path: Path) -> pa.Schema:
    return _reader(path).schema


def _shown_first(schema: pa.Schema) -> list[int]:
    """Return the places of the columns, an index's first."""
    index = [i for i, name in enumerate(schema.names) if name.startswith("__index_level_")]
    return index + [i for i in range(len(schema.names)) if i not in set(index)]


def _labels(schema: pa.Schema, fields: list[int], meta: Mapping[str, Json]) -> tuple[Column, ...]:
    """Return what the columns are called: the codec's own words where it has some, else Arrow's."""
    told = meta.get("columns")
    known: dict[str, str] = {}
    if isinstance(told, list):
        known = {str(c["name"]): str(c["dtype"]) for c in told if isinstance(c, dict) and "name" in c and "dtype" in c}
    index = _index_names(schema)
    found = []
    for at in fields:
        name, kind = schema.field(at).name, schema.field(at).type
        label = index.get(name, name)
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        found.append(Column(label, known.get(name) or dtype_text(kind), is_numeric(kind)))
    return tuple(found)


def _index_names(schema: pa.Schema) -> dict[str, str]:
    """Return the names of the index levels, from pandas' own metadata where the file has some."""
    levels = [n for n in schema.names if n.startswith("__index_level_")]
    told = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
    names = {str(c.get("field_name")): c.get("name") for c in told.get("columns", [])}
    return {n: str(names[n]) if names.get(n) is not None else _index_label(n, len(levels)) for n in levels}


def _index_label(name: str, levels: int) -> str:
    return "index" if levels == 1 else f"index {name.removeprefix('__index_level_').removesuffix('__')}"


def _as_mask(test: filters.Predicate, array: pa.Array) -> np.ndarray:
    try:
        found = pc.fill_null(test(_storage(array)), fill_value=False)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        msg = f"a column of {dtype_text(array.type)} cannot be compared so"
        raise UsageProblem(msg) from error
    return cast("np.ndarray", found.to_numpy(zero_copy_only=False))


def _sortable(kind: pa.DataType) -> pa.DataType:
    return kind.index_type if pa.types.is_dictionary(kind) else kind


def _to_sortable(array: pa.Array) -> pa.Array:
    """Return what sorts as the values do: a categorical's codes, as pandas sorts it."""
    array = _storage(array)
    return array.indices if isinstance(array, pa.DictionaryArray) else array


def _storage(array: pa.Array) -> pa.Array:
    return array.storage if isinstance(array, pa.ExtensionArray) else array


def _better(
    values: pa.Array, numbers: np.ndarray, worst: pa.Scalar, *, descending: bool
) -> tuple[pa.Array, np.ndarray]:
    """Drop what sorts after the worst of the best rows; equal values lose too, since theirs come later."""
    if not worst.is_valid or (pa.types.is_floating(worst.type) and worst.as_py() != worst.as_py()):
        return values, numbers
    kernel = pc.greater if descending else pc.less
    keep = pc.fill_null(kernel(values, worst), fill_value=False)
    return values.filter(keep), numbers[keep.to_numpy(zero_copy_only=False)]


def _merged(
    best: pa.Array, rows: np.ndarray, values: pa.Array, numbers: np.ndarray, wanted: int, *, descending: bool
) -> tuple[pa.Array, np.ndarray]:
    """Return the first rows of two lots; Arrow's sort is stable, so equal values stay in the frame's order."""
    both = pa.concat_arrays([best, values.cast(best.type)])
    order = pc.sort_indices(both, sort_keys=[("", "descending" if descending else "ascending")])[:wanted]
    return both.take(order), np.concatenate([rows, numbers])[order.to_numpy()]


def _sorted_page(order: _Order, first: int, count: int, sort: str) -> tuple[np.ndarray, int, str]:
    reach = len(order.rows)
    if first and first >= reach:
        msg = f"a sort of {order.total:,} rows shows the first {reach:,}; filter to see others"
        raise UsageProblem(msg)
    note = f"sorted by {sort}: the first {reach:,} of {order.total:,} rows" if reach < order.total else ""
    return order.rows[first : first + count], reach, note


def _block_rows(batch: pa.RecordBatch) -> int:
    widest = max((_row_bytes(c) for c in batch.columns), default=1.0)
    return int(min(BLOCK_ROWS, max(1024, BLOCK_BYTES / max(widest, 1e-9))))


def _row_bytes(array: pa.Array) -> float:
    """Return bytes per row, from the buffers' lengths: reads nothing of the column itself."""
    size: int = sum(b.size for b in array.buffers() if b is not None)
    return size / max(1, len(array))


def _consecutive(rows: np.ndarray) -> bool:
    return bool((np.diff(rows) == 1).all())


def _forget_oldest(kept: OrderedDict[str, Selection] | OrderedDict[tuple[str, str, bool], _Order]) -> None:
    while len(kept) > REMEMBERED:
        kept.popitem(last=False)


def _capped(rows: list[list[str | None]]) -> tuple[tuple[str | None, ...], ...]:
    """Return the cells, the longest ones shortened, then columns left out, until the page is small enough to send."""
    limit = CELL
    while limit > SHORTEST_CELL and _bytes(rows) > PAGE_BYTES:
        limit //= 2
        rows = [[c if c is None else shorten(c, limit) for c in row] for row in rows]
    while rows and len(rows[0]) > 1 and _bytes(rows) > PAGE_BYTES:
        rows = [row[: len(row) // 2] for row in rows]
    return tuple(tuple(row) for row in rows)


def _bytes(rows: list[list[str | None]]) -> int:
    return len(json.dumps(rows, ensure_ascii=False).encode())
