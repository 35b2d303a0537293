"""Parts: what a value has in common with files of the store is not written again.

A frame with one more column, or one less, consists of columns that the store has. Its file then holds what is
new, and a **joint** that puts it together with **parts**: whole files of other entries, hard-linked into
this one, so that nothing is lost when those entries go. Both are Arrow files that any tool opens.

The joint stands in the schema's metadata under ``prefect_cache.joint``::

    {"format": 1,
     "size": 100125018,                              bytes of the file as it would be in one piece
     "parts": [["00-b-part1.arrow", 100124346]],     name and size, numbered from 1
     "extents": [[0, 10010624, 16384],               that file, back to back: part, offset, bytes
                 [1, 16384, 20021248],               (part 0 is this file, counted from the start of its body):
                 [1, 30048256, 70074368],            head, columns a and b, columns d to j,
                 [0, 0, 10010624],                   the new column,
                 [0, 10027008, 2394]]}               tail

An extent is a run of whole leaves (16 kB), which is what makes it possible to map parts side by side: a block of
which one column was dropped lies in memory as one block. Only buffers of the value's own, of 1 MB or more, are
shared; a part is used by half at least, or a small frame would keep a large one alive.

Runs are found by a digest of three samples, which the manifest lists for each, and then compared to the last byte.
"""

from __future__ import annotations

import contextlib
import json
import os
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from prefect_cache.codecs.body import Body, Region, Sink, as_bytes, memory_order, write_all, write_region
from prefect_cache.codecs.ipc import Extent
from prefect_cache.digests import combine, digest, file_digest
from prefect_cache.errors import Damaged
from prefect_cache.model import FORMAT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from prefect_cache.codecs.body import Bytes, Run
    from prefect_cache.codecs.ipc import Envelope
    from prefect_cache.model import Digest, Held, Json, Output

    Samples = Mapping[Digest, Sequence[Run]]
    """Runs by their samples."""

JOINT = b"prefect_cache.joint"
JOINT_DIGEST = b"prefect_cache.joint.digest"

WORTH = 32 * 2**20
"""Bytes from which sharing is worth another file."""

USED = 2
"""A part is shared only if at least one of so many of its bytes is."""

MOST = 64
"""Parts of one value."""

EXTENTS = 1000
"""Extents of one value: a process may have some 65,000 mappings."""

SAMPLE = 4096
COMPARED = 2**20


class Shelf(Protocol):
    """What the store already has."""

    def find(self, samples: Collection[Digest]) -> Mapping[Digest, Sequence[Held]]:
        """Return where runs with these samples may be."""

    def take(self, held: Held, path: Path) -> Path | None:
        """Return a name of the file beside `path`, by default `path` itself; None where there can be none."""


class Part(NamedTuple):
    """A file beside a value's file, which that one now shares; `is_link` where it was put there for this."""

    name: str
    output: Output
    is_link: bool


@dataclass(frozen=True, slots=True)
class Joint:
    """How a file and its parts are one, see above."""

    size: int
    parts: tuple[tuple[str, int], ...]
    extents: tuple[tuple[int, int, int], ...]

    def metadata(self) -> dict[bytes, bytes]:
        """Return what says so in a schema."""
        told = {"format": FORMAT, "size": self.size, "parts": self.parts, "extents": self.extents}
        text = json.dumps(told, separators=(",", ":")).encode()
        return {JOINT: text, JOINT_DIGEST: digest(text).encode()}

    @classmethod
    def of(cls, metadata: Mapping[bytes, bytes]) -> Joint | None:
        """Return what a schema says, None where the file is one piece; Damaged where that cannot be."""
        text = metadata.get(JOINT)
        if text is None:
            return None
        if metadata.get(JOINT_DIGEST) != digest(text).encode():
            raise Damaged("what it says of its parts was changed")
        try:
            told = json.loads(text)
            parts = tuple((str(name), int(size)) for name, size in told["parts"])
            extents = tuple((int(part), int(offset), int(size)) for part, offset, size in told["extents"])
            joint = cls(int(told["size"]), parts, extents)
        except (KeyError, ValueError, TypeError) as error:
            raise Damaged("what it says of its parts cannot be read") from error
        if told.get("format") != FORMAT or not joint._is_sound():
            raise Damaged("what it says of its parts cannot be")
        return joint

    def _is_sound(self) -> bool:
        names = [name for name, _ in self.parts]
        plain = all(name and not name.startswith(".") and not set(name) & set("/\\:\0") for name in names)
        inside = all(0 <= part <= len(names) and size > 0 for part, _, size in self.extents)
        return plain and inside and bool(self.extents) and sum(size for _, _, size in self.extents) == self.size


# ---------------------------------------------------------------- what is in the store


def samples(body: Body) -> dict[Digest, list[Run]]:
    """Return a body's runs by their samples."""
    found: dict[Digest, list[Run]] = defaultdict(list)
    for run in body.runs():
        found[_sample(run)].append(run)
    return found


