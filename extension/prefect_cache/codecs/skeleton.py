"""A value's skeleton: everything but its large buffers.

The skeleton is a pickle of pandas', NumPy's and pyarrow's own making in which each large buffer is a
reference to a region of the body. What those libraries know to be needed for an exact copy (blocks,
placement, freq, flags, attrs, extension dtypes) is thus kept without this package listing it.

A pickle is a program. It is read through a list of constructors that can do nothing but construct, unless
the caller says that the file is trusted; what is on the list is decided in :mod:`prefect_cache.codecs.allowed`.
"""

# ruff: noqa: FBT001, SLF001 - a skeleton calls by position; private state is what is to be kept
from __future__ import annotations

import copyreg
import io
import pickle
import sys
import types
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from prefect_cache.codecs import allowed
from prefect_cache.codecs.body import memory_order, of_buffer
from prefect_cache.codecs.instances import frame_attributes, put_beside
from prefect_cache.codecs.pickled import ValuePickler, ValueUnpickler
from prefect_cache.errors import Damaged, Untrusted
from prefect_cache.frames import missing_objects

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping, Sequence

    import numpy.typing as npt

    from prefect_cache.codecs.body import Body
    from prefect_cache.codecs.pickled import Refer, Reference, Resolve
    from prefect_cache.frames import Canon

    Array = npt.NDArray[Any]
    Reduced = tuple[Any, ...]

LARGE = 2048
"""Bytes from which a buffer goes to the body."""

PROTOCOL = 5

_TABLE = 2

_STATED = 3
"""Parts of a reduction up to the state."""

_MASKED = {
    *("_fill_value", "_hardmask", "_data", "_mask", "_sharedmask"),
    *("_basedict", "_optinfo", "_baseclass", "_isfield"),
}
"""What a masked array has to itself."""


