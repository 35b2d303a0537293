"""The body of a stored file: which memory goes where, and its way to the disk and back.

A :class:`Body` collects the large buffers of one value before anything is written; each becomes a
region, 64-byte aligned. Then :func:`write_file` sends everything through one pass, each piece digested
while it is in the processor's cache.
"""

from __future__ import annotations

import errno
import os
import sys
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from prefect_cache.codecs.ipc import Extent
from prefect_cache.digests import PIECE, TreeHasher
from prefect_cache.frames import Lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy.typing as npt
    import pyarrow as pa

    from prefect_cache.codecs.ipc import Envelope

    Array = npt.NDArray[Any]
    Bytes = npt.NDArray[np.uint8]

    Progress = Callable[[int, int], None]
    """Called with the bytes done and those to do."""

ALIGNMENT = 64
LEAF = 2**14
"""Bytes at whose multiples large runs start: a page of all common systems (4 kB, on Apple's 16 kB)."""

RUN = 2**20
"""Bytes from which a region, or a row of one, has pages of its own: another file may map them as its own."""

_WORD = 8
_TABLE = 2
_OVERLAPS = 4
"""How many regions are asked for some memory: they overlap where a value holds two views of one array."""

TILE = 8 * 2**20
"""Bytes transposed at a time."""


@dataclass(frozen=True, slots=True)
class Region:
    """Some memory's place in the body.

    `strides` are those of the stored array: rows of a block may be padded, for Arrow wants each column to start at
    a multiple of 8.
    """

    source: Array | Lazy
    extent: Extent
    strides: tuple[int, ...]

    @property
    def rows(self) -> tuple[Array, int] | None:
        """A block and its step, where it goes to the file row by row; None for anything else."""
        source = self.source
        if isinstance(source, Lazy) or source.ndim != _TABLE:
            return None
        step, width = self.strides
        return (source, step) if width == source.itemsize and step >= source.shape[1] * width else None


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Some bytes of the body that have pages of their own: a column of a block, or a whole region.

    `region` is the number of the region that it is in, `row` which row of it (None: all), `source` its memory,
    `part` the run as a region, and `pages` its place with the padding up to the next leaf.
    """

    region: int
    row: int | None
    source: Array
    part: Region
    pages: Extent


class Body:
    """The regions of one file, in the order in which they will lie."""

    def __init__(self) -> None:
        self.regions: list[Region] = []
        self.size = 0
        self.leaf = ALIGNMENT
        self._buffers: list[int] = []
        self._starts: list[tuple[int, int]] = []
        self._sorted = True
        self._kept: list[object] = []

    @classmethod
    def of(cls, regions: list[Region], size: int) -> Body:
        """Return a body of regions that have their places, to which more can be added."""
        made = cls()
        made.regions, made.size, made.leaf = regions, size, LEAF
        return made

    def keep(self, thing: object) -> None:
        """Keep what owns a region's memory until the file is written."""
        self._kept.append(thing)

    def add(self, array: Array, *, columns: bool = False) -> int:
        """Give an array a region; return its number.

        With `columns`, the rows of a two-dimensional array will each start at a multiple of 8, in C order: it is a
        pandas block, whose rows are the frame's columns.
        """
        strides = _column_strides(array) if columns else _dense_strides(array)
        size = array.shape[0] * strides[0] if columns else array.nbytes
        number = self._place(array, size, strides)
        self._starts.append((_span(array)[0], number))
        self._buffers.append(number)
        self._sorted = False
        return number

    def add_bytes(self, data: Array | Lazy, *, alone: bool = False) -> Extent:
        """Give some bytes a region of their own, with `alone` on leaves of its own; return where."""
        size = data.size if isinstance(data, Lazy) else data.nbytes
        return self.regions[self._place(data, size, (1,), alone=alone)].extent

    def _place(self, source: Array | Lazy, size: int, strides: tuple[int, ...], *, alone: bool = False) -> int:
        alignment = LEAF if alone or size >= RUN else ALIGNMENT
        self.leaf = max(self.leaf, alignment)
        start = _up(self.size, alignment)
        self.regions.append(Region(source, Extent(start, size), strides))
        self.size = _up(start + size, alignment)
        return len(self.regions) - 1

    def close(self) -> None:
        """Let the body end where a leaf ends, if it has any."""
        self.size = _up(self.size, self.leaf)

    def runs(self) -> Iterator[Run]:
        """Yield the runs of the value's own buffers."""
        for number in self._buffers:
            region = self.regions[number]
            offset, size = region.extent
            if size < RUN or isinstance(region.source, Lazy):
                continue
            if region.rows is None or region.strides[0] < RUN or region.strides[0] % LEAF:
                yield Run(number, None, region.source, region, Extent(offset, _up(size, LEAF)))
                continue
            block, step = region.rows
            for row, source in enumerate(block):
                start = offset + row * step
                part = Region(source, Extent(start, source.nbytes), region.strides[1:])
                yield Run(number, row, source, part, Extent(start, step))

    def find(self, view: Array) -> Extent | None:
        """Return where an array's bytes will lie back to back, if they are part of a region."""
        if not view.size:
            return Extent(0, 0)
        if not self._sorted:
            self._starts.sort()
            self._sorted = True
        low, high = _span(view)
        at = bisect_right(self._starts, (low, sys.maxsize))
        for _, number in reversed(self._starts[max(at - _OVERLAPS, 0) : at]):
            found = self._within(view, low, high, self.regions[number])
            if found is not None:
                return found
        return None

    @staticmethod
    def _within(view: Array, low: int, high: int, region: Region) -> Extent | None:
        source = region.source
        if isinstance(source, Lazy):
            return None
        first, last = _span(source)
        if not first <= low <= high <= last:
            return None
        same = view.shape == source.shape and view.strides == source.strides and view.itemsize == source.itemsize
        if same and region.strides == _c_strides(source.shape, source.itemsize):
            return Extent(region.extent.offset, view.nbytes)
        if _dense(source) and _dense(view) and region.strides == source.strides:
            return Extent(region.extent.offset + low - first, view.nbytes)
        return _column(view, low - first, source, region)


