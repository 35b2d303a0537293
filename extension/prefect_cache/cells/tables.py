"""Shapes of pandas' values: labels, dtypes and values column by column, however blocks hold them.

Nothing is imported here. The one thing of pandas' inner life that is used is the block manager of a
frame (``_mgr.blocks``): its arrays are the columns, and asking for them by name would copy.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from prefect_cache.cells import named, plain
from prefect_cache.cells.arrays import array_digest, dtype_text, numpy, row_digests
from prefect_cache.cells.columns import column_digest, put_masked, table_detail, type_text
from prefect_cache.cells.pieces import Pieces
from prefect_cache.cells.walk import Shape, Walk, truncated
from prefect_cache.codecs.instances import frame_attributes
from prefect_cache.digests import Hasher, combine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prefect_cache.cells.plain import Handler
    from prefect_cache.model import Digest, Json, Step

    Place = Callable[[int], Step]


def pandas() -> Any:
    """Return pandas, which is there where one of its values is."""
    return sys.modules["pandas"]


# ------------------------------------------------------------------------------------------ values of one column


def put_values(pieces: Pieces, values: Any, place: Place) -> Digest:
    """Append a one-dimensional array of any kind, and return its digest as far as leaves go."""
    if isinstance(values, numpy().ndarray):
        return _put_ndarray(pieces, values, place)
    kind = next((k for base in type(values).__mro__ if (k := _KINDS.get(base.__name__)) and _is_pandas(base)), None)
    if kind is None:
        pieces.own(str(values.dtype))
        return pieces.part(place(-1), _state_of_array(values))
    return kind(pieces, values, place)


def _is_pandas(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "pandas"


def _state_of_array(values: Any) -> object:
    """Return what stands for another package's extension array: its class and its objects."""
    return (type(values), str(values.dtype), [*values])


def _put_ndarray(pieces: Pieces, values: Any, place: Place) -> Digest:
    if values.dtype.hasobject or values.dtype.kind == "T":
        pieces.own(dtype_text(values.dtype))
        return pieces.run(values.tolist(), place)
    made = combine("values", dtype_text(values.dtype), _bytes(values))
    pieces.own(made)
    return made


def _bytes(values: Any) -> Digest:
    """Return the digest of one column, the same as its row in a block has."""
    return (
        row_digests(values.reshape(1, -1) if values.flags.c_contiguous else values)[0]
        if len(values)
        else array_digest(values)
    )


def _put_arrow(pieces: Pieces, values: Any, _place: Place) -> Digest:
    held = values._pa_array  # noqa: SLF001 - its public forms copy
    text = "" if _is_text(values) else type_text(held.type)
    found = column_digest(held.chunks, held.type)
    pieces.own(_dtype_text(values.dtype), text, found)
    return found


def _is_text(values: Any) -> bool:
    return isinstance(values.dtype, pandas().StringDtype)


def _put_strings(pieces: Pieces, values: Any, place: Place) -> Digest:
    pieces.own(_dtype_text(values.dtype))
    return pieces.run(values._ndarray.tolist(), place)  # noqa: SLF001


def _put_masked(pieces: Pieces, values: Any, _place: Place) -> Digest:
    hasher, hidden = Hasher(), values._mask  # noqa: SLF001
    data = numpy().ascontiguousarray(values._data)  # noqa: SLF001
    holes = bool(hidden.any())
    put_masked(hasher, data, hidden if holes else None)
    mask = array_digest(hidden) if holes else "no nulls"
    found = combine("masked", str(values.dtype), len(values), mask, hasher.hexdigest())
    pieces.own(found)
    return found


def _put_categorical(pieces: Pieces, values: Any, place: Place) -> Digest:
    codes = array_digest(values.codes)
    pieces.own(str(values.ordered), dtype_text(values.codes.dtype), codes)
    found = put_index(pieces, values.categories, place)
    return combine("categorical", str(values.ordered), codes, found)


def _put_moments(pieces: Pieces, values: Any, place: Place) -> Digest:
    """Append datetimes, timedeltas or periods: their numbers and their dtype, zone included."""
    numbers = values._ndarray.view("i8")  # noqa: SLF001 - asi8 is the same, but periods' is a copy in some versions
    found = combine("moments", _dtype_text(values.dtype), _bytes(numbers))
    pieces.own(found)
    zone = getattr(values.dtype, "tz", None)
    if zone is not None:
        pieces.part(place(-1), zone)
    return found


def _ends(pieces: Pieces, values: Any, place: Place) -> Digest:
    pieces.own("intervals", values.closed)
    left = put_values(pieces, _array_of(values.left), place)
    right = put_values(pieces, _array_of(values.right), place)
    return combine("intervals", values.closed, left, right)


def _put_sparse(pieces: Pieces, values: Any, place: Place) -> Digest:
    positions = values.sp_index.to_int_index().indices
    pieces.own("sparse", values.kind, len(values), array_digest(positions))
    fill = pieces.part(place(-1), values.fill_value)
    found = put_values(pieces, values.sp_values, place)
    return combine("sparse", array_digest(positions), fill, found)


