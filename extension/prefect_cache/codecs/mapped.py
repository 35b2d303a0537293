"""One value, one mapped Arrow file: skeleton, columns and body put together.

The record batch's columns are for other tools (:mod:`prefect_cache.frames`); what brings the value back exactly
stands in the schema's metadata, under three keys::

    prefect_cache            {"format": 1, "kind": "DataFrame", "needs_trust": false,
                              "regions": [[offset, size], ...],    parts of the body, by number
                              "skeleton": [offset, size] or null}  null: it stands beside, under the next key
    prefect_cache.skeleton   the value as a pickle in which region 0, 1, ... stand for large buffers
    prefect_cache.digest     of these two

``np.arange(1200, dtype="<i2").reshape(300, 4)`` makes this file of 7,178 bytes (hexadecimal offsets; much left out)::

    0000  4152524f 57310000  ARROW1..          the file is Arrow's
    0008  ffffffff 28020000  ....(...          a message of 0x228 bytes: the schema
    0060           8005954e      ...N          its metadata: the skeleton, a pickle of protocol 5, in which
    0070  1d707265 66656374  .prefect          prefect_cache.codecs.skeleton
    0090  0d427569 6c646572  .Builder          Builder.array(0, "<i2", (300, 4), (8, 2), True) is called
    0144  7b22666f 726d6174  {"format          the header, as above: one region, of 2,400 bytes
    0238  ffffffff c00d0000  ........          a message of 0xdc0 bytes, zeros at its end: the record batch
    0268  80090000 00000000  ........          its body has 0x980 bytes,
    0288  2c010000 00000000  ,.......          300 rows
    1000  00000100 02000300  ........          the body, at a multiple of a page: region 0
    1980  ffffffff 00000000  ........          no more messages
    1c04  4152524f 5731      ARROW1            after the footer, which says where the messages are
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from prefect_cache.codecs import Written, parts, skeleton
from prefect_cache.codecs.body import Body, of_buffer, write_file
from prefect_cache.codecs.ipc import PAGE, Batch, Envelope, Extent, Node, envelope, parse_batch
from prefect_cache.codecs.mapping import open_file
from prefect_cache.digests import combine, digest
from prefect_cache.errors import Damaged, Unstorable, Untrusted
from prefect_cache.frames import NOTE, Canon, Lazy, table_of
from prefect_cache.model import FORMAT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
    from pathlib import Path

    import pyarrow as pa

    from prefect_cache.codecs.body import Progress
    from prefect_cache.codecs.mapping import Mapped
    from prefect_cache.codecs.parts import Joined, Samples, Shelf
    from prefect_cache.codecs.pickled import Refer, Resolve
    from prefect_cache.frames import Field, Leaf, Table
    from prefect_cache.model import Json

HEADER = b"prefect_cache"
SKELETON = b"prefect_cache.skeleton"

DIGEST = b"prefect_cache.digest"

INLINE = 2**16
"""Bytes up to which a skeleton stands in the schema's metadata (twice, since a footer repeats the schema)."""


def write(
    value: object,
    path: Path,
    *,
    namespace: Mapping[str, object] | None = None,
    refer: Refer | None = None,
    shelf: Shelf | None = None,
    progress: Progress | None = None,
) -> Written:
    """Write a value to a file that does not exist yet.

    Parameters
    ----------
    value
        A frame, Series, Index, array, table or column.
    path
        Where; made with mode 0600.
    namespace, refer
        How objects inside (cells, attrs, classes) are pickled, see ``codecs.pickled``.
    shelf
        What the store already has: a file with this very content is linked, and columns that are there are not
        written again, see ``codecs.parts``. The parts then lie beside `path`.
    progress
        Called with the bytes written so far and in all, about every 4 MB.
    """
    body, canon = Body(), Canon()
    try:
        bones, needs_trust = skeleton.dump(value, body, canon, namespace=namespace, refer=refer)
    except (TypeError, ValueError, AttributeError, RecursionError, NotImplementedError, pickle_error()) as error:
        raise Unstorable(f"{type(value).__name__} cannot be stored: {error}") from error
    regions = [list(region.extent) for region in body.regions]
    table = table_of(value, canon)
    columns = list(_columns(table, canon, body))
    metadata = _metadata(type(value).__name__, regions, bones, body, needs_trust=needs_trust)
    whole = _envelope(table.rows, columns, metadata, body)
    meta = table.meta | ({"needs_trust": True} if needs_trust else {})
    sampled = parts.samples(body)
    if shelf is not None and sum(run.pages.size for runs in sampled.values() for run in runs) >= parts.WORTH:
        if (same := parts.same(path, whole, body, sampled, shelf)) is not None:
            return Written(same.digest, same.size, meta | _told(same.meta["pieces"], same.meta["runs"]))
        if (joined := parts.share(path, body, sampled, shelf)) is not None:
            return _write_joined(path, joined, table.rows, columns, whole, meta, sampled, progress)
    tree, size = write_file(path, whole, body, progress)
    return Written(tree.digest, size, meta | _told(list(tree.pieces), parts.listed(sampled, len(whole.head))))