def _up(size: int, alignment: int) -> int:
    return size + -size % alignment


def _column(view: Array, ahead: int, source: Array, region: Region) -> Extent | None:
    """Return where one row of a block lies."""
    if source.ndim != _TABLE or view.ndim != 1 or view.itemsize != source.itemsize or len(view) != source.shape[1]:
        return None
    rows = source.shape[0]
    step = abs(source.strides[0]) if rows > 1 else 1
    aligned = len(view) <= 1 or view.strides[0] == source.strides[1]
    if not aligned or not step or source.strides[1] < 0 or ahead % step or ahead // step >= rows:
        return None
    if region.strides[1] != source.itemsize:
        return None
    row = ahead // step if source.strides[0] > 0 else rows - 1 - ahead // step
    return Extent(region.extent.offset + row * region.strides[0], view.nbytes)


def _span(array: Array) -> tuple[int, int]:
    """Return the lowest address of an array and the one behind its highest."""
    low = high = array.__array_interface__["data"][0]
    for count, step in zip(array.shape, array.strides, strict=True):
        reach = (count - 1) * step
        low, high = (low + reach, high) if reach < 0 else (low, high + reach)
    return low, high + array.itemsize


def _dense(array: Array) -> bool:
    return bool(array.flags.c_contiguous or array.flags.f_contiguous)


def memory_order(array: Array) -> tuple[int, ...]:
    """Return the axes from the widest stride to the narrowest; C order where strides tell nothing."""
    return tuple(sorted(range(array.ndim), key=lambda axis: (-abs(array.strides[axis]), axis)))


def _c_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    strides, step = [], itemsize
    for count in reversed(shape):
        strides.append(step)
        step *= count
    return tuple(reversed(strides))


def _column_strides(array: Array) -> tuple[int, ...]:
    """Return the strides of a block whose rows each start where Arrow wants a column to start."""
    step = array.shape[1] * array.itemsize
    alignment = LEAF if step >= RUN else ALIGNMENT if step % _WORD else _WORD
    return (_up(step, alignment), array.itemsize)


def _dense_strides(array: Array) -> tuple[int, ...]:
    """Return the strides of an array's dense copy in its own memory order."""
    order = memory_order(array)
    steps = _c_strides(tuple(array.shape[axis] for axis in order), array.itemsize)
    return tuple(steps[order.index(axis)] for axis in range(array.ndim))


# ---------------------------------------------------------------- to the disk


def write_file(path: Path, envelope: Envelope, body: Body, progress: Progress | None = None) -> tuple[TreeHasher, int]:
    """Make a file of an envelope and a body; return its tree digest and size. What fails leaves no file."""
    size = len(envelope.head) + body.size + len(envelope.tail)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        try:
            _reserve(file, size)
            sink = Sink(file, size, progress)
            write_all(sink, envelope, body)
        finally:
            os.close(file)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return sink.tree, size


def write_all(sink: Sink, envelope: Envelope, body: Body) -> None:
    """Send all of a file into a sink."""
    start = len(envelope.head)
    sink.write(envelope.head)
    for region in body.regions:
        sink.pad(start + region.extent.offset)
        write_region(sink, region)
    sink.pad(start + body.size)
    sink.write(envelope.tail)
    sink.flush()


