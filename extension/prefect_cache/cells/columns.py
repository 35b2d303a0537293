"""Shapes of Arrow's and polars' values: each column by its logical content, however it is cut into chunks.

Nothing is imported here.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from prefect_cache.cells import leaves, named, plain
from prefect_cache.cells.arrays import TILE, numpy
from prefect_cache.cells.pieces import Pieces
from prefect_cache.cells.walk import Shape, Walk
from prefect_cache.digests import Hasher, combine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from prefect_cache.cells.plain import Handler
    from prefect_cache.model import Digest, Json


def arrow() -> Any:
    """Return pyarrow, which is there where one of its values is."""
    return sys.modules["pyarrow"]


# ------------------------------------------------------------------------------------------ columns


def column_digest(chunks: Sequence[Any], kind: Any) -> Digest:  # noqa: C901, PLR0911 - a table of kinds
    """Return the digest of a column: of its values and nulls in order; what lies under a null does not count."""
    types = arrow().types
    length = sum(map(len, chunks))
    chunks = [c for c in chunks if len(c)]
    valid = _validity(chunks)
    if types.is_null(kind) or not chunks:
        return combine("column", length, valid)
    if isinstance(kind, arrow().BaseExtensionType):
        return column_digest([c.storage for c in chunks], kind.storage_type)
    if types.is_dictionary(kind):
        return combine("dictionary", valid, *_dictionary(chunks, kind))
    if types.is_run_end_encoded(kind):
        return column_digest([arrow().compute.run_end_decode(c) for c in chunks], kind.value_type)
    if _is_view(kind):
        wide = _wide(kind)
        return column_digest([_widened(c, wide) for c in chunks], wide)
    if _is_text(kind):
        return combine("text", length, valid, _texts(chunks, kind))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_map(kind):
        return combine("lists", length, valid, *_lists(chunks, kind))
    if types.is_fixed_size_list(kind):
        return combine("fixed lists", length, valid, column_digest([_flattened(c) for c in chunks], kind.value_type))
    if types.is_struct(kind):
        fields = [column_digest([c.flatten()[i] for c in chunks], kind.field(i).type) for i in range(kind.num_fields)]
        return combine("struct", length, valid, *fields)
    if types.is_union(kind):
        return combine("union", length, *(_objects(c.to_pylist()) for c in chunks))
    return combine("fixed", length, valid, _fixed(chunks, kind))


def _validity(chunks: Sequence[Any]) -> Digest:
    if not any(c.null_count for c in chunks):
        return "no nulls"
    hasher = Hasher()
    for chunk in chunks:
        hasher.update(_valid(chunk))
    return hasher.hexdigest()


def _valid(chunk: Any) -> Any:
    """Return one byte per value: 1 where there is one, 0 for a null."""
    np, bits = numpy(), chunk.buffers()[0]
    if bits is None or not chunk.null_count:
        if chunk.null_count:
            return np.asarray(chunk.is_valid().cast(arrow().uint8()))
        return np.ones(len(chunk), np.uint8)
    return _unpacked(bits, chunk.offset, len(chunk))


def _unpacked(bits: Any, offset: int, length: int) -> Any:
    np = numpy()
    start, end = offset // 8, (offset + length + 7) // 8
    packed = np.frombuffer(bits, np.uint8, end - start, start)
    return np.unpackbits(packed, bitorder="little")[offset - start * 8 :][:length]


def _is_text(kind: Any) -> bool:
    types = arrow().types
    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)
    )


def _is_view(kind: Any) -> bool:
    types = arrow().types
    tests = ("is_string_view", "is_binary_view", "is_list_view", "is_large_list_view")
    return any(getattr(types, test)(kind) for test in tests if hasattr(types, test))


def _wide(kind: Any) -> Any:
    types = arrow().types
    if types.is_string_view(kind):
        return arrow().large_string()
    if types.is_binary_view(kind):
        return arrow().large_binary()
    return arrow().large_list(kind.value_field)


def _widened(chunk: Any, wide: Any) -> Any:
    try:
        return chunk.cast(wide)
    except NotImplementedError:  # older versions of Arrow cannot cast views
        return arrow().array(chunk.to_pylist(), wide)


def _texts(chunks: Sequence[Any], kind: Any) -> Digest:
    """Return the digest of texts: the ends of each in the joined bytes, and those bytes."""
    ends, data, base = Hasher(), Hasher(), 0
    for chunk in chunks:
        offsets, content = _text_buffers(chunk, kind)
        _put_ends(ends, offsets, base)
        first, last = int(offsets[0]), int(offsets[-1])
        if last > first:
            data.update(memoryview(content)[first:last])
        base += last - first
    return combine("texts", ends.hexdigest(), data.hexdigest())


def _text_buffers(chunk: Any, kind: Any) -> tuple[Any, Any]:
    """Return a chunk's offsets and bytes, with nothing under its nulls."""
    np = numpy()
    wide = arrow().types.is_large_string(kind) or arrow().types.is_large_binary(kind)
    width = np.int64 if wide else np.int32
    _, offsets, content = chunk.buffers()
    ends = np.frombuffer(offsets, width, len(chunk) + 1, chunk.offset * np.dtype(width).itemsize)
    if chunk.null_count:
        hidden = np.flatnonzero(_valid(chunk) == 0)
        if (ends[hidden + 1] != ends[hidden]).any():
            clean = arrow().compute.fill_null(chunk, "" if "string" in str(kind) else b"")
            return _text_buffers(clean, kind)
    return ends, content