def _put_wrapped(pieces: Pieces, values: Any, place: Place) -> Digest:
    pieces.own("wrapped")
    return put_values(pieces, values._ndarray, place)  # noqa: SLF001


_KINDS: dict[str, Callable[[Pieces, Any, Place], Digest]] = {
    "ArrowExtensionArray": _put_arrow,
    "ArrowStringArray": _put_arrow,
    "StringArray": _put_strings,
    "BaseMaskedArray": _put_masked,
    "Categorical": _put_categorical,
    "DatetimeArray": _put_moments,
    "TimedeltaArray": _put_moments,
    "PeriodArray": _put_moments,
    "IntervalArray": _ends,
    "SparseArray": _put_sparse,
    "NumpyExtensionArray": _put_wrapped,
    "PandasArray": _put_wrapped,
}
"""Names of pandas' extension arrays, those of 2.2 included; the first one in a class's MRO decides."""


def _dtype_text(dtype: Any) -> str:
    """Return an extension dtype as text: also where two kinds of text are called alike."""
    storage = getattr(dtype, "storage", "")
    missing = "" if not storage else repr(getattr(dtype, "na_value", ""))
    return f"{type(dtype).__name__} {dtype} {storage} {missing}"


def _array_of(index: Any) -> Any:
    return index._values  # noqa: SLF001 - an ndarray or an extension array, never a copy


# ------------------------------------------------------------------------------------------ indexes


def put_index(pieces: Pieces, index: Any, place: Place) -> Digest:
    """Append an index: its class, names and values; a range is its three numbers."""
    pd = pandas()
    cls = type(index)
    pieces.own("index", cls.__name__ if _is_pandas(cls) else named.kind_name(cls))
    names = combine("names", *(pieces.part(place(-2 - i), name) for i, name in enumerate(index.names)))
    if isinstance(index, pd.RangeIndex):
        found = combine("range", index.start, index.stop, index.step)
        pieces.own(found)
    elif isinstance(index, pd.MultiIndex):
        levels = [put_index(pieces, level, place) for level in index.levels]
        codes = [combine(dtype_text(c.dtype), array_digest(c)) for c in index.codes]
        pieces.own(len(index), *codes)
        found = combine("levels", *levels, *codes)
    else:
        found = put_values(pieces, _array_of(index), place)
        frequency = getattr(index, "freqstr", None) if hasattr(index, "freq") else None
        pieces.own(repr(frequency))
        found = combine(found, repr(frequency))
    return combine("index", cls.__name__, names, found)


def _index(value: Any, _walk: Walk) -> Shape:
    pieces = Pieces()
    put_index(pieces, value, lambda i: ("part", f"[{i}]"))
    detail: dict[str, Json] = {"type": type(value).__name__, "length": len(value), "dtype": str(value.dtype)}
    return pieces.shape("pandas index", mutable=True, detail=lambda _: detail)


# ------------------------------------------------------------------------------------------ Series and frames


def _series(value: Any, _walk: Walk) -> Shape:
    # The index comes first, here and below: an object of its own, which others may share and rename in place.
    pieces = Pieces()
    pieces.part(("attr", "index"), value.index)
    pieces.part(("attr", "name"), value.name)
    found = put_values(pieces, _values_of(value), lambda i: ("part", f"[{i}]"))
    _put_extras(pieces, value)
    detail: dict[str, Json] = {
        "type": "Series",
        "rows": len(value),
        "dtype": str(value.dtype),
        "values": found[:12],
        "name": truncated(repr(value.name), 60),
    }
    return pieces.shape("series", mutable=True, detail=lambda inner: {**detail, "index": inner[0][:12]})


def _values_of(series: Any) -> Any:
    return series._mgr.blocks[0].values  # noqa: SLF001 - Series.array wraps, Series.values copies


def _frame(value: Any, _walk: Walk) -> Shape:
    pieces = Pieces(len(value))
    pieces.part(("attr", "index"), value.index)
    pieces.part(("attr", "columns"), value.columns)
    columns, dtypes = _columns(value)
    digests: list[Digest] = []
    for number, column in enumerate(columns):
        if isinstance(column, str):
            pieces.own(column)
            digests.append(column)
        else:
            digests.append(put_values(pieces, column, _placed(number)))
    _put_extras(pieces, value)
    return pieces.shape("frame", mutable=True, detail=lambda inner: _frame_detail(value, digests, dtypes, *inner[:2]))


def _placed(number: int) -> Place:
    return lambda row: ("part", f"{number}[{row}]")


def _columns(frame: Any) -> tuple[list[Any], list[Any]]:
    """Return each column in order: the digest of its plain numbers, or its array; and its dtype."""
    count = frame.shape[1]
    columns: list[Any] = [None] * count
    dtypes: list[Any] = [None] * count
    for block in frame._mgr.blocks:  # noqa: SLF001 - see the module's docstring
        values, places = block.values, block.mgr_locs.indexer
        for place, column in zip(_indices(places), _block_columns(values), strict=True):
            columns[place] = column
            dtypes[place] = values.dtype
    return columns, dtypes


