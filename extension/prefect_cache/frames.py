"""Anything frame-like as Arrow columns that other tools read.

A stored value has two faces. One is exact and ours (:mod:`prefect_cache.codecs`). This is the other: a
table of columns with the user's names, for pyarrow, polars, DuckDB, the panel's preview, and people who
have never heard of this package. It is lossy where Arrow has no such thing, and says so in a note; it never fails.

The two share memory: a column here names buffers of the value itself wherever Arrow's layout allows, and
the file then holds them once.

How values become columns
-------------------------
- DataFrame: one column for each, named ``str(label)``; a second of the same name is ``name#2``.
- Series, Index, array of one dimension: one column, named as it is, else ``value``.
- Array of two dimensions in column order: columns ``0``, ``1``, ...; any other array: one column
  ``value`` of fixed-size lists.
- The index: columns ``__index_level_0__``, ...; none for a RangeIndex, which only this package restores.
- Object cells: text where all are text, a typed column where Arrow finds one type, text for mixed plain
  scalars, else a null column.
"""

# ruff: noqa: SLF001 - what pandas' arrays hold inside is what is stored
from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    import pyarrow as pa

    from prefect_cache.model import Json

    Ints = npt.NDArray[np.integer[Any]]
    Array = npt.NDArray[Any]

INDEX_COLUMN = "__index_level_{}__"
"""What an index level's column is called."""

NOTE = b"prefect_cache.note"
"""The key in a field's metadata under which stands what the column loses."""

STEP = 2**19
"""Rows that a derived buffer is made of at a time."""

NAMED = 1000
"""Columns that a manifest describes by name; the file describes all."""

DENSE = 2**28
"""Bytes beyond which a sparse column is not spelled out for other tools."""


@dataclass(frozen=True, slots=True)
class Lazy:
    """Bytes made while they are written, a piece at a time: nobody holds them all."""

    size: int
    make: Callable[[], Iterator[Array]]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A column as Arrow's record batch counts it.

    `nodes` are (length, nulls) of the column and its children, `buffers` what they are made of,
    both depth-first; an array or Arrow buffer is memory of the value, None an absent buffer.
    """

    type: pa.DataType
    nodes: tuple[tuple[int, int], ...]
    buffers: tuple[Array | pa.Buffer | Lazy | None, ...]
    dictionary: pa.Array | None = None
    nested: pa.Array | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """One column of the table: its unique name, its Arrow form, the value's own dtype, what is lost."""

    name: str
    leaf: Leaf
    dtype: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A value as columns; `meta` is what a manifest says of it."""

    rows: int
    fields: tuple[Field, ...]
    meta: dict[str, Json] = field(default_factory=dict)


class Text:
    """A column of text objects as Arrow text, with what its missing cells were.

    `missing` holds for each cell 0 or the number in :data:`MISSING` of its object; None where all that is
    missing is None.
    """

    __slots__ = ("array", "missing")

    def __init__(self, array: pa.Array, missing: Array | None) -> None:
        self.array = array
        self.missing = missing


class Canon:
    """Canonical Arrow forms of one value's parts, each made once.

    Canonical: one chunk, no offset, buffers exactly as long as the rows need. A slice thus does not drag its
    parent along, and both faces of a file find the same memory.
    """

    def __init__(self) -> None:
        self._arrays: dict[int, tuple[object, pa.Array]] = {}
        self._messages: dict[int, pa.Buffer] = {}
        self._polars: dict[int, tuple[object, list[pa.Array | None]]] = {}
        self._texts: dict[tuple[int, int, int], tuple[object, Text | None]] = {}

    def array(self, given: pa.Array | pa.ChunkedArray) -> pa.Array:
        """Return the canonical array of an Arrow column."""
        known = self._arrays.get(id(given))
        if known is None:
            made = self._canonical(_one_chunk(given))
            # The given object is kept, for its id must not be taken by another.
            self._arrays[id(given)] = known = (given, made)
            self._arrays[id(made)] = (made, made)
        return known[1]

    def _canonical(self, array: pa.Array) -> pa.Array:
        import pyarrow as pa

        if pa.types.is_dictionary(array.type):
            indices, dictionary = self.array(array.indices), self.array(array.dictionary)
            return pa.DictionaryArray.from_arrays(indices, dictionary, ordered=array.type.ordered, safe=False)
        if isinstance(array, pa.ExtensionArray):
            return pa.ExtensionArray.from_storage(array.type, self.array(array.storage))
        if not _is_flat(array.type):
            return self._through_message(array)
        return _tight(array)

    def _through_message(self, array: pa.Array) -> pa.Array:
        """Let pyarrow cut a nested array to size: by the message that it would send."""
        import pyarrow as pa

        if pa.types.is_null(array.type) or _holds_dictionary(array.type):
            return array
        batch = pa.record_batch([array], names=[""])
        message = batch.serialize()
        made = pa.ipc.read_record_batch(message, batch.schema).column(0)
        self._messages[id(made)] = message
        return made

    def polars(self, value: Any) -> list[pa.Array | None]:
        """Return the canonical arrays of a polars frame's columns, None for those that Arrow would change."""
        known = self._polars.get(id(value))
        if known is None:
            import polars as pl

            columns = [value] if isinstance(value, pl.Series) else value.get_columns()
            # No rows: older versions of polars panic over empty lists from Arrow, and there is nothing to share.
            whole = [len(one) > 0 and polars_has_arrow(one.dtype) for one in columns]
            made = [self.array(one.to_arrow()) if keep else None for one, keep in zip(columns, whole, strict=True)]
            self._polars[id(value)] = known = (value, made)
        return known[1]

    def message(self, array: pa.Array) -> pa.Buffer | None:
        """Return the record batch message whose body is the memory of a canonical nested array."""
        return self._messages.get(id(array))

    def text(self, cells: Array) -> Text | None:
        """Return a one-dimensional object array as text; None where it is not all text and missing values."""
        key = (cells.__array_interface__["data"][0], cells.strides[0], len(cells))
        known = self._texts.get(key)
        if known is None:
            self._texts[key] = known = (cells, self._text(cells))
        return known[1]

    def _text(self, cells: Array) -> Text | None:
        import pyarrow as pa

        values = cells.tolist()
        kinds = set(map(type, values))
        missing = None if kinds <= {str, type(None)} else _missing_kinds(values, kinds)
        if str not in kinds or (missing is None and not kinds <= {str, type(None)}):
            return None
        try:
            array = pa.array(cells, type=pa.large_string(), mask=None if missing is None else missing != 0)
        except (pa.ArrowException, UnicodeEncodeError):  # a lone surrogate has no form in Arrow
            return None
        return Text(self.array(array.dictionary_encode() if _is_repeated(values) else array), missing)


