"""The frame of an Arrow IPC file, written and read by hand.

pyarrow's writer lays buffers out itself: 8-byte alignment, in the schema's order, one copy each.
A file that is to be mapped wants its body at a multiple of a page, the columns of one block back to
back, and parts that no column names. So the two small flatbuffers that say where things lie, the
record batch's and the footer's, are written here; the schema and its dictionaries are pyarrow's.

::

    ARROW1 00 00                                    magic, padded to 8
    FFFFFFFF <length> <Message: Schema>             its metadata hold the skeleton and the regions
    FFFFFFFF <length> <Message: DictionaryBatch>    one for each dictionary column
    FFFFFFFF <length> <Message: RecordBatch>        padded until the body starts at a multiple of 4096, or of 16384
    body
    FFFFFFFF 00000000                               end of stream
    <Footer> <length> ARROW1

Reading finds the body, the schema's metadata and nothing else, and needs no pyarrow: a stored NumPy
array comes back without importing it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from prefect_cache.errors import Damaged

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

MAGIC = b"ARROW1"
PAGE = 4096
_CONTINUED = 0xFFFFFFFF
_END = struct.pack("<II", _CONTINUED, 0)
_VERSION_5 = 4
_RECORD_BATCH = 3
_FEWEST = len(MAGIC) + 2 + len(_END) + 4 + len(MAGIC)


class Extent(NamedTuple):
    """Some bytes of the body: where they start, how many they are."""

    offset: int
    size: int


class Node(NamedTuple):
    """A column, or a child of one, as a record batch counts it."""

    length: int
    nulls: int


class _Block(NamedTuple):
    """Where a message stands in the file."""

    offset: int
    metadata: int
    body: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What a record batch says of its body: the nodes and buffers of all columns, depth first."""

    rows: int
    nodes: Sequence[Node]
    buffers: Sequence[Extent]
    variadic: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Envelope:
    """The bytes before and after the body."""

    head: bytes
    tail: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """What the head and tail of a file say: its schema's metadata, and where the body is."""

    metadata: dict[bytes, bytes]
    body: Extent


def envelope(schema: pa.Schema, empty: pa.RecordBatch, batch: Batch, body_size: int, page: int = PAGE) -> Envelope:
    """Return what goes before and after a body of `body_size` bytes that starts at a multiple of `page`.

    `empty` is a batch of no rows whose dictionary columns carry their dictionaries.
    """
    head = bytearray(MAGIC + bytes(2))
    dictionaries: list[_Block] = []
    messages = _messages(schema, empty)
    schema_message = next(messages)
    head += schema_message.encapsulated
    for message in messages:
        dictionaries.append(_Block(len(head), len(message.encapsulated), len(message.body)))
        head += message.encapsulated + message.body
    metadata = _record_batch(batch, body_size)
    start = len(head)
    head += struct.pack("<II", _CONTINUED, 0) + metadata
    head += bytes(-len(head) % page)
    struct.pack_into("<I", head, start + 4, len(head) - start - 8)
    footer = _footer(schema_message.flatbuffer, dictionaries, [_Block(start, len(head) - start, body_size)])
    tail = _END + footer + struct.pack("<I", len(footer)) + MAGIC
    return Envelope(bytes(head), tail)


class _Message(NamedTuple):
    encapsulated: bytes
    """Continuation mark, length and flatbuffer, padded to 8."""
    flatbuffer: bytes
    body: bytes