class Builder:
    """Rebuilds the parts that a skeleton refers to; its methods are what skeletons name.

    A method's name and arguments are part of the format.
    """

    def __init__(self, body: Array, regions: Sequence[Sequence[int]], *, trusted: bool) -> None:
        self._body = body
        self._regions = regions
        self._trusted = trusted

    def _bytes(self, region: int) -> Array:
        offset, size = self._regions[region]
        if not 0 <= offset <= offset + size <= len(self._body):
            raise Damaged("a region lies outside of the body")
        return self._body[offset : offset + size]

    def array(
        self, region: int, dtype: np.dtype[Any] | str, shape: tuple[int, ...], strides: tuple[int, ...], writeable: bool
    ) -> Array:
        """Return a region as an array."""
        return self._shaped(self._bytes(region), dtype, shape, strides, writeable)

    def small(
        self,
        data: bytearray,
        dtype: np.dtype[Any] | str,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        writeable: bool,
    ) -> Array:
        """Return bytes of the skeleton as an array."""
        return self._shaped(np.frombuffer(data, np.uint8), dtype, shape, strides, writeable)

    @staticmethod
    def _shaped(
        data: Array, dtype: np.dtype[Any] | str, shape: tuple[int, ...], strides: tuple[int, ...], writeable: bool
    ) -> Array:
        kind = np.dtype(dtype)
        if kind.hasobject:
            raise Damaged("bytes cannot stand for objects")
        made: Array = np.ndarray(shape, kind, buffer=data, strides=strides)
        made.flags.writeable = writeable
        return made

    def dtype(self, given: Any, align: bool, metadata: Mapping[str, object] | None = None) -> np.dtype[Any]:
        """Return a dtype from what :func:`_dtype_form` made of it."""
        made: np.dtype[Any] = (
            np.dtype(given, align=align, metadata=dict(metadata)) if metadata else np.dtype(given, align)
        )
        return made

    def objects(self, shape: tuple[int, ...], fortran: bool) -> Array:
        """Return an array for objects, not yet filled: a cell may hold the array itself."""
        return np.empty(shape, dtype=object, order="F" if fortran else "C")

    def fill(self, made: Array, state: tuple[Sequence[tuple[Any, Array | None]], bool]) -> None:
        """Fill an array of objects, in C order, and lock it where it was read-only."""
        rows, writeable = state
        flat = made.reshape(len(rows), -1)
        target = flat if np.shares_memory(flat, made) or not made.size else np.empty(flat.shape, dtype=object)
        for row, (cells, missing) in zip(target, rows, strict=True):
            self._fill_row(row, cells, missing)
        if target is not flat:
            made[...] = target.reshape(made.shape)
        made.flags.writeable = writeable

    @staticmethod
    def _fill_row(row: Array, cells: Any, missing: Array | None) -> None:
        if isinstance(cells, list):
            # Cell by cell assignment of the whole list would look into cells that are sequences.
            row[:] = np.fromiter(cells, dtype=object, count=len(cells))
            return
        if isinstance(cells, np.ndarray):
            plain = _Atoms(io.BytesIO(cells.data)).load()
            row[:] = np.fromiter(plain, dtype=object, count=len(plain))
            return
        row[:] = _texts(cells)
        if missing is not None:
            for number, thing in enumerate(missing_objects()):
                if number:
                    row[missing == number] = thing

    def records(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        """Return records, some of whose fields are objects, not yet filled."""
        return np.zeros(shape, dtype)

    def fill_records(self, made: Array, state: tuple[Sequence[Array], bool]) -> None:
        """Fill records field by field, and lock them where they were read-only."""
        fields, writeable = state
        for name, field in zip(made.dtype.names or (), fields, strict=True):
            made[name][...] = field
        made.flags.writeable = writeable

    def buffer(self, region: int) -> Any:
        """Return a region as an Arrow buffer."""
        import pyarrow as pa

        return pa.py_buffer(self._bytes(region))

    def arrow(self, restore: tuple[Any, ...]) -> Any:
        """Return an Arrow array from pyarrow's own parts; checked in full where it is not trusted.

        Offsets that point outside of their buffers would read other memory.
        """
        import pyarrow as pa

        made = pa.lib._restore_array(restore)
        if not self._trusted:
            made.validate(full=True)
        return made

    def view(self, kind: type, base: Array) -> Array:
        """Return an array as its subclass."""
        if not issubclass(kind, np.ndarray):
            raise Damaged(f"{kind.__name__} is no array")
        return base.view(kind)

    def masked(self, data: Array, mask: Any, fill: Any, hard: bool) -> Any:
        """Return a masked array over its data and mask."""
        return np.ma.MaskedArray(data, mask=mask, fill_value=fill, hard_mask=hard, copy=False, keep_mask=False)

    def attributed(self, made: Any, state: tuple[Any, dict[str, object]]) -> None:
        """Give a DataFrame or Series its content, and the attributes that somebody gave to it."""
        put_beside(made, state)

    def zone(self, key: str) -> Any:
        """Return a time zone by name."""
        import zoneinfo

        return zoneinfo.ZoneInfo(key)

    def polars(self, names: list[str], columns: list[Any]) -> Any:
        """Return a polars frame: Arrow columns, and those that polars pickled itself."""
        import polars as pl

        return pl.DataFrame([self.series(name, *column) for name, column in zip(names, columns, strict=True)])

    def series(self, name: str, column: Any, sorted_as: str = "") -> Any:
        """Return one polars column."""
        import polars as pl

        made = column.rename(name) if isinstance(column, pl.Series) else pl.Series(name, column)
        return made.set_sorted(descending=sorted_as == "descending") if sorted_as else made

    def things(self, name: str, cells: list[object]) -> Any:
        """Return a polars column of objects."""
        import polars as pl

        return pl.Series(name, cells, dtype=pl.Object)


def _texts(cells: Any) -> Array:
    """Return Arrow text as objects; what was one object in many cells is one object again."""
    if not hasattr(cells, "dictionary"):
        return np.asarray(cells.to_numpy(zero_copy_only=False))
    values = np.append(cells.dictionary.to_numpy(zero_copy_only=False), [None])
    codes = cells.indices.fill_null(len(values) - 1) if cells.null_count else cells.indices
    return np.asarray(values[codes.to_numpy(zero_copy_only=False)])


_PARTS = frozenset(f"Builder.{name}" for name in vars(Builder) if not name.startswith("_"))


# ---------------------------------------------------------------- writing


class _Planner:
    """What one pickling needs to know: the body being planned, canonical forms, which arrays are blocks."""

    def __init__(self, body: Body, canon: Canon) -> None:
        self.body = body
        self.canon = canon
        self.blocks: set[int] = set()
        self.buffers: dict[tuple[int, int], int] = {}
        self.kept: list[object] = []
        self.needs_trust = False
        self._ways: dict[type, Callable[[Any], Any] | None] = {}
        self._named: dict[type, bool] = {}
        self._plain: set[type] = set()

    def reduce(self, value: object) -> Any:
        """Return how a value is rebuilt, or NotImplemented where its own way will do."""
        kind = type(value)
        if kind not in self._ways:
            self._ways[kind] = way = self._way(kind)
            self._named[kind] = issubclass(kind, type) or kind in _FUNCTIONS or "function" in kind.__name__
            if allowed.is_allowed(kind):
                self._plain.add(kind)
            elif way is None and not self._named[kind]:
                self.needs_trust = True
        if self._named[kind] and not is_part(value):
            self.needs_trust |= not allowed.is_allowed(value)
        known = self._ways[kind]
        return NotImplemented if known is None else known(value)

    def is_plain(self, value: object) -> bool:
        """Tell whether a value's own reduction names nothing but allowed constructors."""
        kind = type(value)
        return kind in self._plain or (self._named[kind] and allowed.is_allowed(value))

    def _way(self, kind: type) -> Callable[[Any], Any] | None:
        if kind is np.ndarray:
            return self._array
        if issubclass(kind, np.dtype):
            return _dtype
        if kind in (np.matrix, np.recarray):
            return self._view
        if kind is np.ma.MaskedArray:
            return self._masked
        for library, find in (("pyarrow", self._arrow_way), ("pandas", self._pandas_way), ("polars", self._polars_way)):
            if library in sys.modules and (way := find(kind, sys.modules[library])) is not None:
                return way
        return _zone if kind.__module__ == "zoneinfo" and kind.__name__ == "ZoneInfo" else None

    def _arrow_way(self, kind: type, pa: Any) -> Callable[[Any], Any] | None:
        if issubclass(kind, pa.Buffer):
            return self._buffer
        return self._arrow if issubclass(kind, pa.Array) else None

    def _pandas_way(self, kind: type, pd: Any) -> Callable[[Any], Any] | None:
        if issubclass(kind, pd.arrays.ArrowExtensionArray):
            return self._arrow_extension
        if issubclass(kind, pd.DataFrame | pd.Series):
            return self._frame
        if not kind.__module__.startswith("pandas.core.internals."):
            return None
        return self._manager if kind.__name__ == "BlockManager" else _block if kind.__name__.endswith("Block") else None

    def _frame(self, frame: Any) -> Any:
        self.needs_trust |= not allowed.is_allowed(type(frame))
        own = frame_attributes(frame)
        reduced = frame.__reduce_ex__(PROTOCOL) if own else ()
        if len(reduced) < _STATED or any(part is not None for part in reduced[_STATED:]):
            return NotImplemented  # nothing to add, or a class of somebody's that has a way of its own
        maker, arguments, state = reduced[:_STATED]
        return maker, arguments, (state, own), None, None, Builder.attributed

    def _polars_way(self, kind: type, pl: Any) -> Callable[[Any], Any] | None:
        return {pl.DataFrame: self._polars_frame, pl.Series: self._polars_series}.get(kind)

    def _array(self, array: Array) -> Reduced:
        dtype = array.dtype
        if dtype.hasobject or dtype.kind not in "biufcmMSUV":
            return self._objects(array) if dtype == np.dtype(object) else _records(array)
        form = dtype.str if dtype.isbuiltin == 1 and dtype.metadata is None else dtype
        if array.nbytes < LARGE:
            order = memory_order(array)
            dense = np.ascontiguousarray(array.transpose(order)).reshape(-1)
            data = bytearray(dense.view(np.uint8)) if array.nbytes else bytearray()
            strides = np.empty(array.shape, np.uint8).strides if not array.nbytes else _dense(array)
            return Builder.small, (data, form, array.shape, strides, array.flags.writeable)
        number = self.body.add(array, columns=id(array) in self.blocks)
        self.kept.append(array)
        region = self.body.regions[number]
        return Builder.array, (number, form, array.shape, region.strides, array.flags.writeable)

    def _objects(self, array: Array) -> Reduced:
        rows = array.reshape(-1, array.shape[-1]) if array.ndim == _TABLE and array.size else array.reshape(1, -1)
        # Object cells are pickled before anything is written, so what they say of memory is said once.
        self.kept.append(rows)
        state = [self._object_row(row) for row in rows] if array.size else [([], None)]
        fortran = bool(array.flags.f_contiguous and not array.flags.c_contiguous)
        return Builder.objects, (array.shape, fortran), (state, array.flags.writeable), None, None, Builder.fill

    def _object_row(self, row: Array) -> tuple[Any, Array | None]:
        text = self.canon.text(row) if row.size else None
        if text is None:
            cells = row.tolist()
            plain = _atoms(cells)
            return cells if plain is None else plain, None
        self.kept.append(text)
        return text.array, text.missing

    def _view(self, array: Array) -> Reduced:
        return Builder.view, (type(array), array.view(np.ndarray))

    def _masked(self, array: Any) -> Reduced:
        mask = array.mask if array.mask is np.ma.nomask else np.asarray(array.mask)
        if set(vars(array)) - _MASKED or array._optinfo or array._baseclass is not np.ndarray:
            return tuple(array.__reduce__())
        return Builder.masked, (array.data.view(np.ndarray), mask, array._fill_value, array._hardmask)

    def _manager(self, manager: Any) -> Any:
        arrays = [getattr(block.values, "_ndarray", block.values) for block in manager.blocks]
        self.blocks.update(id(array) for array in arrays if getattr(array, "ndim", 0) == _TABLE)
        return NotImplemented

    def _buffer(self, buffer: Any) -> Reduced:
        import pyarrow as pa

        if buffer.size < LARGE:
            return pa.py_buffer, (buffer.to_pybytes(),)
        key = (buffer.address, buffer.size)
        if key not in self.buffers:
            self.kept.append(buffer)
            self.buffers[key] = self.body.add(of_buffer(buffer))
        return Builder.buffer, (self.buffers[key],)

    def _arrow(self, array: Any) -> Reduced:
        made = self.canon.array(array)
        self.kept.append(made)
        restore, arguments = made.__reduce__()
        if getattr(restore, "__name__", "") == "_restore_array":
            return Builder.arrow, tuple(arguments)
        return restore, arguments

    def _arrow_extension(self, array: Any) -> Reduced:
        state = {key: value for key, value in vars(array).items() if key != "_cache"}
        state["_pa_array"] = [self.canon.array(array._pa_array)]
        self.kept.append(state)
        return copyreg.__newobj__, (type(array),), state  # type: ignore[attr-defined]

    def _polars_frame(self, frame: Any) -> Reduced:
        pairs = zip(frame.get_columns(), self.canon.polars(frame), strict=True)
        columns = [self._polars_column(*pair) for pair in pairs]
        return Builder.polars, (frame.columns, columns)

    def _polars_series(self, series: Any) -> Reduced:
        (array,) = self.canon.polars(series)
        if str(series.dtype) == "Object":
            return Builder.things, (series.name, series.to_list())
        if array is None:
            return tuple(series.__reduce_ex__(PROTOCOL))
        return Builder.series, (series.name, *self._polars_column(series, array))

    @staticmethod
    def _polars_column(series: Any, array: Any) -> tuple[Any, str]:
        flags = series.flags
        order = "ascending" if flags.get("SORTED_ASC") else "descending" if flags.get("SORTED_DESC") else ""
        return (series if array is None else array), order


_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodDescriptorType)