def _is_repeated(values: list[object]) -> bool:
    """Tell whether the same objects stand in many cells: then they are kept once, and come back as one."""
    return len(values) > STEP >> 10 and 2 * len(set(map(id, values))) <= len(values)


MISSING = ("", "None", "nan", "NA", "NaT")
"""The objects that stand for a missing text, by number; their order is part of the format."""


def missing_objects() -> list[object]:
    """Return the objects that :data:`MISSING` names; those of pandas are None where it is not loaded."""
    import numpy as np

    pandas = sys.modules.get("pandas")
    return ["", None, np.nan, getattr(pandas, "NA", None), getattr(pandas, "NaT", None)]


def _missing_kinds(values: list[object], kinds: set[type]) -> Array | None:
    """Return each cell's number in MISSING (0: text), or None if a cell is neither text nor missing."""
    import numpy as np

    numbers: dict[type, int] = {str: 0}
    objects = missing_objects()
    for number, thing in enumerate(objects[1:], 1):
        numbers.setdefault(type(thing), number)
    if not kinds <= set(numbers):
        return None
    nan = objects[MISSING.index("nan")]
    if float in kinds and any(value is not nan for value in values if type(value) is float):
        return None  # another NaN, or a number
    return np.fromiter((numbers[type(value)] for value in values), dtype=np.int8, count=len(values))


# ---------------------------------------------------------------- Arrow arrays, cut to size