def _messages(schema: pa.Schema, empty: pa.RecordBatch) -> Iterator[_Message]:
    """Yield pyarrow's messages for the schema and for each dictionary."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    # Version 5 and no padding beyond 8 are pyarrow's defaults; said here since the footer repeats them.
    options = pa.ipc.IpcWriteOptions(metadata_version=pa.ipc.MetadataVersion.V5, unify_dictionaries=False)
    with pa.ipc.new_stream(sink, schema, options=options) as writer:
        writer.write_batch(empty)
    stream = memoryview(sink.getvalue())
    position = 0
    while True:
        mark, length = struct.unpack_from("<II", stream, position)
        start = position + 8
        if mark != _CONTINUED or not length:
            return
        flatbuffer = bytes(stream[start : start + length])
        message = _Table.root(flatbuffer)
        if message.integer(1, "<B") == _RECORD_BATCH:
            return
        size = message.integer(3, "<q")
        body = bytes(stream[start + length : start + length + size])
        yield _Message(bytes(stream[position : start + length]), flatbuffer, body)
        position = start + length + size


def parse_batch(message: bytes | memoryview) -> tuple[Batch, Extent]:
    """Return what an encapsulated record batch message says, and where in it the body is."""
    mark, length = struct.unpack_from("<II", message, 0)
    if mark != _CONTINUED:
        raise Damaged("a record batch does not start with its mark")
    root = _Table.root(bytes(message[8 : 8 + length]))
    header = root.table(2)
    nodes = [Node(*pair) for pair in header.structs(1, "<qq")]
    buffers = [Extent(*pair) for pair in header.structs(2, "<qq")]
    variadic = [count for (count,) in header.structs(4, "<q")]
    return Batch(header.integer(0, "<q"), nodes, buffers, variadic), Extent(8 + length, root.integer(3, "<q"))


def locate(read: Reader, size: int) -> Opened:
    """Return the schema's metadata and the body's place; raise Damaged where a file of `size` bytes is not whole."""
    try:
        return _locate(read, size)
    except (struct.error, IndexError, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise Damaged("its Arrow messages cannot be read") from error


def _locate(read: Reader, size: int) -> Opened:
    if size < _FEWEST or read(0, len(MAGIC)) != MAGIC:
        raise Damaged("it is not an Arrow file")
    ending = read(size - len(MAGIC) - 4, len(MAGIC) + 4)
    if ending[4:] != MAGIC:
        raise Damaged("it is cut short, or its end is not an Arrow file's")
    (footer,) = struct.unpack_from("<I", ending)
    position = len(MAGIC) + 2
    metadata: dict[bytes, bytes] | None = None
    while True:
        mark, length = struct.unpack("<II", read(position, 8))
        if mark != _CONTINUED or not 0 < length <= size - position:
            raise Damaged("a message of its head is missing")
        message = _Table.root(read(position + 8, length))
        body = Extent(position + 8 + length, message.integer(3, "<q"))
        if metadata is None:
            metadata = dict(message.table(2).pairs(2))
        if message.integer(1, "<B") == _RECORD_BATCH:
            break
        if body.size < 0:
            raise Damaged("a message of its head has no valid length")
        position = sum(body)
    if body.size < 0 or sum(body) + len(_END) + footer + 4 + len(MAGIC) != size:
        raise Damaged(f"its size is {size:,} bytes and its messages say another")
    return Opened(metadata, body)


class Reader:
    """Reads of a file by offset and size; a short read is damage."""

    __slots__ = ("_file",)

    def __init__(self, file: int) -> None:
        self._file = file

    def __call__(self, offset: int, size: int) -> bytes:
        """Return exactly these bytes."""
        import os

        data = os.pread(self._file, size, offset)
        if len(data) != size:
            raise Damaged("it is cut short")
        return data


# ---------------------------------------------------------------- flatbuffers, the few that are needed


def _record_batch(batch: Batch, body_size: int) -> bytes:
    build = _Flat()
    message = build.table([(0, "<h", _VERSION_5), (1, "<B", _RECORD_BATCH), (2, "<I", 0), (3, "<q", body_size)])
    fields: list[_Field] = [(0, "<q", batch.rows), (1, "<I", 0), (2, "<I", 0)]
    header = build.table([*fields, (4, "<I", 0)] if batch.variadic else fields)
    build.point(0, message.at)
    build.point(message.slots[2], header.at)
    build.point(header.slots[1], build.structs("<qq", batch.nodes))
    build.point(header.slots[2], build.structs("<qq", batch.buffers))
    if batch.variadic:
        build.point(header.slots[4], build.structs("<q", [(count,) for count in batch.variadic]))
    return build.bytes()


def _footer(schema_message: bytes, dictionaries: Sequence[_Block], batches: Sequence[_Block]) -> bytes:
    build = _Flat()
    footer = build.table([(0, "<h", _VERSION_5), (1, "<I", 0), (2, "<I", 0), (3, "<I", 0)])
    build.point(0, footer.at)
    build.point(footer.slots[2], build.structs("<qi4xq", dictionaries))
    build.point(footer.slots[3], build.structs("<qi4xq", batches))
    # A flatbuffer's offsets are relative: the schema's message goes in as it is, and the footer
    # points at the schema inside.
    start = build.append(schema_message)
    build.point(footer.slots[1], start + _Table.root(schema_message).table(2).at)
    return build.bytes()


_Field = tuple[int, str, int]
"""A table's field: slot, struct format, value (offsets are filled in by `point`)."""