def is_part(value: object) -> bool:
    """Tell whether a value is one of the Builder's methods."""
    return getattr(value, "__module__", "") == __name__ and getattr(value, "__qualname__", "") in _PARTS


_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes})
_MANY = 500
"""Cells from which a pickle of their own pays."""


def _atoms(cells: list[object]) -> Array | None:
    """Return many plain cells, or tuples of plain cells, as a pickle of their own; None where there are others.

    A plain cell can be no reference to anything, and need not be asked about: that takes longer than to pickle it.
    """
    if len(cells) < _MANY:
        return None
    kinds = set(map(type, cells))
    if tuple in kinds:
        kinds.remove(tuple)
        kinds.update(map(type, chain.from_iterable(cell for cell in cells if type(cell) is tuple)))
    return np.frombuffer(pickle.dumps(cells, PROTOCOL), dtype=np.uint8) if kinds <= _ATOMS else None


class _Atoms(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise Damaged(f"plain cells name {module}.{name}")


def _records(array: Array) -> Any:
    """Return records with objects in them field by field; arrays of any other kind as NumPy keeps them."""
    if array.dtype.names is None:
        return array.__reduce_ex__(PROTOCOL)
    state = ([array[name] for name in array.dtype.names], array.flags.writeable)
    return Builder.records, (array.dtype, array.shape), state, None, None, Builder.fill_records


def _dense(array: Array) -> tuple[int, ...]:
    order = memory_order(array)
    strides = np.empty(tuple(array.shape[axis] for axis in order), array.dtype).strides
    return tuple(strides[order.index(axis)] for axis in range(array.ndim))


_TITLED = 2
"""Parts of a field's description, beyond which stands a title."""

_USERS = 2
"""What NumPy says of dtypes that another package brings."""


def _dtype(dtype: np.dtype[Any]) -> Any:
    """Return a dtype by its description: NumPy's own pickle sets flags that must not come from a file."""
    metadata = dict(dtype.metadata) if dtype.metadata else None
    if dtype.isbuiltin == 1:
        return Builder.dtype, (dtype.str, False, metadata)
    if dtype.names is not None:
        fields: Mapping[str, Any] = dtype.fields or {}
        names = list(dtype.names)
        form: dict[str, Any] = {
            "names": names,
            "formats": [fields[name][0] for name in names],
            "offsets": [fields[name][1] for name in names],
            "titles": [fields[name][2] if len(fields[name]) > _TITLED else None for name in names],
            "itemsize": dtype.itemsize,
        }
        return Builder.dtype, (form, dtype.isalignedstruct, metadata)
    if dtype.subdtype is not None:
        return Builder.dtype, (dtype.subdtype, False, metadata)
    if dtype.kind in "biufcmMSUVO" and dtype.isbuiltin != _USERS and np.dtype(dtype.str) == dtype:
        return Builder.dtype, (dtype.str, False, metadata)
    return NotImplemented


def _block(block: Any) -> Any:
    """Return a block over its own values: for protocol 5 pandas copies those that are not contiguous."""
    return block.__reduce__()


def _zone(zone: Any) -> Any:
    return (Builder.zone, (zone.key,)) if zone.key else NotImplemented


class SkeletonPickler(ValuePickler):
    """Keeps large buffers out of the pickle, and treats the objects in cells and attrs as the notebook's."""

    def __init__(
        self, file: io.BytesIO, planner: _Planner, namespace: Mapping[str, object] | None, refer: Refer | None
    ) -> None:
        super().__init__(file, namespace=namespace, refer=refer)
        self.planner = planner

    def persistent_id(self, value: object) -> Reference | None:
        """Return what stands in for an object of the notebook; the value's own parts are regions instead."""
        if type(value) is types.FunctionType and is_part(value):
            return None
        return super().persistent_id(value)

    def reducer_override(self, value: object) -> Any:
        """Reduce the value's own parts by regions, anything else as the notebook's values are."""
        reduced = self.planner.reduce(value)
        if reduced is not NotImplemented or is_part(value) or self.planner.is_plain(value):
            return reduced
        return super().reducer_override(value)


def dump(
    value: object,
    body: Body,
    canon: Canon,
    *,
    namespace: Mapping[str, object] | None = None,
    refer: Refer | None = None,
) -> tuple[bytes, bool]:
    """Return a value's skeleton and whether it can be read only with trust; its large buffers go to the body."""
    sink = io.BytesIO()
    planner = _Planner(body, canon)
    SkeletonPickler(sink, planner, namespace, refer).dump(value)
    # Whatever was made on the way is a region's memory until the file is written.
    body.keep(planner.kept)
    return sink.getvalue(), planner.needs_trust


# ---------------------------------------------------------------- reading


class SkeletonUnpickler(ValueUnpickler):
    """Reads a skeleton; what it may name is on a list, unless it is trusted."""

    def __init__(
        self,
        file: io.BytesIO,
        builder: Builder,
        *,
        trusted: bool,
        namespace: MutableMapping[str, object] | None,
        resolve: Resolve | None,
    ) -> None:
        super().__init__(file, namespace=namespace, resolve=resolve)
        self.builder = builder
        self.trusted = trusted

    def find_class(self, module: str, name: str) -> Any:
        """Return a class or function by its name."""
        if module == __name__ and name in _PARTS:
            return getattr(self.builder, name.removeprefix("Builder."))
        if self.trusted:
            return super().find_class(module, name)
        return allowed.find(module, name)


def load(
    data: Any,
    body: Array,
    regions: Sequence[Sequence[int]],
    *,
    trusted: bool,
    listed: bool,
    namespace: MutableMapping[str, object] | None = None,
    resolve: Resolve | None = None,
) -> object:
    """Return the value of a skeleton over the mapped body; with `listed` it may name only what is on the list."""
    builder = Builder(body, regions, trusted=trusted)
    try:
        return SkeletonUnpickler(
            io.BytesIO(data), builder, trusted=not listed, namespace=namespace, resolve=resolve
        ).load()
    except (Damaged, Untrusted, MemoryError):
        raise
    except Exception as error:
        # A pickle can fail in every way that its constructors can: a class that is gone, a library that changed.
        raise Damaged(f"it cannot be put together again: {type(error).__name__}: {error}") from error