def _one_chunk(given: pa.Array | pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa

    if not isinstance(given, pa.ChunkedArray):
        return given
    if given.num_chunks == 1:
        return given.chunk(0)
    if given.num_chunks == 0:
        return pa.array([], type=given.type)
    combined = given.combine_chunks()
    return combined if not isinstance(combined, pa.ChunkedArray) else pa.concat_arrays(combined.chunks)


def _is_flat(kind: pa.DataType) -> bool:
    """Tell whether a column of this type is one node with a bitmap, perhaps offsets, and data."""
    import pyarrow as pa

    types = pa.types
    if types.is_null(kind) or types.is_nested(kind) or types.is_dictionary(kind):
        return False
    return _width(kind) is not None or _offsets(kind) is not None


def _width(kind: pa.DataType) -> int | None:
    """Return the bits of one value, where all have as many."""
    try:
        return int(kind.bit_width)
    except ValueError:
        return None


def _offsets(kind: pa.DataType) -> type[np.integer[Any]] | None:
    """Return the type of a text or binary column's offsets."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return np.int32
    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        return np.int64
    return None


def _holds_dictionary(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return True
    if isinstance(kind, pa.BaseExtensionType):
        return _holds_dictionary(kind.storage_type)
    return any(_holds_dictionary(kind.field(number).type) for number in range(kind.num_fields))


def _tight(array: pa.Array) -> pa.Array:
    """Return a flat array whose buffers start with its first row and end with its last."""
    import numpy as np
    import pyarrow as pa

    if array.offset or _starts_late(array):
        # Joining with nothing copies, and copies only the rows.
        array = pa.concat_arrays([array, array.slice(0, 0)])
    rows = len(array)
    bits, *rest = array.buffers()
    cut = [None if bits is None or not array.null_count else bits.slice(0, (rows + 7) // 8)]
    offsets = _offsets(array.type)
    if offsets is not None:
        width = np.dtype(offsets).itemsize
        starts = rest[0].slice(0, (rows + 1) * width) if rows else pa.py_buffer(bytes(width))
        end = int(np.frombuffer(starts, dtype=offsets)[-1])
        cut += [starts, rest[1].slice(0, end) if rest[1] is not None else pa.py_buffer(b"")]
    else:
        size = (rows * (_width(array.type) or 0) + 7) // 8
        cut.append(rest[0].slice(0, size) if rest[0] is not None else pa.py_buffer(b""))
    return pa.Array.from_buffers(array.type, rows, cut, array.null_count)


def _starts_late(array: pa.Array) -> bool:
    """Tell whether the first text of a column does not start its data."""
    import numpy as np

    offsets = _offsets(array.type)
    if offsets is None or not len(array):
        return False
    return int(np.frombuffer(array.buffers()[1], dtype=offsets, count=1)[0]) != 0


# ---------------------------------------------------------------- values as columns


def nbytes(value: Any) -> int:
    """Return about how many bytes the buffers of a value take, in no time; cells of objects count as their pointers."""
    if (manager := getattr(value, "_mgr", None)) is not None and hasattr(manager, "blocks"):
        return sum(int(block.values.nbytes) for block in manager.blocks)  # noqa: PD011 - a block's own array
    size = getattr(value, "nbytes", None)
    if size is None and (estimate := getattr(value, "estimated_size", None)) is not None:
        size = estimate()
    return int(size or 0)


def table_of(value: object, canon: Canon) -> Table:
    """Return any value that the Arrow codecs accept, as columns for other tools."""
    import numpy as np
    import pyarrow as pa

    if isinstance(value, np.ndarray):
        return _of_array(value, canon)
    if isinstance(value, pa.Table | pa.RecordBatch):
        return _of_arrow_table(value, canon)
    if isinstance(value, pa.Array | pa.ChunkedArray):
        return _of_arrow_column(value, canon)
    if (polars := sys.modules.get("polars")) is not None and isinstance(value, polars.DataFrame | polars.Series):
        return _of_polars(value, canon)
    return _of_pandas(value, canon)


def column_names(labels: Iterable[Hashable]) -> list[str]:
    """Return labels as text, each once: the second ``a`` is ``a#2``; what UTF-8 cannot hold is escaped."""
    taken: set[str] = set()
    names = []
    for label in labels:
        text = str(label).encode("utf-8", "backslashreplace").decode()
        name, number = text, 1
        while name in taken:
            number += 1
            name = f"{text}#{number}"
        taken.add(name)
        names.append(name)
    return names


def _meta(rows: int, shape: Iterable[int], fields: Iterable[Field], **more: Json) -> dict[str, Json]:
    described = list(fields)
    columns: list[Json] = [_column(one) for one in described[:NAMED]]
    return {"rows": rows, "shape": list(shape), "columns": columns, "total_columns": len(described), **more}


def _column(one: Field) -> dict[str, Json]:
    described: dict[str, Json] = {"name": one.name, "dtype": one.dtype}
    return described | {"note": one.note} if one.note else described


def _of_array(array: Array, canon: Canon) -> Table:
    import numpy as np

    plain = array.view(np.ndarray) if not isinstance(array, np.ma.MaskedArray) else array.data.view(np.ndarray)
    if isinstance(array, np.ma.MaskedArray) and array.ndim == 1 and array.mask is not np.ma.nomask:
        leaf, note = _masked(plain, np.asarray(array.mask), canon)
        fields: tuple[Field, ...] = (Field("value", leaf, str(array.dtype), note),)
    else:
        fields = tuple(_array_fields(plain, canon))
    rows = array.shape[0] if array.ndim else 1
    return Table(rows, fields, _meta(rows, array.shape, fields, dtype=str(array.dtype)))


_TABLE = 2
"""Dimensions of what has rows and columns."""


def _array_fields(array: Array, canon: Canon) -> Iterator[Field]:
    dtype = str(array.dtype)
    if array.dtype.names and array.ndim == 1:
        for name in array.dtype.names:
            part = array[name]
            leaf, note = numpy_leaf(part, canon) if part.ndim == 1 else _no_form(len(array), "an array in each record")
            yield Field(name, leaf, str(part.dtype), note)
    elif array.ndim <= 1:
        leaf, note = numpy_leaf(array.reshape(-1), canon)
        yield Field("value", leaf, dtype, note)
    elif array.ndim == _TABLE and array.flags.f_contiguous and not array.flags.c_contiguous and array.shape[1] <= NAMED:
        for number in range(array.shape[1]):
            leaf, note = numpy_leaf(array[:, number], canon)
            yield Field(str(number), leaf, dtype, note)
    else:
        leaf, note = _lists(array, canon)
        yield Field("value", leaf, dtype, note)


def _lists(array: Array, canon: Canon) -> tuple[Leaf, str]:
    """Return rows of an array of several dimensions as fixed-size lists."""
    import pyarrow as pa

    rows = array.shape[0]
    if not array.flags.c_contiguous or not array.size or array.dtype.names or array.dtype.hasobject:
        return _no_form(rows, f"an array of shape {array.shape}, strides {array.strides}")
    inner, note = numpy_leaf(array.reshape(-1), canon)
    if not inner.buffers or inner.dictionary is not None:
        return _no_form(rows, note or "no lists of these")
    kind = pa.list_(inner.type, array.size // rows)
    return Leaf(kind, ((rows, 0), *inner.nodes), (None, *inner.buffers)), note


def _of_arrow_table(value: pa.Table | pa.RecordBatch, canon: Canon) -> Table:
    names = column_names(value.schema.names)
    fields = tuple(Field(name, *_described(column, canon)) for name, column in zip(names, value.columns, strict=True))
    return Table(value.num_rows, fields, _meta(value.num_rows, (value.num_rows, len(names)), fields))


def _of_arrow_column(value: pa.Array | pa.ChunkedArray, canon: Canon) -> Table:
    fields = (Field("value", *_described(value, canon)),)
    return Table(len(value), fields, _meta(len(value), (len(value),), fields, dtype=str(value.type)))


def _described(column: pa.Array | pa.ChunkedArray, canon: Canon) -> tuple[Leaf, str, str]:
    leaf, note = arrow_leaf(canon.array(column))
    return leaf, str(column.type), note


def _of_polars(value: Any, canon: Canon) -> Table:
    import polars as pl

    frame = value.to_frame() if isinstance(value, pl.Series) else value
    names = column_names(name or "value" for name in frame.columns)
    fields = []
    for name, series, array in zip(names, frame.get_columns(), canon.polars(value), strict=True):
        leaf, note = _polars_leaf(series, canon) if array is None else arrow_leaf(array)
        fields.append(Field(name, leaf, str(series.dtype), note))
    more: dict[str, Json] = {"dtype": str(value.dtype)} if isinstance(value, pl.Series) else {}
    return Table(frame.height, tuple(fields), _meta(frame.height, value.shape, fields, **more))


def _polars_leaf(series: Any, canon: Canon) -> tuple[Leaf, str]:
    import polars as pl
    import pyarrow as pa

    if series.dtype == pl.Object:  # its Arrow form would be addresses
        return _no_form(len(series), "objects")
    try:
        made = series.to_arrow()
    except (pl.exceptions.PolarsError, pa.ArrowException, TypeError, ValueError):
        return _no_form(len(series), str(series.dtype))
    return arrow_leaf(canon.array(made))


def polars_has_arrow(dtype: Any) -> bool:
    """Tell whether a polars column of this type is the same again after a way through Arrow."""
    import polars as pl

    if dtype.is_nested():
        inner = [f.dtype for f in dtype.fields] if isinstance(dtype, pl.Struct) else [dtype.inner]
        return all(map(polars_has_arrow, inner))
    plain = (pl.Boolean, pl.Date, pl.Datetime, pl.Duration, pl.Time, pl.String, pl.Binary)
    return bool(dtype.is_float() or dtype in plain or (dtype.is_integer() and dtype not in _polars_wide()))


def _polars_wide() -> tuple[Any, ...]:
    import polars as pl

    return tuple(getattr(pl, name) for name in ("Int128", "UInt128") if hasattr(pl, name))


def _of_pandas(value: Any, canon: Canon) -> Table:
    import pandas as pd

    if isinstance(value, pd.Index):
        fields = tuple(_level_fields(value, canon, "value"))
        return Table(len(value), fields, _meta(len(value), value.shape, fields, dtype=str(value.dtype)))
    columns = [value.iloc[:, i] for i in range(value.shape[1])] if isinstance(value, pd.DataFrame) else [value]
    own_name = ["value" if value.name is None else value.name] if isinstance(value, pd.Series) else []
    labels = own_name or value.columns.tolist()
    index = [] if isinstance(value.index, pd.RangeIndex) else list(_level_fields(value.index, canon, INDEX_COLUMN))
    names = column_names([*(one.name for one in index), *labels])[len(index) :]
    own = []
    for name, column in zip(names, columns, strict=True):
        leaf, note = pandas_leaf(column.array, canon)
        own.append(Field(name, leaf, str(column.dtype), note))
    more: dict[str, Json] = {} if isinstance(value, pd.DataFrame) else {"dtype": str(value.dtype)}
    return Table(len(value), (*own, *index), _meta(len(value), value.shape, own, **more))


def _level_fields(index: pd.Index, canon: Canon, name: str) -> Iterator[Field]:
    import pandas as pd

    if isinstance(index, pd.MultiIndex):
        for number, (level, codes) in enumerate(zip(index.levels, index.codes, strict=True)):
            import numpy as np

            label = name.format(number) if name == INDEX_COLUMN else f"{name}#{number + 1}" if number else name
            leaf, note = _coded(np.asarray(codes), level)
            yield Field(label, leaf, str(level.dtype), note)
    elif isinstance(index, pd.RangeIndex):
        leaf, note = _range(index)
        yield Field(name.format(0), leaf, str(index.dtype), note)
    else:
        leaf, note = pandas_leaf(index.array, canon)
        yield Field(name.format(0), leaf, str(index.dtype), note)


# ---------------------------------------------------------------- columns as leaves


def pandas_leaf(array: Any, canon: Canon) -> tuple[Leaf, str]:
    """Return one pandas array as an Arrow column, and what it loses."""
    for kind, form in _pandas_forms():
        if isinstance(array, kind):
            return form(array, canon)
    if hasattr(array, "_mask") and hasattr(array, "_data"):
        return _masked(array._data, array._mask, canon)
    return _by_arrow(array, canon)


_Form = Callable[[Any, Canon], tuple[Leaf, str]]


@cache
def _pandas_forms() -> tuple[tuple[type, _Form], ...]:
    """Return the array classes whose memory, or meaning, other tools can be shown."""
    import numpy as np
    import pandas as pd

    arrays = pd.arrays
    return (
        # Text in Python's objects is a kind of NumPy array: first.
        (arrays.StringArray, lambda array, canon: numpy_leaf(np.asarray(array, dtype=object), canon)),
        (arrays.NumpyExtensionArray, lambda array, canon: numpy_leaf(array.to_numpy(), canon)),
        (arrays.ArrowExtensionArray, lambda array, canon: arrow_leaf(canon.array(array._pa_array))),
        (pd.Categorical, lambda array, _: _coded(np.asarray(array.codes), array.categories)),
        (arrays.DatetimeArray, lambda array, _: _moments(array.asi8, array.unit, array.tz)),
        (arrays.TimedeltaArray, lambda array, _: (_lengths(array.asi8, array.unit), "")),
        (arrays.PeriodArray, lambda array, _: _periods(array)),
        (arrays.IntervalArray, lambda array, _: _intervals(array)),
        (arrays.SparseArray, _sparse),
    )


def _by_arrow(array: Any, canon: Canon) -> tuple[Leaf, str]:
    """Return a column as Arrow sees it, where it does."""
    import pyarrow as pa

    try:
        made = pa.array(array)
    except Exception as error:  # noqa: BLE001 - another package's array may raise anything; its own form is kept
        return _no_form(len(array), f"{getattr(array, 'dtype', type(array).__name__)}: {error}"[:200])
    return arrow_leaf(canon.array(made))


def _no_form(rows: int, what: str) -> tuple[Leaf, str]:
    """Return a column of nulls, with the reason for them."""
    import pyarrow as pa

    return Leaf(pa.null(), ((rows, rows),), ()), f"no Arrow form: {what}"


def arrow_leaf(array: pa.Array) -> tuple[Leaf, str]:
    """Return a canonical Arrow array as a column, and what it loses."""
    import pyarrow as pa

    if isinstance(array, pa.ExtensionArray):
        leaf, note = arrow_leaf(array.storage)
        return leaf, note or f"storage of {array.type}"
    kind = array.type
    if pa.types.is_null(kind):
        return Leaf(kind, ((len(array), len(array)),), ()), ""
    if (widened := _widened(array)) is not None:
        return widened
    if pa.types.is_dictionary(kind):
        inner, _ = arrow_leaf(array.indices)
        return Leaf(kind, inner.nodes, inner.buffers, dictionary=array.dictionary), ""
    if not _is_flat(kind):
        return Leaf(kind, (), (), nested=array), ""
    return Leaf(kind, ((len(array), array.null_count),), tuple(array.buffers())), ""


def _widened(array: pa.Array) -> tuple[Leaf, str] | None:
    """Return a column of a type that some tool refuses as one that all read; None where there is no need."""
    import pyarrow as pa
    import pyarrow.compute as pc

    types, kind = pa.types, array.type
    if types.is_float16(kind):
        return arrow_leaf(array.cast(pa.float32()))
    if types.is_decimal256(kind):
        return arrow_leaf(array.cast(pa.large_string()))[0], f"{kind} as text"
    if types.is_run_end_encoded(kind):
        return arrow_leaf(Canon().array(pc.run_end_decode(array)))[0], "runs spelled out"
    if types.is_union(kind) or types.is_interval(kind):
        texts = [None if cell is None else _as_text(cell) for cell in array.to_pylist()]
        return arrow_leaf(Canon().array(pa.array(texts, type=pa.large_string())))[0], f"{kind} as text"
    return None


def numpy_leaf(array: Array, canon: Canon) -> tuple[Leaf, str]:
    """Return a one-dimensional NumPy array as a column, and what it loses."""
    kind = array.dtype.kind
    if kind == "O":
        return _objects(array, canon)
    if kind in "SUT":
        return _by_arrow(array.astype(object) if kind == "T" else array, canon)
    if kind == "M":
        return _moments_of(array)
    if kind == "m":
        return _spans(array)
    if kind == "b":
        return _plain("bool_", len(array), _packed(len(array), lambda part: array[part])), ""
    return _floats(array) if kind in "iuf" else _bytes(array)


def _floats(array: Array) -> tuple[Leaf, str]:
    """Return numbers as they are where tools can read them, else as the nearest that they can."""
    import numpy as np

    dtype, rows = array.dtype, len(array)
    if dtype.itemsize > _WIDEST:
        return _plain("float64", rows, _cast(array, np.dtype("f8"))), "rounded to float64"
    wanted = np.dtype("f4") if dtype.kind == "f" and dtype.itemsize < _NARROWEST_FLOAT else dtype.newbyteorder("=")
    return _plain(wanted.name, rows, array if wanted == dtype and dtype.isnative else _cast(array, wanted)), ""


_WIDEST = 8
_NARROWEST_FLOAT = 4


def _bytes(array: Array) -> tuple[Leaf, str]:
    """Return complex numbers as pairs and plain bytes as they are."""
    import pyarrow as pa

    dtype, rows = array.dtype, len(array)
    if dtype.kind == "c" and dtype.itemsize <= 2 * _WIDEST and dtype.isnative:
        return _pairs(array), "complex numbers as pairs"
    if dtype.kind == "V" and dtype.names is None and dtype.itemsize:
        return Leaf(pa.binary(dtype.itemsize), ((rows, 0),), (None, array)), ""
    return _no_form(rows, str(dtype))


def _plain(kind: str, rows: int, data: Array | Lazy) -> Leaf:
    import pyarrow as pa

    return Leaf(getattr(pa, kind)(), ((rows, 0),), (None, data))


def _steps(rows: int) -> Iterator[slice]:
    return (slice(start, min(start + STEP, rows)) for start in range(0, rows, STEP))


def _cast(array: Array, dtype: np.dtype[Any]) -> Lazy:
    import numpy as np

    def parts() -> Iterator[Array]:
        for part in _steps(len(array)):
            with np.errstate(all="ignore"):  # what does not fit is infinite
                yield array[part].astype(dtype)

    return Lazy(len(array) * dtype.itemsize, parts)


def _packed(rows: int, bools: Callable[[slice], Array]) -> Lazy:
    """Return bools as bits, lowest first."""
    import numpy as np

    return Lazy((rows + 7) // 8, lambda: (np.packbits(bools(part), bitorder="little") for part in _steps(rows)))


def _count(rows: int, bools: Callable[[slice], Array]) -> int:
    import numpy as np

    return sum(int(np.count_nonzero(bools(part))) for part in _steps(rows))


def _with_nulls(leaf: Leaf, nulls: int, valid: Callable[[slice], Array]) -> Leaf:
    """Return a column of one node with a bitmap of its valid rows."""
    rows = leaf.nodes[0][0]
    bits = _packed(rows, valid) if nulls else None
    return Leaf(leaf.type, ((rows, nulls),), (bits, *leaf.buffers[1:]), leaf.dictionary)


def _pairs(array: Array) -> Leaf:
    import pyarrow as pa

    inner = pa.float32() if array.dtype.itemsize == _WIDEST else pa.float64()
    return Leaf(pa.list_(inner, 2), ((len(array), 0), (2 * len(array), 0)), (None, None, array))


def _nat(ticks: Ints, kind: pa.DataType, data: Array | Lazy | None = None) -> Leaf:
    """Return counts of ticks as a column whose NaT are null."""
    import numpy as np

    never = np.iinfo(np.int64).min
    rows = len(ticks)
    nulls = _count(rows, lambda part: ticks[part] == never)
    leaf = Leaf(kind, ((rows, 0),), (None, ticks if data is None else data))
    return _with_nulls(leaf, nulls, lambda part: ticks[part] != never)


_UNITS = ("s", "ms", "us", "ns")


def _moments(ticks: Ints, unit: str, zone: object) -> tuple[Leaf, str]:
    import pyarrow as pa

    if zone is None:
        return _nat(ticks, pa.timestamp(unit)), ""
    try:
        name = pa.lib.tzinfo_to_string(zone)
        pa.lib.string_to_tzinfo(name)
    except (pa.ArrowException, ValueError, TypeError, LookupError):
        name = "+"
    if name.startswith(("+", "-")):  # polars knows names only
        return _nat(ticks, pa.timestamp(unit, "UTC")), f"the zone {zone} as UTC"
    return _nat(ticks, pa.timestamp(unit, name)), ""


def _moments_of(array: Array) -> tuple[Leaf, str]:
    import numpy as np
    import pyarrow as pa

    unit, multiple = np.datetime_data(array.dtype)
    if not array.dtype.isnative or multiple != 1:
        return _no_form(len(array), str(array.dtype))
    ticks = array.view(np.int64)
    if unit in _UNITS:
        return _nat(ticks, pa.timestamp(unit)), ""
    if unit == "D":
        return _nat(ticks, pa.date32(), _cast(ticks, np.dtype("i4"))), ""
    if unit in ("h", "m", "W", "M", "Y"):
        seconds = array.astype("M8[s]").view(np.int64)
        return _nat(seconds, pa.timestamp("s")), f"{array.dtype} as seconds"
    return _no_form(len(array), str(array.dtype))


def _spans(array: Array) -> tuple[Leaf, str]:
    import numpy as np

    unit, multiple = np.datetime_data(array.dtype)
    if not array.dtype.isnative or multiple != 1:
        return _no_form(len(array), str(array.dtype))
    if unit in _UNITS:
        return _lengths(array.view(np.int64), unit), ""
    if unit in ("W", "D", "h", "m"):
        return _lengths(array.astype("m8[s]").view(np.int64), "s"), f"{array.dtype} as seconds"
    return _no_form(len(array), str(array.dtype))


def _lengths(ticks: Ints, unit: str) -> Leaf:
    """Return spans of time; DuckDB multiplies even what is null, so coarse units have no NaT under their nulls."""
    import numpy as np
    import pyarrow as pa

    leaf = _nat(ticks, pa.duration(unit))
    if not leaf.nodes[0][1] or unit not in ("s", "ms"):
        return leaf
    never = np.iinfo(np.int64).min
    parts = Lazy(ticks.nbytes, lambda: (np.where(ticks[p] == never, 0, ticks[p]) for p in _steps(len(ticks))))
    return Leaf(leaf.type, leaf.nodes, (leaf.buffers[0], parts))


def _masked(data: Array, mask: Array, canon: Canon) -> tuple[Leaf, str]:
    leaf, note = numpy_leaf(data, canon)
    if len(leaf.nodes) != 1 or leaf.nested is not None:
        return _no_form(len(data), str(data.dtype))
    return _with_nulls(leaf, _count(len(data), lambda part: mask[part]), lambda part: ~mask[part]), note


def _coded(codes: Ints, values: pd.Index) -> tuple[Leaf, str]:
    """Return codes into values as a dictionary column.

    polars refuses a code of -1 even under a null: where there are some, the column has codes of its own.
    """
    import numpy as np
    import pyarrow as pa

    dictionary, note = _dictionary(values)
    if not len(dictionary):
        return _no_form(len(codes), "no categories") if len(codes) else (_plain("null", 0, codes), "")
    rows = len(codes)
    nulls = _count(rows, lambda part: codes[part] < 0)
    own = Lazy(codes.nbytes, lambda: (np.maximum(codes[part], 0) for part in _steps(rows)))
    kind = pa.dictionary(pa.from_numpy_dtype(codes.dtype), dictionary.type)
    leaf = Leaf(kind, ((rows, 0),), (None, own if nulls else codes), dictionary)
    return _with_nulls(leaf, nulls, lambda part: codes[part] >= 0), note


def _dictionary(values: pd.Index) -> tuple[pa.Array, str]:
    import pyarrow as pa

    try:
        made = _one_chunk(pa.array(values))
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        made = None
    if made is not None and _is_flat(made.type) and not isinstance(made, pa.ExtensionArray) and not made.null_count:
        return made, ""
    return pa.array([_as_text(value) for value in values], type=pa.large_string()), f"{values.dtype} as text"


def _as_text(value: object) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode()


def _range(index: pd.RangeIndex) -> tuple[Leaf, str]:
    import numpy as np

    rows = len(index)
    if 8 * rows > DENSE:
        return _no_form(rows, f"{index!r} is too long to spell out")
    start, step = index.start, index.step
    numbers = Lazy(8 * rows, lambda: (start + step * np.arange(part.start, part.stop) for part in _steps(rows)))
    return _plain("int64", rows, numbers), ""


def _periods(array: Any) -> tuple[Leaf, str]:
    try:
        starts = array.to_timestamp()
    except (ValueError, OverflowError):  # out of the range of timestamps
        return _no_form(len(array), str(array.dtype))
    leaf, _ = _moments(starts.asi8, starts.unit, None)
    return leaf, f"the start of each {array.dtype}"


def _intervals(array: Any) -> tuple[Leaf, str]:

    leaf, _ = _by_arrow(array, Canon())
    return leaf, f"{array.dtype} as left and right"


def _sparse(array: Any, canon: Canon) -> tuple[Leaf, str]:
    import numpy as np

    if len(array) * array.dtype.subtype.itemsize > DENSE:
        return _no_form(len(array), f"{array.dtype}: too large to spell out")
    return numpy_leaf(np.asarray(array), canon)


MAX_DEPTH = 100
"""Containers in containers that Arrow is asked to follow: it ends the process where there is no end to them (26.0)."""


def _is_deep(cells: Array) -> bool:
    """Tell whether containers in cells are nested beyond all use, or hold themselves."""
    import numpy as np

    kinds = (list, tuple, dict, set, frozenset, np.ndarray)
    level: dict[int, Any] = {id(cell): cell for cell in cells if isinstance(cell, kinds)}
    for _ in range(MAX_DEPTH):
        if not level:
            return False
        level = {id(part): part for outer in level.values() for part in _parts(outer) if isinstance(part, kinds)}
    return bool(level)


def _parts(container: Any) -> Any:
    import numpy as np

    if isinstance(container, np.ndarray):
        return container.flat if container.dtype.hasobject else ()
    return container.values() if isinstance(container, dict) else container


_SCALARS = (str, bool, int, float, bytes, type(None))


def _objects(cells: Array, canon: Canon) -> tuple[Leaf, str]:
    """Return object cells as the one type that Arrow finds, or as text where they are plain scalars."""
    import pyarrow as pa

    text = canon.text(cells) if len(cells) else None
    if text is not None:
        return arrow_leaf(text.array)
    if _is_deep(cells):
        return _no_form(len(cells), "objects nested too deeply")
    try:
        made = _one_chunk(pa.array(cells, from_pandas=True))
    except (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError, RecursionError):
        return _scalars(cells, canon)
    return arrow_leaf(canon.array(made))


def _scalars(cells: Array, canon: Canon) -> tuple[Leaf, str]:
    import datetime as dt
    import decimal

    import pyarrow as pa

    plain = (*_SCALARS, dt.date, dt.time, dt.timedelta, decimal.Decimal)
    if not all(isinstance(cell, plain) for cell in cells):
        return _no_form(len(cells), "objects")
    try:
        made = pa.array([None if cell is None else str(cell) for cell in cells], type=pa.large_string())
    except UnicodeEncodeError:  # a lone surrogate somewhere
        made = pa.array([None if cell is None else _as_text(cell) for cell in cells], type=pa.large_string())
    return arrow_leaf(canon.array(made))[0], "mixed cells as text"