class _Placed(NamedTuple):
    at: int
    slots: dict[int, int]


class _Flat:
    """A flatbuffer laid out front to back: tables first, what they point at behind them."""

    def __init__(self) -> None:
        self._out = bytearray(8)

    def _align(self, ahead: int = 0) -> None:
        self._out += bytes(-(len(self._out) + ahead) % 8)

    def table(self, fields: Sequence[_Field]) -> _Placed:
        """Place a table of scalars and (unset) offsets, its vtable in front of it."""
        positions: dict[int, int] = {}
        end = 4
        for slot, form, _ in fields:
            width = struct.calcsize(form)
            end += -end % width
            positions[slot] = end
            end += width
        count = max(positions) + 1
        vtable = struct.pack(f"<HH{count}H", 4 + 2 * count, end, *(positions.get(slot, 0) for slot in range(count)))
        self._align(len(vtable))
        self._out += vtable
        at = len(self._out)
        self._out += struct.pack("<i", len(vtable)) + bytes(end - 4)
        for slot, form, value in fields:
            struct.pack_into(form, self._out, at + positions[slot], value)
        return _Placed(at, {slot: at + position for slot, position in positions.items()})

    def structs(self, form: str, items: Sequence[Sequence[int]]) -> int:
        """Place a vector of structs, aligned to 8; return where."""
        self._align(4)
        at = len(self._out)
        self._out += struct.pack("<I", len(items))
        self._out += b"".join(struct.pack(form, *item) for item in items)
        return at

    def append(self, data: bytes) -> int:
        """Place another flatbuffer, aligned to 8; return where."""
        self._align()
        at = len(self._out)
        self._out += data
        return at

    def point(self, slot: int, target: int) -> None:
        """Let the offset at `slot` point at `target`."""
        struct.pack_into("<I", self._out, slot, target - slot)

    def bytes(self) -> bytes:
        """Return the flatbuffer, padded to 8."""
        self._align()
        return bytes(self._out)


class _Table:
    """A flatbuffer's table, to be read by slot; what is out of bounds raises struct.error or IndexError."""

    __slots__ = ("_data", "at")

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self.at = at

    @classmethod
    def root(cls, data: bytes) -> _Table:
        """Return the table that the flatbuffer starts with."""
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def _slot(self, slot: int) -> int:
        vtable = self.at - struct.unpack_from("<i", self._data, self.at)[0]
        (size,) = struct.unpack_from("<H", self._data, vtable)
        if vtable < 0 or 4 + 2 * slot >= size:
            return 0
        (position,) = struct.unpack_from("<H", self._data, vtable + 4 + 2 * slot)
        return self.at + position if position else 0

    def _follow(self, position: int) -> int:
        target: int = position + struct.unpack_from("<I", self._data, position)[0]
        return target

    def integer(self, slot: int, form: str) -> int:
        """Return a scalar; 0 where the writer left it out."""
        position = self._slot(slot)
        return int(struct.unpack_from(form, self._data, position)[0]) if position else 0

    def table(self, slot: int) -> _Table:
        """Return a table that this one points at."""
        position = self._slot(slot)
        if not position:
            raise IndexError(slot)
        return _Table(self._data, self._follow(position))

    def structs(self, slot: int, form: str) -> list[tuple[int, ...]]:
        """Return a vector of structs; none where the writer left it out."""
        position = self._slot(slot)
        if not position:
            return []
        at = self._follow(position)
        (count,) = struct.unpack_from("<I", self._data, at)
        width = struct.calcsize(form)
        return list(struct.iter_unpack(form, self._data[at + 4 : at + 4 + count * width]))

    def pairs(self, slot: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield a vector of KeyValue tables as pairs."""
        position = self._slot(slot)
        if not position:
            return
        at = self._follow(position)
        (count,) = struct.unpack_from("<I", self._data, at)
        for number in range(count):
            entry = _Table(self._data, self._follow(at + 4 + 4 * number))
            yield entry._string(0), entry._string(1)

    def _string(self, slot: int) -> bytes:
        position = self._slot(slot)
        if not position:
            return b""
        at = self._follow(position)
        (size,) = struct.unpack_from("<I", self._data, at)
        if at + 4 + size > len(self._data):
            raise IndexError(slot)
        return self._data[at + 4 : at + 4 + size]