def _reserve(file: int, size: int) -> None:
    """Claim the disk space first: a full disk is known before a gigabyte is written, and the file lies in one piece."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
        else:
            return
    os.ftruncate(file, size)


class Sink:
    """Bytes on their way to a file, in order, each piece digested as it is written.

    What is small is gathered; what is large is written from where it lies.
    """

    def __init__(self, file: int, size: int, progress: Progress | None = None) -> None:
        self.tree = TreeHasher()
        self.position = 0
        self._file = file
        self._size = size
        self._progress = progress
        self._waiting = bytearray()

    def write(self, data: Any) -> None:
        """Append some bytes."""
        view = memoryview(data).cast("B")
        self.position += len(view)
        if len(self._waiting) + len(view) < PIECE // 4:
            self._waiting += view
            return
        self.flush()
        for start in range(0, len(view), PIECE):
            self._send(view[start : start + PIECE])

    def pad(self, position: int) -> None:
        """Append zeros up to a position."""
        self.write(bytes(position - self.position))

    def flush(self) -> None:
        """Send what was gathered."""
        if self._waiting:
            waiting, self._waiting = self._waiting, bytearray()
            self._send(memoryview(waiting))

    def _send(self, view: memoryview) -> None:
        at = self.tree.size
        self.tree.update(view)
        _write_all(self._file, view, at)
        self._report()

    def _report(self) -> None:
        if self._progress is not None:
            self._progress(self.tree.size, self._size)

    def scatter(self, pieces: Iterator[tuple[int, Bytes]], size: int) -> None:
        """Write pieces at offsets from here, in any order, `size` bytes in all; then digest what was written.

        Reading back from the page cache costs a copy at memory speed; keeping what is transposed until its turn
        comes would cost as much memory as the block.
        """
        self.flush()
        start = self.position
        for offset, piece in pieces:
            _write_all(self._file, piece.data, start + offset)
        buffer = memoryview(bytearray(min(PIECE, size)))
        for at in range(start, start + size, PIECE):
            view = buffer[: min(PIECE, start + size - at)]
            if os.preadv(self._file, [view], at) != len(view):
                raise OSError(errno.EIO, "what was written could not be read back")
            self.tree.update(view)
            self._report()
        self.position += size


def _write_all(file: int, view: memoryview, at: int) -> None:
    while view:
        done = os.pwrite(file, view, at)
        view, at = view[done:], at + done


def write_region(sink: Sink, region: Region) -> None:
    """Send a region's bytes into a sink."""
    source = region.source
    if isinstance(source, Lazy):
        for chunk in source.make():
            sink.write(as_bytes(np.ascontiguousarray(chunk)))
    elif region.rows is not None:
        _write_rows(sink, source, region)
    else:
        write_dense(sink, source.transpose(memory_order(source)))


def _write_rows(sink: Sink, source: Array, region: Region) -> None:
    """Write a two-dimensional array row by row, each padded to the region's step."""
    rows, width = source.shape
    if region.strides[0] == width * source.itemsize and source.flags.c_contiguous:
        sink.write(as_bytes(source))
    elif rows > 1 and abs(source.strides[0]) < abs(source.strides[1]) and region.extent.size > PIECE:
        sink.scatter(_tiles(source, region.strides[0]), region.extent.size)
    else:
        padding = bytes(region.strides[0] - width * source.itemsize)
        for row in source:
            write_dense(sink, row)
            sink.write(padding)


def _tiles(source: Array, step: int) -> Iterator[tuple[int, Bytes]]:
    """Yield a block that lies the other way round as runs of its rows, transposed a tile at a time."""
    rows, width = source.shape
    across = max(TILE // (rows * source.itemsize), 1)
    for start in range(0, width, across):
        tile = np.ascontiguousarray(source[:, start : start + across])
        for number, run in enumerate(tile):
            yield number * step + start * source.itemsize, as_bytes(run)


def write_dense(sink: Sink, array: Array) -> None:
    """Write an array in C order, copying at most about a piece at a time."""
    if array.flags.c_contiguous:
        sink.write(as_bytes(array))
    elif array.ndim > 1 and array[0].nbytes > PIECE:
        for part in array:
            write_dense(sink, part)
    else:
        count = max(PIECE // max(array[0].nbytes, 1), 1)
        for start in range(0, len(array), count):
            sink.write(as_bytes(np.ascontiguousarray(array[start : start + count])))


def as_bytes(array: Array) -> Bytes:
    """Return a dense array's memory as bytes; works for dtypes that no buffer protocol knows."""
    return array.reshape(-1).view(np.uint8) if array.itemsize else np.empty(0, np.uint8)


def of_buffer(buffer: pa.Buffer) -> Bytes:
    """Return an Arrow buffer's memory as an array."""
    return np.frombuffer(buffer, dtype=np.uint8)
