"""Arrays that lie in each other's memory: found before they are stored, made again on a hit.

``b = a[::2]`` and ``y = frame["t"].to_numpy()`` give arrays that are windows onto another object's
memory, and writing to one shows in the other. Stored each by itself they would come back apart. So a
*window* is stored as what it is: an array's name, an offset and strides; or a frame's columns and rows.
"""

# ruff: noqa: SLF001 - where the blocks of a frame lie is known to its manager alone
from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect_cache.cells.inplace import blocks_of, is_frame_or_series
from prefect_cache.cells.named import asked
from prefect_cache.codecs.instances import frame_attributes
from prefect_cache.errors import Damaged, Unstorable, with_article

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Window = tuple[object, ...]
"""A tag, and numbers and texts alone: a part of a reference, see ``cells.graph``."""


@dataclass(frozen=True, slots=True)
class Extent:
    """The bytes that an array spans, from `low` up to but not including `high`."""

    low: int
    high: int
    array: Any
    owner: Any
    """The array itself, or the frame in whose block it lies."""
    block: int = -1

    def meets(self, other: Extent) -> bool:
        """Tell whether both span some byte."""
        return self.low < other.high and other.low < self.high


def is_array(value: object) -> bool:
    """Tell whether `value` is exactly a NumPy array; imports nothing."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is numpy.ndarray


def extents(values: Iterable[Any]) -> Iterator[Extent]:
    """Yield what each array, and each block of each pandas object, spans; empty ones span nothing."""
    for value in values:
        if is_array(value):
            yield from _extent(value, value, -1)
        else:
            for number, block in enumerate(blocks_of(value)):
                yield from _extent(_plain(block), value, number)


def exporting(values: Iterable[object]) -> set[type]:
    """Return the types of objects in whose memory others may lie, of those that are no arrays and no frames.

    Such as torch's tensors, by DLPack, the protocol by which libraries of arrays give each other their memory; the
    subclasses of arrays; the records of structured arrays; and Pillow's images, which may lie in an array's memory.
    """
    numpy = sys.modules.get("numpy")
    plain, record = (None, None) if numpy is None else (numpy.ndarray, numpy.void)
    kinds = set(map(type, values))
    found = {cls for cls in kinds if (hasattr(cls, "__dlpack__") and cls is not plain) or cls is record}
    found |= set(filter(_is_image, kinds))
    return {cls for cls in found if cls.__module__.partition(".")[0] != "pyarrow"}  # which is never written to


def exported(value: Any) -> Iterator[Extent]:
    """Yield what an object of such a type spans.

    Raises
    ------
    Unstorable
        Where its memory cannot be looked at, or it remembers more than its pickles do.
    """
    kind = type(value).__name__
    if _is_image(type(value)):
        yield from _pixels(value)
        return
    numpy = sys.modules["numpy"]
    if isinstance(value, numpy.ndarray):
        yield from _extent(value.view(numpy.ndarray), value, -1)
        return
    if isinstance(value, numpy.void):
        if value.base is not None and value.nbytes:
            start = value.__array_interface__["data"][0]
            yield Extent(start, start + value.nbytes, value, value)
        return
    if asked(value, "grad_fn") is not None:
        raise Unstorable(
            f"{with_article(kind)} remembers how it was computed, which its pickles do not", remedy="detach() it"
        )
    if asked(value, "grad") is not None:
        raise Unstorable(
            f"{with_article(kind)} holds a gradient, which its pickles leave out", remedy="set its grad to None"
        )
    bare = value.detach() if hasattr(value, "detach") else value
    try:
        array = numpy.from_dlpack(bare)
    except Exception as error:  # each library raises its own kinds
        raise Unstorable(f"the memory of {with_article(kind)} cannot be looked at, and others may share it") from error
    yield from _extent(array, value, -1)


def _is_image(cls: type) -> bool:
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and issubclass(cls, pillow.Image)


def _pixels(image: Any) -> Iterator[Extent]:
    if not image.readonly:  # it has memory of its own, or will before it is written to
        return
    import pyarrow as pa

    try:
        pixels = pa.array(image).buffers()[-1]
    except Exception as error:  # Pillow before 11.3 does not tell; an image that is not read yet raises anything
        raise Unstorable("an image may lie in the memory of an array", remedy="store image.copy()") from error
    yield Extent(pixels.address, pixels.address + pixels.size, image, image)


def cells(value: Any) -> Iterator[Any]:
    """Yield the objects in an object array, or in the object columns, attrs and attributes of a pandas object."""
    if is_array(value):
        yield from value.flat if value.dtype.hasobject and value.dtype.names is None else ()
        return
    for block in blocks_of(value):
        if is_array(block) and block.dtype.hasobject:
            yield from block.flat
    yield from (getattr(value, "attrs", None) or {}).values()
    if is_frame_or_series(value):
        yield from frame_attributes(value).values()


def _plain(block: Any) -> Any:
    # Datetimes and categoricals wrap plain memory; Arrow's memory is immutable and never a window's.
    return getattr(block, "_ndarray", block)


def _extent(array: Any, owner: Any, block: int) -> Iterator[Extent]:
    if not is_array(array) or array.nbytes == 0:
        return
    start = low = high = array.__array_interface__["data"][0]
    for length, stride in zip(array.shape, array.strides, strict=True):
        reach = (length - 1) * stride
        low, high = low + min(reach, 0), high + max(reach, 0)
    if start:
        yield Extent(low, high + array.itemsize, array, owner, block)


def overlapping(found: Iterable[Extent]) -> list[tuple[Extent, Extent]]:
    """Return the pairs of extents of different owners that share some byte, by a sweep over their starts."""
    active: list[Extent] = []
    pairs: list[tuple[Extent, Extent]] = []
    for extent in sorted(found, key=lambda e: (e.low, e.low - e.high)):
        active = [a for a in active if a.high > extent.low]
        pairs += [(a, extent) for a in active if a.owner is not extent.owner]
        active.append(extent)
    return pairs


def window(array: Any, onto: Extent) -> Window:
    """Return what makes `array` again from the object whose extent is `onto`.

    Raises
    ------
    Unstorable
        Where the array is not a regular window of that object.
    """
    if array.dtype.names is not None or (array.dtype.hasobject and onto.block < 0):
        raise Unstorable("it is a window onto another array's objects or records")
    span = next(extents([array]))
    if span.low < onto.low or span.high > onto.high:
        raise Unstorable("it overlaps with another array, but neither lies within the other")
    if onto.block >= 0:
        return _frame_window(array, onto)
    if not (onto.array.flags.c_contiguous or onto.array.flags.f_contiguous):
        raise Unstorable("it is a window onto an array that is itself a window")
    address, base = (a.__array_interface__["data"][0] for a in (array, onto.array))
    return ("bytes", address - base, array.shape, array.strides, array.dtype.str, array.flags.writeable)


def _frame_window(array: Any, onto: Extent) -> Window:
    """Describe a window onto a block by columns and rows: blocks may lie otherwise when they come back."""
    block = _by_columns(onto.array)
    if array.dtype.str != block.dtype.str or array.ndim > 2:  # noqa: PLR2004
        raise Unstorable("it is a window onto a frame's memory, of another type")
    start, rest = _start(array, block)
    steps = [_step(length, stride, block) for length, stride in zip(array.shape, array.strides, strict=True)]
    if rest or sorted(a for a, _ in steps) != sorted({a for a, _ in steps}):
        raise Unstorable("it is an irregular window onto a frame's memory")
    locations = [int(n) for n in _locations(onto)]
    column_steps = [(n, step) for n, (axis, step) in zip(array.shape, steps, strict=True) if axis == 0]
    count, step = column_steps[0] if column_steps else (1, 1)
    columns = tuple(locations[start[0] + i * step] for i in range(count))
    rows = next(
        ((start[1], n, step) for n, (axis, step) in zip(array.shape, steps, strict=True) if axis == 1), (start[1], 1, 1)
    )
    order = tuple(axis for axis, _ in steps)
    return ("cells", columns, rows, order, array.flags.writeable)


def _by_columns(array: Any) -> Any:
    return array if array.ndim == 2 else array[None, :]  # noqa: PLR2004 - a block is columns by rows


def _start(array: Any, block: Any) -> tuple[list[int], int]:
    """Return the column and the row of a block at which an array begins, and the bytes that are left over."""
    rest = array.__array_interface__["data"][0] - block.__array_interface__["data"][0]
    start = [0, 0]
    for stride, axis in sorted(((abs(s), a) for a, s in enumerate(block.strides) if block.shape[a] > 1), reverse=True):
        start[axis], rest = divmod(rest, stride) if block.strides[axis] > 0 else (0, rest)
    return start, rest


def view(guest: Extent, onto: Extent) -> Window:
    """Return what makes the memory of a frame's block again, from that of the object whose extent is `onto`.

    Raises
    ------
    Unstorable
        Where it is not a regular window of that object.
    """
    if onto.block < 0:
        return window(guest.array, onto)
    array, block = _by_columns(guest.array), _by_columns(onto.array)
    start, rest = _start(array, block)
    steps = [s // unit if n > 1 else 1 for n, s, unit in zip(array.shape, array.strides, block.strides, strict=True)]
    ends = [at + step * (n - 1) for at, step, n in zip(start, steps, array.shape, strict=True)]
    there = all(
        n == 1 or s == step * unit
        for n, s, step, unit in zip(array.shape, array.strides, steps, block.strides, strict=True)
    )
    inside = all(0 <= end < n for end, n in zip(ends, block.shape, strict=True))
    if rest or not there or not inside or array.dtype.str != block.dtype.str:
        raise Unstorable("it is an irregular window onto a frame's memory")
    locations = [int(n) for n in _locations(onto)]
    columns = tuple(locations[start[0] + i * steps[0]] for i in range(array.shape[0]))
    order = (0, 1) if guest.array.ndim == 2 else (1,)  # noqa: PLR2004
    return ("cells", columns, (start[1], array.shape[1], steps[1]), order, guest.array.flags.writeable)


def _step(length: int, stride: int, block: Any) -> tuple[int, int]:
    for axis in (1, 0):
        unit = block.strides[axis]
        if (
            block.shape[axis] > 1
            and unit
            and stride % unit == 0
            and abs(stride // unit) * (length - 1) < block.shape[axis]
        ):
            return axis, stride // unit
    if length == 1:
        return 1, 1
    raise Unstorable("it is an irregular window onto a frame's memory")


def _locations(onto: Extent) -> Any:
    return onto.owner._mgr.blocks[onto.block].mgr_locs.as_array


def opened(description: Window, owner: Any) -> Any:
    """Return the array that :func:`window` described, onto the memory of `owner`."""
    numpy = sys.modules["numpy"]
    kind, *rest = description
    if kind == "bytes":
        offset, shape, strides, dtype, writeable = rest
        raw = owner.reshape(-1, order="A").view(numpy.uint8)
        made = numpy.ndarray(shape, dtype, buffer=raw, offset=offset, strides=strides)
    elif kind == "cells":
        columns, rows, order, writeable = rest
        made = _cells(owner, columns, rows, order)
    else:
        raise Damaged(f"unknown kind of window: {kind!r}")
    if not writeable:
        made.flags.writeable = False
    return made


def put_block(frame: Any, number: int, array: Any) -> None:
    """Let a block of a pandas object lie in the memory of `array`, which holds the same values."""
    block = frame._mgr.blocks[number]
    values, plain = block.values, _plain(block.values)
    if (plain.dtype, plain.shape) != (array.dtype, array.shape):
        raise ValueError("the memory of a block is that of something else")
    block.values = array if values is plain else values._from_backing_data(array)


def axes_of(value: Any) -> tuple[Any, ...]:
    """Return the indexes of a frame or Series as its manager counts them; of anything else, none."""
    return tuple(value._mgr.axes) if is_frame_or_series(value) else ()


def put_axis(frame: Any, number: int, index: Any) -> None:
    """Let a frame or Series have this very index, which holds the same labels as its own."""
    own = frame._mgr.axes[number]
    if type(own) is not type(index) or len(own) != len(index):
        raise ValueError("the index of a frame is that of something else")
    frame._mgr.set_axis(number, index)


def _cells(frame: Any, columns: Any, rows: Any, order: Any) -> Any:
    start, count, step = rows
    stop = start + count * step
    row_slice = slice(start, stop if stop >= 0 else None, step)
    arrays = [_column(frame, c) for c in columns]
    if 0 not in order:
        return arrays[0][row_slice] if order else arrays[0][start : start + 1].reshape(())
    block = _one_block(frame, columns)
    # Columns that do not lie together now would be copied by pandas, too.
    table = sys.modules["numpy"].stack(arrays) if block is None else block
    table = table[:, row_slice]
    if tuple(order) == (0, 1):
        return table
    return table.T if tuple(order) == (1, 0) else table[:, 0]


def _column(frame: Any, location: int) -> Any:
    manager = frame._mgr
    if len(manager.blocks) == 1 and manager.ndim == 1:
        return _plain(manager.blocks[0].values)
    values = _plain(manager.blocks[manager.blknos[location]].values)
    return values[manager.blklocs[location]] if values.ndim == 2 else values  # noqa: PLR2004


def _one_block(frame: Any, columns: Any) -> Any:
    manager = frame._mgr
    if manager.ndim == 1:
        return _by_columns(_plain(manager.blocks[0].values))
    numbers = {int(manager.blknos[c]) for c in columns}
    rows = [int(manager.blklocs[c]) for c in columns]
    steps = {b - a for a, b in itertools.pairwise(rows)}
    if len(numbers) != 1 or len(steps) > 1:
        return None
    values = _plain(manager.blocks[numbers.pop()].values)
    step = steps.pop() if steps else 1
    stop = rows[-1] + (1 if step > 0 else -1)
    return values[rows[0] : (stop if stop >= 0 else None) : step] if values.ndim == 2 else values[None, :]  # noqa: PLR2004