def _indices(places: Any) -> Sequence[int]:
    return range(places.start, places.stop, places.step or 1) if isinstance(places, slice) else places.tolist()


def _block_columns(values: Any) -> Sequence[Any]:
    if values.ndim == 1:
        return [values]
    if not isinstance(values, numpy().ndarray) or values.dtype.hasobject or values.dtype.kind == "T":
        return [values[i] for i in range(len(values))]
    if not values.shape[1]:
        return list(values)
    text = dtype_text(values.dtype)
    return [combine("values", text, d) for d in row_digests(values)]


def _frame_detail(
    frame: Any, digests: Sequence[Digest], dtypes: Sequence[Any], index: Digest, labels: Digest
) -> dict[str, Json]:
    shown = [f"{str(t)[:40]} {d[:12]}" for t, d in zip(dtypes, digests, strict=True)]
    detail = table_detail("DataFrame", len(frame), frame.columns, shown)
    columns: dict[str, Json] = dict(zip(map(_label, frame.columns[: plain.LISTED]), shown, strict=False))
    return {**detail, "columns": columns, "index": index[:12], "labels": labels[:12]}


def _label(name: object) -> str:
    return truncated(name if isinstance(name, str) else repr(name), 60)


def _put_extras(pieces: Pieces, value: Any) -> None:
    """Append what an object carries beside its data: attrs, flags, a subclass and its attributes."""
    pieces.own(str(value.flags.allows_duplicate_labels))
    if value.attrs:
        pieces.part(("attr", "_attrs"), value._attrs)  # noqa: SLF001 - the property makes a dict where there is none
    listed = {k: getattr(value, k) for k in value._metadata if k != "_name" and hasattr(value, k)}  # noqa: SLF001
    pieces.attributes({**frame_attributes(value), **listed})
    if not _is_pandas(type(value)):
        pieces.own(named.kind_name(type(value)))
        pieces.part(("class", ""), type(value))


# ------------------------------------------------------------------------------------------ scalars and descriptions


def _moment(value: Any, _walk: Walk) -> Shape:
    pieces = Pieces(type(value).__name__, str(value.unit), str(getattr(value, "fold", "")))
    pieces.own(str(value._value if hasattr(value, "_value") else value.value))  # noqa: SLF001 - .value is in ns, and may overflow
    pieces.part(("attr", "tzinfo"), getattr(value, "tzinfo", None))
    return pieces.shape("moment", mutable=False)


def _period(value: Any, _walk: Walk) -> Shape:
    return Shape(combine("period", value.ordinal, value.freqstr))


def _interval(value: Any, _walk: Walk) -> Shape:
    pieces = Pieces(value.closed)
    pieces.part(("attr", "left"), value.left)
    pieces.part(("attr", "right"), value.right)
    return pieces.shape("interval", mutable=False)


def _dtype(value: Any, _walk: Walk) -> Shape:
    pieces = Pieces(_dtype_text(value))
    pandas_ = pandas()
    if isinstance(value, pandas_.CategoricalDtype):
        pieces.own(str(value.ordered))
        if value.categories is not None:
            put_index(pieces, value.categories, lambda i: ("part", f"[{i}]"))
    elif isinstance(value, pandas_.DatetimeTZDtype):
        pieces.part(("attr", "tz"), value.tz)
    elif isinstance(value, pandas_.ArrowDtype):
        pieces.own(type_text(value.pyarrow_dtype))
    elif isinstance(value, pandas_.SparseDtype):
        pieces.part(("attr", "fill_value"), value.fill_value)
    return pieces.shape("pandas dtype", mutable=False)


def _extension(value: Any, _walk: Walk) -> Shape:
    pieces = Pieces(named.kind_name(type(value)))
    put_values(pieces, value, lambda i: ("part", f"[{i}]"))
    return pieces.shape("pandas array", mutable=True)


def handler(cls: type) -> Handler | None:
    """Return what knows a class of pandas', or derived from one; others of its classes are instances by their state."""
    pd = pandas()
    if not hasattr(pd, "DataFrame"):
        return None
    table: list[tuple[Any, Handler]] = [
        (pd.DataFrame, _frame),
        (pd.Series, _series),
        (pd.Index, _index),
        ((pd.Timestamp, pd.Timedelta), _moment),
        (pd.Period, _period),
        (pd.Interval, _interval),
    ]
    known = next((h for base, h in table if issubclass(cls, base)), None)
    if known is not None or not _is_pandas(cls):
        return known
    if issubclass(cls, pd.api.extensions.ExtensionArray) and any(b.__name__ in _KINDS for b in cls.__mro__):
        return _extension
    return _dtype if issubclass(cls, pd.api.extensions.ExtensionDtype) else None