def _sample(run: Run) -> Digest:
    """Return a digest of a run's size and of its first, middle and last bytes."""
    source = run.source
    flat = source.transpose(memory_order(source)).flat
    count = max(SAMPLE // source.itemsize, 1)
    starts = (0, source.size // 2, max(source.size - count, 0))
    taken = [as_bytes(np.ascontiguousarray(flat[start : start + count])).tobytes() for start in starts]
    return combine("run", run.part.extent.size, *taken)


def listed(sampled: Samples, start: int, at: Callable[[Extent], Extent | None] = lambda pages: pages) -> list[Json]:
    """Return what a manifest lists of the runs in a file whose body starts at `start`: sample, offset, bytes.

    `at` tells where in the body something is, if it is there at all.
    """
    found = [(sample, at(run.pages)) for sample, runs in sampled.items() for run in runs]
    return [[sample, start + pages.offset, pages.size] for sample, pages in found if pages is not None]


class _Differs(Exception):
    pass


class _Comparison(Sink):
    """Compares what is sent with what a file holds from some place on."""

    def __init__(self, file: int, at: int) -> None:
        super().__init__(file, 0)
        self._at = at
        self._buffer = bytearray(COMPARED)

    def _send(self, view: memoryview) -> None:
        self._compare(view, self._at)
        self._at += len(view)

    def scatter(self, pieces: Iterator[tuple[int, Bytes]], size: int) -> None:
        self.flush()
        for offset, piece in pieces:
            self._compare(piece.data, self._at + offset)
        self._at += size
        self.position += size

    def _compare(self, view: memoryview, at: int) -> None:
        for start in range(0, len(view), COMPARED):
            wanted = view[start : start + COMPARED]
            if len(self._buffer) != len(wanted):
                self._buffer = bytearray(len(wanted))
            # A bytearray compares by memcmp, a memoryview item by item.
            if os.preadv(self._file, [self._buffer], at + start) != len(wanted) or self._buffer != wanted:
                raise _Differs


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        yield file
    finally:
        os.close(file)


def same(path: Path, envelope: Envelope, body: Body, sampled: Samples, shelf: Shelf) -> Output | None:
    """Make `path` another name of a file that holds exactly this, if the store has one; return what is known of it."""
    size = len(envelope.head) + body.size + len(envelope.tail)
    found = {held.output.digest: held for places in shelf.find(sampled).values() for held in places}
    for held in found.values():
        if held.output.size != size or held.path.parent == path.parent or shelf.take(held, path) is None:
            continue
        with _reading(path) as file, contextlib.suppress(_Differs):
            write_all(_Comparison(file, 0), envelope, body)
            return held.output
        path.unlink()
    return None


# ---------------------------------------------------------------- what is shared


class Place(NamedTuple):
    """Where a run is: in which part (from 1 on), and where in its file."""

    part: int
    offset: int


def share(path: Path, body: Body, sampled: Samples, shelf: Shelf) -> Joined | None:
    """Take from the store what saves writing enough; None where nothing does."""
    taken = _Taken(path, shelf)
    try:
        taken.take_from(_by_file(sampled, shelf.find(sampled)))
        if taken.saved >= WORTH and 2 * len(taken.places) < EXTENTS:
            return Joined(body, taken)
    except BaseException:
        taken.give_back()
        raise
    taken.give_back()
    return None


def _by_file(sampled: Samples, found: Mapping[Digest, Sequence[Held]]) -> list[list[tuple[Run, Held]]]:
    """Return for each file what it may hold, the file that may hold most first."""
    files: dict[Path, list[tuple[Run, Held]]] = defaultdict(list)
    for sample, runs in sampled.items():
        for held in found.get(sample, ()):
            files[held.path] += [(run, held) for run in runs]
    return sorted(files.values(), key=lambda pairs: -sum(run.pages.size for run, _ in pairs))


class _Taken:
    """The parts taken so far, and which run is in which."""

    def __init__(self, path: Path, shelf: Shelf) -> None:
        self.places: dict[Run, Place] = {}
        self.parts: list[Part] = []
        self._path = path
        self._shelf = shelf

    @property
    def saved(self) -> int:
        return sum(run.pages.size for run in self.places)

    def take_from(self, files: Iterable[list[tuple[Run, Held]]]) -> None:
        for pairs in files:
            wanted = {run: held for run, held in pairs if run not in self.places}
            if len(self.parts) < MOST and _is_used(wanted, next(iter(pairs))[1].output):
                self._take(wanted)

    def _take(self, wanted: Mapping[Run, Held]) -> None:
        held = next(iter(wanted.values()))
        number = len(self.parts) + 1
        link = self._path.with_name(f"{self._path.stem}-part{number}{self._path.suffix}")
        path = self._shelf.take(held, link)
        if path is None:
            return
        part = Part(path.name, held.output, is_link=path == link)
        self.parts.append(part)
        places = {run: Place(number, at) for run, at in _compared(path, held.output, wanted)}
        if _is_used(places, held.output):
            self.places |= places
        else:
            self._give_back(self.parts.pop())

    def give_back(self) -> None:
        """Undo what was taken."""
        while self.parts:
            self._give_back(self.parts.pop())
        self.places = {}

    def _give_back(self, part: Part) -> None:
        if part.is_link:
            self._path.with_name(part.name).unlink(missing_ok=True)


def _is_used(runs: Iterable[Run], output: Output) -> bool:
    size = sum(run.pages.size for run in runs)
    return size > 0 and USED * size >= output.size


def _compared(path: Path, output: Output, wanted: Mapping[Run, Held]) -> Iterator[tuple[Run, int]]:
    """Yield the runs that a file really holds, none where it is not the file that it was.

    A link to a file that was damaged anywhere would turn a good entry into a bad one.
    """
    if path.stat().st_size != output.size or file_digest(path)[0] != output.digest:
        return
    with _reading(path) as file:
        for run, held in wanted.items():
            if held.offset + run.pages.size > output.size:
                continue
            comparison = _Comparison(file, held.offset)
            with contextlib.suppress(_Differs):
                write_region(comparison, run.part)
                comparison.flush()
                yield run, held.offset


class Joined:
    """A body without what its parts hold."""

    def __init__(self, body: Body, taken: _Taken) -> None:
        self.parts = taken.parts
        self.give_back = taken.give_back
        self._whole = body
        self._places = taken.places
        self._gaps = _gaps(body.size, [run.pages for run in taken.places])
        self.size = sum(gap.end - gap.start for gap in self._gaps)

    def at(self, extent: Extent) -> Extent | None:
        """Return where some bytes of the whole body are in the file's own; None where a part has them."""
        number = bisect_right(self._gaps, extent.offset, key=lambda gap: gap.start) - 1
        gap = self._gaps[max(number, 0)] if self._gaps else _Gap(0, 0, 0)
        if not gap.start <= extent.offset <= sum(extent) <= gap.end:
            return None
        return Extent(gap.at + extent.offset - gap.start, extent.size)

    def body(self, around: Envelope) -> tuple[Body, Joint]:
        """Return what the file holds itself, the head and tail that it would have in one piece included."""
        own = Body.of(list(self._regions()), self.size)
        head, tail = (own.add_bytes(np.frombuffer(data, np.uint8), alone=True) for data in (around.head, around.tail))
        own.close()
        size = len(around.head) + self._whole.size + len(around.tail)
        names = tuple((part.name, part.output.size) for part in self.parts)
        extents = [(0, *head), *self._extents(), (0, *tail)]
        return own, Joint(size, names, tuple(_merged(extents)))

    def _regions(self) -> Iterator[Region]:
        rows: dict[int, set[int | None]] = defaultdict(set)
        for run in self._places:
            rows[run.region].add(run.row)
        for number, region in enumerate(self._whole.regions):
            if not region.extent.size or None in rows[number]:
                continue
            for part in _rows_without(region, rows[number]):
                extent = self.at(part.extent)
                if extent is None:
                    message = "a region lies in what is shared"
                    raise AssertionError(message)
                yield replace(part, extent=extent)

    def _extents(self) -> list[tuple[int, int, int]]:
        shared = [(run.pages, (place.part, place.offset, run.pages.size)) for run, place in self._places.items()]
        own = [(Extent(gap.start, 0), (0, gap.at, gap.end - gap.start)) for gap in self._gaps]
        return [extent for _, extent in sorted(shared + own)]


class _Gap(NamedTuple):
    """Bytes of the whole body between shared ones, and where they have come."""

    start: int
    end: int
    at: int


def _gaps(size: int, shared: Iterable[Extent]) -> list[_Gap]:
    gaps, start, at = [], 0, 0
    for pages in sorted([*shared, Extent(size, 0)]):
        if pages.offset > start:
            gaps.append(_Gap(start, pages.offset, at))
            at += pages.offset - start
        start = sum(pages)
    return gaps


def _rows_without(region: Region, rows: Collection[int | None]) -> Iterator[Region]:
    """Yield what is left of a region's rows, those side by side together."""
    if not rows or region.rows is None:
        yield region
        return
    block, step = region.rows
    first = 0
    for row in (*sorted(row for row in rows if row is not None), len(block)):
        if row > first:
            extent = Extent(region.extent.offset + first * step, (row - first) * step)
            yield Region(block[first:row], extent, region.strides)
        first = row + 1


def _merged(extents: Iterable[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    """Yield extents, those that go on where the one before ended together with it."""
    last: tuple[int, int, int] | None = None
    for part, offset, size in extents:
        if last is not None and (part, offset) == (last[0], last[1] + last[2]):
            last = (part, last[1], last[2] + size)
            continue
        if last is not None:
            yield last
        last = (part, offset, size)
    if last is not None:
        yield last