def _told(pieces: Json, runs: Json) -> dict[str, Json]:
    return {"pieces": pieces} | ({"runs": runs} if runs else {})


def _write_joined(
    path: Path,
    joined: Joined,
    rows: int,
    columns: list[_Column],
    whole: Envelope,
    meta: dict[str, Json],
    sampled: Samples,
    progress: Progress | None,
) -> Written:
    """Write what the parts do not hold: a file whose table has the columns that lie in it entirely."""
    try:
        body, joint = joined.body(whole)
        own = [moved for column in columns if (moved := _moved(column, joined)) is not None]
        around = _envelope(rows, own, joint.metadata(), body)
        tree, size = write_file(path, around, body, progress)
    except BaseException:
        joined.give_back()
        raise
    told = _told(list(tree.pieces), parts.listed(sampled, len(around.head), joined.at))
    names: list[Json] = [part.name for part in joined.parts]
    return Written(tree.digest, size, meta | {"parts": names} | told, tuple(joined.parts))


def pickle_error() -> type[Exception]:
    """Return what a pickler raises for what it cannot take."""
    import pickle

    return pickle.PicklingError


def _metadata(
    kind: str, regions: list[list[int]], bones: bytes, body: Body, *, needs_trust: bool
) -> dict[bytes, bytes]:
    """Return what stands in the schema; completes the body."""
    inline = len(bones) <= INLINE
    place = None if inline else body.add_bytes(np.frombuffer(bones, dtype=np.uint8))
    body.close()
    header = {
        "format": FORMAT,
        "kind": kind,
        "needs_trust": needs_trust,
        "regions": regions,
        "skeleton": place,
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    return {HEADER: text, DIGEST: _digest(text, bones)} | ({SKELETON: bones} if inline else {})


def _envelope(rows: int, columns: list[_Column], metadata: Mapping[bytes, bytes], body: Body) -> Envelope:
    """Return the file's head and tail."""
    import pyarrow as pa

    fields = [column.field for column in columns]
    schema = pa.schema([_field(one.name, one.leaf, one.note) for one in fields], metadata=dict(metadata))
    batch = Batch(
        rows,
        [node for column in columns for node in column.nodes],
        [extent for column in columns for extent in column.buffers],
        [count for column in columns for count in column.variadic],
    )
    return envelope(schema, _empty(schema, fields), batch, body.size, max(body.leaf, PAGE))


def _field(name: str, leaf: Leaf, note: str) -> pa.Field:
    import pyarrow as pa

    return pa.field(name, leaf.type, metadata={NOTE: note.encode("utf-8", "backslashreplace")} if note else None)


def _empty(schema: pa.Schema, fields: Iterable[Field]) -> pa.RecordBatch:
    """Return no rows of the table, dictionaries included."""
    import pyarrow as pa

    return pa.RecordBatch.from_arrays([_no_rows(one.leaf) for one in fields], schema=schema)


def _no_rows(leaf: Leaf) -> pa.Array:
    import pyarrow as pa

    if leaf.nested is not None:
        return leaf.nested.slice(0, 0)
    if leaf.dictionary is None:
        return pa.array([], type=leaf.type)
    indices = pa.array([], type=leaf.type.index_type)
    return pa.DictionaryArray.from_arrays(indices, leaf.dictionary, ordered=leaf.type.ordered)


class _Column(NamedTuple):
    """A column of the record batch: what it is, and where its buffers are in the body."""

    field: Field
    nodes: Sequence[Node]
    buffers: Sequence[Extent]
    variadic: Sequence[int] = ()


def _columns(table: Table, canon: Canon, body: Body) -> Iterator[_Column]:
    """Yield a table's columns, their buffers found in the body or added to it."""
    for one in table.fields:
        leaf = one.leaf
        if leaf.nested is None:
            yield _Column(one, [Node(*node) for node in leaf.nodes], [_placed(buffer, body) for buffer in leaf.buffers])
        else:
            part, message, start = _sent(leaf.nested, canon)
            buffers = [_placed(message[start + at : start + at + size], body) for at, size in part.buffers]
            yield _Column(one, part.nodes, buffers, part.variadic)


def _moved(column: _Column, joined: Joined) -> _Column | None:
    """Return a column as it is in the file that shares; None where a part holds any of it."""
    buffers = [joined.at(extent) if extent.size else extent for extent in column.buffers]
    found = [extent for extent in buffers if extent is not None]
    return column._replace(buffers=found) if len(found) == len(buffers) else None


def _sent(array: pa.Array, canon: Canon) -> tuple[Batch, Any, int]:
    """Return the record batch that pyarrow would send for a nested column."""
    import pyarrow as pa

    message = canon.message(array)
    if message is None:
        message = pa.record_batch([array], names=[""]).serialize()
    part, extent = parse_batch(memoryview(message))
    return part, of_buffer(message), extent.offset


def _placed(buffer: Any, body: Body) -> Extent:
    if buffer is None:
        return Extent(0, 0)
    if isinstance(buffer, Lazy):
        return body.add_bytes(buffer) if buffer.size else Extent(0, 0)
    array = buffer if isinstance(buffer, np.ndarray) else of_buffer(buffer)
    found = body.find(array)
    return body.add_bytes(array) if found is None else found


def read(
    path: Path,
    meta: Mapping[str, Json] | None = None,
    *,
    trusted: bool,
    namespace: MutableMapping[str, object] | None = None,
    resolve: Resolve | None = None,
) -> object:
    """Return the value that a file holds, as views of a private mapping of the file.

    Raises
    ------
    Damaged
        The file is not whole, not ours, or cannot be put together again.
    Untrusted
        The file names classes or functions of the user's own, and is not trusted.
    """
    mapped = open_file(path)
    try:
        header, bones = _bones(mapped)
        _check_trust(header, trusted=trusted)
        regions = header["regions"]
        # A signed manifest that does not speak of a need for trust rules it out: were the file forged, then in vain.
        listed = not trusted or bool(meta and not meta.get("needs_trust"))
        return skeleton.load(
            bones, mapped.body, regions, trusted=trusted, listed=listed, namespace=namespace, resolve=resolve
        )
    except (Damaged, Untrusted) as error:
        raise type(error)(f"{path.name}: {error.message}", remedy=error.remedy) from error


def _check_trust(header: Mapping[str, Any], *, trusted: bool) -> None:
    if header.get("needs_trust") and not trusted:
        raise Untrusted("it holds objects of the user's own", remedy="trust the key that signed it, or run the cell")


def _digest(header: bytes, bones: Any) -> bytes:
    return combine("skeleton", digest(header), digest(bones)).encode()


def _bones(mapped: Mapped) -> tuple[dict[str, Any], Any]:
    """Return a file's header and skeleton, which is what it was when it was written."""
    try:
        text = mapped.metadata[HEADER]
        header = json.loads(text)
        if header["format"] != FORMAT:
            raise Damaged(f"it has format {header['format']}, not {FORMAT}")
        place = header["skeleton"]
        bones = mapped.metadata[SKELETON] if place is None else mapped.body[place[0] : sum(place)]
        if _digest(text, bones) != mapped.metadata[DIGEST]:
            raise Damaged("its skeleton was changed")
    except (KeyError, ValueError, TypeError) as error:
        if isinstance(error, Damaged):
            raise
        raise Damaged("it was not written by this package") from error
    return header, bones