def _put_ends(hasher: Hasher, offsets: Any, base: int) -> None:
    """Append where each text ends, as 64-bit numbers that start from `base`."""
    np, shift = numpy(), base - int(offsets[0])
    if not shift and offsets.dtype == np.int64:
        hasher.update(offsets[1:].view(np.uint8))
        return
    step = TILE // 8
    for start in range(1, len(offsets), step):
        hasher.update((offsets[start : start + step].astype(np.int64) + shift).view(np.uint8))


def _fixed(chunks: Sequence[Any], kind: Any) -> Digest:
    """Return the digest of values of a fixed width; those under a null count as zeros."""
    np, hasher = numpy(), Hasher()
    for chunk in chunks:
        data = chunk.buffers()[1]
        if kind.bit_width == 1:
            values = _unpacked(data, chunk.offset, len(chunk))
        else:
            size = kind.bit_width // 8
            values = np.frombuffer(data, np.uint8, len(chunk) * size, chunk.offset * size)
        put_masked(hasher, values, _valid(chunk) == 0 if chunk.null_count else None)
    return hasher.hexdigest()


def put_masked(hasher: Hasher, values: Any, hidden: Any) -> None:
    """Append values' bytes, zeros for those that are hidden."""
    np = numpy()
    if hidden is None:
        hasher.update(values if values.dtype == np.uint8 else values.view(np.uint8))
        return
    width = values.nbytes // max(len(hidden), 1)
    if width in _WORDS:
        _put_words(hasher, values.view(np.uint8).view(f"i{width}"), hidden)
        return
    rows = values.reshape(len(hidden), -1)
    step = max(TILE // (rows[:1].nbytes or 1), 1)
    for start in range(0, len(hidden), step):
        tile = np.where(hidden[start : start + step, None], rows.dtype.type(0), rows[start : start + step])
        hasher.update(tile.view(np.uint8))


_WORDS = frozenset({1, 2, 4, 8})
"""Bytes of values that are whole numbers to the processor."""


def _put_words(hasher: Hasher, words: Any, hidden: Any) -> None:
    """Append words, zeros for those that are hidden: a mask of all ones or none for each, made and applied in tiles.

    Half the time of choosing by `numpy.where`, which branches at each value.
    """
    np = numpy()
    step = TILE // words.itemsize
    tile, shown = np.empty(step, words.dtype), np.empty(step, bool)
    for start in range(0, len(words), step):
        part = words[start : start + step]
        made, keep = tile[: len(part)], shown[: len(part)]
        np.logical_not(hidden[start : start + step], out=keep)
        ones = keep.view(np.int8)
        made[...] = np.negative(ones, out=ones)
        np.bitwise_and(made, part, out=made)
        hasher.update(made.view(np.uint8))


def _dictionary(chunks: Sequence[Any], kind: Any) -> list[Digest]:
    if len(chunks) > 1:
        chunks = arrow().chunked_array(chunks).unify_dictionaries().chunks
    whole = column_digest([chunks[0].dictionary], kind.value_type)
    return [whole, _fixed([c.indices for c in chunks], kind.index_type)]


def _lists(chunks: Sequence[Any], kind: Any) -> list[Digest]:
    np, ends, base = numpy(), Hasher(), 0
    inner: list[list[Any]] = [[], []]
    for chunk in chunks:
        lengths = _list_lengths(chunk)
        total = np.cumsum(lengths, dtype=np.int64)
        ends.update((total + base).view(np.uint8))
        base += int(total[-1])
        for held, found in zip(inner, _list_items(chunk, lengths), strict=False):
            held.append(found)
    if arrow().types.is_map(kind):
        return [ends.hexdigest(), column_digest(inner[0], kind.key_type), column_digest(inner[1], kind.item_type)]
    return [ends.hexdigest(), column_digest(inner[0], kind.value_type)]


def _list_lengths(chunk: Any) -> Any:
    np = numpy()
    width = np.int64 if arrow().types.is_large_list(chunk.type) else np.int32
    offsets = np.frombuffer(chunk.buffers()[1], width, len(chunk) + 1, chunk.offset * np.dtype(width).itemsize)
    lengths = np.diff(offsets)
    if chunk.null_count:
        lengths[_valid(chunk) == 0] = 0
    return lengths


def _list_items(chunk: Any, lengths: Any) -> Iterable[Any]:
    if not arrow().types.is_map(chunk.type):
        return (chunk.flatten(),)
    if not chunk.null_count:
        first = chunk.offsets[0].as_py()
        count = int(lengths.sum())
        return chunk.keys.slice(first, count) if len(chunk.keys) != count else chunk.keys, (
            chunk.items.slice(first, count) if len(chunk.items) != count else chunk.items
        )
    solid = chunk.drop_null()
    return _list_items(solid, _list_lengths(solid)) if len(solid) else (chunk.keys.slice(0, 0), chunk.items.slice(0, 0))


def _flattened(chunk: Any) -> Any:
    return chunk.drop_null().flatten() if chunk.null_count else chunk.flatten()


def _objects(items: Sequence[object]) -> Digest:
    # Values of an Arrow union are plain: a walk of their own needs no paths.
    return combine("objects", repr(items)) if items else leaves.run_digest(items, leaves.codes(items))


# ------------------------------------------------------------------------------------------ Arrow


def type_text(kind: Any) -> str:
    """Return an Arrow type as text, with what its own text leaves out: nested fields' metadata."""
    return f"{kind} {''.join(_field_text(kind.field(i)) for i in range(kind.num_fields))}"


def _field_text(field: Any) -> str:
    return f"{field.name!r}:{type_text(field.type)}:{field.nullable}:{_metadata(field.metadata)};"


def _metadata(metadata: Mapping[bytes, bytes] | None) -> str:
    return repr(sorted(metadata.items())) if metadata else ""


def schema_text(schema: Any) -> str:
    """Return a schema as text that tells it from every other one."""
    return f"{''.join(_field_text(schema.field(i)) for i in range(len(schema)))}{_metadata(schema.metadata)}"


def _table(value: Any, _walk: Walk) -> Shape:
    columns = [value.column(i) for i in range(value.num_columns)]
    digests = [column_digest(_chunks(c), c.type) for c in columns]
    label = combine(type(value).__name__, schema_text(value.schema), value.num_rows, *digests)
    return Shape(
        label, detail=lambda _: table_detail(type(value).__name__, value.num_rows, value.schema.names, digests)
    )


def _chunks(column: Any) -> list[Any]:
    return list(column.chunks) if hasattr(column, "chunks") else [column]


def table_detail(kind: str, rows: int, names: Iterable[object], digests: Sequence[Digest]) -> dict[str, Json]:
    """Return what a person wants to know of a table: its rows, and a short digest per column."""
    columns: dict[str, Json] = {str(n)[:60]: d[:12] for n, d in list(zip(names, digests, strict=False))[: plain.LISTED]}
    return {"type": kind, "rows": rows, "columns": columns}


def _column(value: Any, _walk: Walk) -> Shape:
    label = combine(
        "arrow column", type(value).__name__, type_text(value.type), column_digest(_chunks(value), value.type)
    )
    kind = type(value).__name__
    return Shape(label, detail=lambda _: {"type": kind, "length": len(value), "dtype": str(value.type)})


def _scalar(value: Any, _walk: Walk) -> Shape:
    array = arrow().array([value.as_py()], value.type) if value.is_valid else arrow().nulls(1, value.type)
    return Shape(combine("arrow scalar", type_text(value.type), column_digest([array], value.type)))


def _described(text: Any) -> Handler:
    return lambda value, _walk: Shape(combine("arrow description", type(value).__name__, text(value)))


def _buffer(value: Any, _walk: Walk) -> Shape:
    return Shape(combine("arrow buffer", Hasher(value).hexdigest()), mutable=value.is_mutable)


def arrow_handler(cls: type) -> Handler | None:
    """Return what knows a class of pyarrow's."""
    pa = arrow()
    table: list[tuple[Any, Handler]] = [
        ((pa.Table, pa.RecordBatch), _table),
        ((pa.Array, pa.ChunkedArray), _column),
        (pa.Scalar, _scalar),
        (pa.Schema, _described(schema_text)),
        (pa.Field, _described(_field_text)),
        (pa.DataType, _described(type_text)),
        (pa.Buffer, _buffer),
    ]
    return next((handler for base, handler in table if issubclass(cls, base)), None)


# ------------------------------------------------------------------------------------------ polars


def polars_handler(cls: type) -> Handler | None:
    """Return what knows a class of polars'."""
    pl = sys.modules["polars"]
    table: list[tuple[type, Handler]] = [
        (pl.DataFrame, _polars_frame),
        (pl.Series, _polars_series),
        (pl.LazyFrame, _lazy),
    ]
    return next((handler for base, handler in table if issubclass(cls, base)), None)


def _polars_frame(value: Any, _walk: Walk) -> Shape:
    pieces = Pieces(named.kind_name(type(value)), value.height, value.width)
    digests = []
    for number, series in enumerate(value.get_columns()):
        pieces.own(series.name)
        digests.append(_put_polars(pieces, series, f"{number}"))
    detail = lambda _: table_detail("polars DataFrame", value.height, value.columns, digests)  # noqa: E731
    return pieces.shape("polars frame", mutable=True, detail=detail)


def _polars_series(value: Any, _walk: Walk) -> Shape:
    pieces = Pieces(named.kind_name(type(value)), value.name)
    _put_polars(pieces, value, "")
    return pieces.shape("polars series", mutable=True, detail=lambda _: {"type": "polars Series", "length": len(value)})


def _put_polars(pieces: Pieces, series: Any, place: str) -> Digest:
    """Append a polars column: its dtype, and its values as Arrow has them."""
    pieces.own(repr(series.dtype))
    if series.dtype == sys.modules["polars"].Object:
        return pieces.run(series.to_list(), lambda i: ("part", f"{place}[{i}]"))
    array = series.to_arrow()
    found = column_digest(_chunks(array), array.type)
    pieces.own(type_text(array.type), found)
    return found


def _lazy(value: Any, _walk: Walk) -> Shape:
    raise plain.opaque(
        value, "a plan that may read files when it runs", "Call .collect() on it, or build it inside the cell."
    )
