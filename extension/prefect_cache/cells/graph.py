"""Objects that refer to each other, into files and back, each of them once.

What a cell leaves behind is a graph: two names for one object, a frame inside a dict, an array that is
a window onto another, an output that *is* an input. :class:`GraphWriter` takes *roots* (labelled values)
and writes them so that all of this comes back:

* what was in the notebook before is stored as a **path** to it, never as a copy;
* each frame, table and large array is one file of its own, written by its codec, wherever in the graph it lies;
* roots that share an object are pickled together into one file, others each into its own;
* arrays in another's memory are **windows** (``cells.memory``).

A *reference* says where a root is. It is a tuple in a pickle and a list in the manifest:

========================================  ==============================================================
``("plain", value)``                      the value itself: None, a bool, int, text or finite float
``("float", "nan")``                      any other float
``("module", "pandas")``                  an imported module
``("path", path)``                        an object of the notebook, see :data:`prefect_cache.model.ObjectPath`
``("file", 2)``                           what the codec reads from output number 2
``("item", 2, "model")``                  the value labelled so in the pickle that is output number 2
``("window", reference, (3, description))``  memory of another object, and which of all windows it is
``("view", reference, [[0, reference, description]])``    a frame whose block 0 lies in the memory of another object
``("axes", reference, [[1, reference]])``  a frame whose axis 1, as its manager counts, is an index of others as well
``("axis", reference, 1)``                axis 1 of a frame
``("namespace",)``                        the notebook's namespace itself
========================================  ==============================================================
"""

from __future__ import annotations

import collections
import contextlib
import datetime as dt
import decimal
import io
import itertools
import math
import pickle
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Final, cast

from prefect_cache import codecs, modules
from prefect_cache.cells import inplace, memory
from prefect_cache.cells.fingerprint import resolve
from prefect_cache.cells.named import found_by_name
from prefect_cache.codecs.pickled import NAMESPACE, PLAIN, PickledCodec, Reference, ValuePickler, dump, write_bytes
from prefect_cache.errors import Damaged, Unstorable, with_article
from prefect_cache.frames import nbytes
from prefect_cache.model import PART, Held, Json, ObjectPath, Output

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from prefect_cache.codecs.body import Progress
    from prefect_cache.codecs.parts import Part, Shelf
    from prefect_cache.codecs.pickled import Refer
    from prefect_cache.model import Digest

SMALL_ARRAY: Final = 2048
"""Bytes below which an array inside a container stays in the container's pickle."""

LONG_TEXT: Final = 1000
"""Characters above which a text is not written into the manifest."""

Known = Mapping[int, tuple[ObjectPath, object]]
"""Objects that were in the notebook before the run, by ``id``: the path to each, and the object."""

_TABULAR: Final = frozenset({"numpy", "pandas", "pyarrow", "polars"})

_SHARED_BY_NATURE: Final = (
    tuple,
    frozenset,
    range,
    types.BuiltinFunctionType,
    types.ModuleType,
    types.CodeType,
    dt.date,
    dt.time,
    dt.timedelta,
    dt.tzinfo,
    decimal.Decimal,
)


@dataclass(slots=True)
class _Root:
    """A labelled value, what was met inside it, and its pickle where nothing asks for another."""

    label: str
    value: object
    detached: bool = False
    reference: Reference | None = None
    pickle: io.BytesIO = field(default_factory=io.BytesIO)
    met: dict[int, object] = field(default_factory=dict)
    arrays: dict[int, Any] = field(default_factory=dict)
    pickler: object = None


class GraphWriter:
    """Collects roots and writes them.

    Parameters
    ----------
    namespace
        The notebook's.
    known
        What was reachable from the cell's inputs before the run; stays where it is.
    strangers
        Values of other names of the notebook, by ``id``: the key does not depend on them, so that an
        output which holds one of them cannot be stored.
    apart
        Frames that share memory are stored apart, each whole: right for results that nobody changes in place.
    """

    def __init__(
        self,
        namespace: Mapping[str, object],
        known: Known,
        strangers: Mapping[int, str] | None = None,
        *,
        apart: bool = False,
    ) -> None:
        self._namespace = namespace
        self._apart = apart
        self._known = known
        self._strangers = strangers or {}
        self._roots: list[_Root] = []
        self._numbers: dict[int, int] = {}
        self._files: list[tuple[str, object]] = []
        self._windows: dict[int, tuple[object, memory.Window | Unstorable]] = {}
        self._opened: dict[int, int] = {}
        """The windows that were referred to, by ``id``: whoever refers to one of them again means that very array."""
        self._owners: set[int] = set()
        """The objects that others are windows onto."""
        self._views: dict[int, dict[int, tuple[object, memory.Window]]] = {}
        """Of frames, the blocks that lie in the memory of another object."""
        self._axes: dict[int, tuple[object, int]] = {}
        """Of each index that is an axis of a frame, the first such frame and which axis it is."""
        self._picklers: list[ValuePickler] = []
        self._shared: dict[int, bool] = {}
        """Of instances, by ``id``, whether others held their ``__dict__`` before this writer did."""
        self._inside: dict[int, dict[int, object]] = {}
        """What was met in the cells of each frame and object array; these have files of their own."""
        self._hoisted: dict[int, Reference] = {}
        self._shelf: _Drafted | None = None
        self._progress: Progress | None = None
        self._begun = self._done = 0

    def add(self, label: str, value: object, *, detached: bool = False) -> None:
        """Take a value in; :class:`Unstorable` (with the label as its name) where it cannot be kept.

        A `detached` value is stored as it is, though it lies in the memory of something known.
        """
        root = _Root(label, value, detached=detached)
        try:
            self._scan(root)
        except Unstorable as error:
            raise Unstorable(error.message, name=label, remedy=error.remedy) from error
        self._roots.append(root)

    def _scan(self, root: _Root) -> None:
        value = root.value
        root.reference = self._elsewhere(value) or _plain(value) or _module(value)
        if root.reference is not None:
            return
        if root.detached or _has_own_file(value) or _is_inert(value):
            if not root.detached:
                self._meet(root, value)
            self._look_inside(value)
            return

        def refer(inner: object) -> Reference | None:
            if (reference := self._elsewhere(inner)) is not None:
                return reference
            self._meet(root, inner)
            if not _is_file(inner):
                return None
            self._look_inside(inner)
            return ("file", id(inner))

        root.pickler = pickler = self._pickler(root.pickle, refer)
        dump(value, root.pickle, pickler=pickler)

    def _look_inside(self, value: object) -> None:
        """Meet the objects in the cells of a frame or an object array."""
        cells = [cell for cell in memory.cells(value) if type(cell) not in PLAIN]
        if type(value).__module__ == "__main__":
            cells.append(type(value))  # which the file names as well
        if not cells or id(value) in self._inside:
            return
        met: dict[int, object] = {}
        self._inside[id(value)] = met

        def refer(inner: object) -> Reference | None:
            is_part = _is_tabular(type(inner)) and not memory.is_array(inner)
            if is_part or _is_shared_by_nature(inner):
                return None
            if (reference := self._elsewhere(inner)) is not None:
                return reference
            if inner is not cells:
                met[id(inner)] = inner
            return None

        dump(cells, io.BytesIO(), pickler=self._keep(self._pickler(io.BytesIO(), refer)))

    def _pickler(self, file: IO[bytes], refer: Refer) -> ValuePickler:
        return ValuePickler(file, namespace=self._namespace, refer=refer, shared=self._shared)

    def _keep(self, pickler: ValuePickler) -> ValuePickler:
        # What a pickler has met lives as long as it does, so that no id is used again meanwhile.
        self._picklers.append(pickler)
        return pickler

    def _elsewhere(self, value: object) -> Reference | None:
        """Return the path of what was in the notebook before; refuse what the key knows nothing of."""
        if value is self._namespace:
            return NAMESPACE
        if (found := self._known.get(id(value))) is not None:
            return ("path", found[0])
        if (reference := self._hoisted.get(id(value))) is not None:
            return reference
        if (name := self._strangers.get(id(value))) is not None:
            raise Unstorable(
                f"it holds the object that is {name!r}, which the cell does not name",
                remedy=f"let the cell depend on it with --inputs {name}",
            )
        return None

    def _meet(self, root: _Root, value: object) -> None:
        if memory.is_array(value):
            root.arrays[id(value)] = value
        if not _is_shared_by_nature(value):
            root.met[id(value)] = value

    def holds(self, package: str) -> bool:
        """Tell whether something of a package's is among the roots, or in one of them."""
        kinds = {type(value) for root in self._roots for value in (root.value, *root.met.values())}
        return any(kind.__module__.partition(".")[0] == package for kind in kinds)

    def write(
        self, folder: Path, *, shelf: Shelf | None = None, progress: Progress | None = None
    ) -> tuple[tuple[Output, ...], dict[str, Reference]]:
        """Write all roots into files of `folder`; return the files, and where each root is.

        With a `shelf`, files share what the store or one of them already has; `progress` is called with the
        bytes done and those to do (0 while that is not known). A writer writes once.
        """
        try:
            return self._write(folder, shelf, progress)
        finally:
            self._forget()

    def _write(
        self, folder: Path, shelf: Shelf | None, progress: Progress | None
    ) -> tuple[tuple[Output, ...], dict[str, Reference]]:
        self._shelf = None if shelf is None else _Drafted(folder, shelf)
        self._progress = progress
        self._find_windows()
        self._find_axes()
        written: dict[int, Output] = {}
        if hoisted := self._hoist():
            number = self._reserve("shared objects", hoisted)
            written[number] = self._write_pickle(folder, number, hoisted)
            self._hoisted = {id(root.value): ("item", number, root.label) for root in hoisted}
        pickles: list[tuple[int, list[_Root]]] = []
        references: dict[str, Reference] = {}
        for group in self._groups():
            if len(group) == 1 and (reference := group[0].reference or self._own_file(group[0])) is not None:
                references[group[0].label] = reference
                continue
            label = group[0].label if len(group) == 1 else ", ".join(r.label for r in group)
            number = self._reserve(label, group)
            pickles.append((number, group))
            references.update({r.label: ("item", number, r.label) for r in group})
        for number, group in pickles:
            written[number] = self._write_pickle(folder, number, group)
        # Writing a pickle finds further files; the frames inside frames' own cells are found while these are written.
        for number in itertools.count():
            if number >= len(self._files):
                break
            if number not in written:
                written[number] = self._write_value(folder, number)
        parts = self._shelf.linked if self._shelf is not None else []
        return (*(written[n] for n in sorted(written)), *parts), references

    def _forget(self) -> None:
        """Let go of all that was added: picklers refer to the writer, so that else only the garbage collector would.

        Until then pandas would take a frame's memory for shared with what was written, and copy it before a change.
        """
        self._picklers.clear()
        self._shared.clear()
        self._roots.clear()
        self._files.clear()
        self._inside.clear()
        self._windows.clear()
        self._views.clear()
        self._axes.clear()

    def _told(self) -> Progress | None:
        """Return what a codec calls with the bytes of its file; adds what is written and to be written besides."""
        progress, before = self._progress, self._done
        if progress is None:
            return None
        waiting = sum(nbytes(value) for _, value in self._files[self._begun :] if _has_own_file(value))

        def told(done: int, size: int) -> None:
            self._done = before + done
            progress(self._done, before + size + waiting if size else 0)

        return told

    def _hoist(self) -> list[_Root]:
        """Return the objects that the cells of frames share with anything else: all will refer to them."""
        found = collections.Counter(key for cells in self._inside.values() for key in cells)
        found.update({key for root in self._roots for key in root.met})
        objects = {key: value for cells in self._inside.values() for key, value in cells.items()}
        shared = [value for key, value in objects.items() if found[key] > 1]
        return [_Root(f"shared {i}", value) for i, value in enumerate(shared)]

    def _own_file(self, root: _Root) -> Reference | None:
        if (reference := self._hoisted.get(id(root.value))) is not None:
            return reference
        return self._file(root.label, root.value) if root.detached or _has_own_file(root.value) else None

    def _file(self, label: str, value: object) -> Reference:
        """Return the reference to a frame or array: a window, or the file that it has or will have."""
        if (found := self._windows.get(id(value))) is not None:
            owner, description = found
            if isinstance(description, Unstorable):
                raise description
            which = self._opened.setdefault(id(value), len(self._opened))
            return ("window", self._elsewhere(owner) or self._file(label, owner), (which, description))
        if (frame := self._axes.get(id(value))) is not None:
            return ("axis", self._file(label, frame[0]), frame[1])
        if id(value) not in self._numbers:
            self._numbers[id(value)] = self._reserve(label, value)
        reference: Reference = ("file", self._numbers[id(value)])
        views = tuple(
            (block, self._elsewhere(owner) or self._file(label, owner), description)
            for block, (owner, description) in self._views.get(id(value), {}).items()
        )
        if views:
            reference = ("view", reference, views)
        axes = tuple(self._shared_axes(label, value))
        return ("axes", reference, axes) if axes else reference

    def _shared_axes(self, label: str, frame: object) -> Iterator[tuple[int, Reference]]:
        """Yield the axes of a frame that are indexes of the notebook's, or of a frame that comes before it."""
        for number, index in enumerate(memory.axes_of(frame)):
            owner, at = self._axes.get(id(index), (frame, number))
            if (found := self._known.get(id(index))) is not None:
                yield number, ("path", found[0])
            elif owner is not frame:
                yield number, ("axis", self._file(label, owner), at)

    def _find_axes(self) -> None:
        met = (v for root in self._roots for v in ([root.value] if root.detached else root.met.values()))
        for frame in met:
            for number, index in enumerate(memory.axes_of(frame)):
                self._axes.setdefault(id(index), (frame, number))

    def _reserve(self, label: str, value: object) -> int:
        self._files.append((label, value))
        return len(self._files) - 1

    def _groups(self) -> list[list[_Root]]:
        """Return the roots in their order, those together that share an object inside pickles."""
        parent = list(range(len(self._roots)))

        def find(i: int) -> int:
            while parent[i] != i:
                parent[i] = parent[parent[i]]
                i = parent[i]
            return i

        first: dict[int, int] = {}
        for i, root in enumerate(self._roots):
            for key, value in root.met.items():
                if not (_is_file(value) or id(value) in self._windows):
                    parent[find(i)] = find(first.setdefault(key, i))
        groups: dict[int, list[_Root]] = {}
        for i, root in enumerate(self._roots):
            groups.setdefault(find(i), []).append(root)
        return list(groups.values())

    def _find_windows(self) -> None:
        arrays = {key: value for root in self._roots for key, value in root.arrays.items()}
        arrays |= {key: v for cells in self._inside.values() for key, v in cells.items() if memory.is_array(v)}
        self._find_exporters(arrays)
        frames = [v for root in self._roots for v in root.met.values() if _is_file(v) and id(v) not in arrays]
        old = [value for _, value in self._known.values()]
        fresh = {id(v) for v in (*arrays.values(), *frames)}
        exporters = self._exporters()
        spans = itertools.chain(memory.extents([*arrays.values(), *frames, *old]), *exporters.values())
        # First what lies in memory that was there before, so that new arrays which share it meet there.
        pairs = sorted(memory.overlapping(spans), key=lambda pair: all(id(e.owner) in fresh for e in pair))
        for one, other in pairs:
            foreign = [e.owner for e in (one, other) if id(e.owner) in exporters]
            if foreign and {id(one.owner), id(other.owner)} <= self._known.keys():
                continue  # both stay where they are
            if foreign:
                raise Unstorable(f"{with_article(type(foreign[0]))} shares its memory with another object")
            owner, guest = _owner_and_guest(one, other, fresh, apart=self._apart)
            if guest is not None and guest.block >= 0:
                self._add_view(guest, owner)
            elif guest is not None and id(guest.array) not in self._windows and id(guest.owner) in arrays:
                self._windows[id(guest.owner)] = self._window(guest.owner, owner, arrays)
        self._owners = {id(owner) for owner, found in self._windows.values() if not isinstance(found, Unstorable)}
        self._owners |= {id(owner) for views in self._views.values() for owner, _ in views.values()}

    def _exporters(self) -> dict[int, list[memory.Extent]]:
        """Return what objects of other libraries span, by ``id``: none of them can be stored as a window."""
        found: dict[int, list[memory.Extent]] = {}
        for root in self._roots:
            kinds = memory.exporting(root.met.values())
            last: list[memory.Extent] = []
            for key, value in root.met.items() if kinds else ():
                try:
                    spans = list(memory.exported(value)) if type(value) in kinds else []
                except Unstorable as error:
                    raise Unstorable(error.message, name=root.label, remedy=error.remedy) from error
                # A parameter of torch's is pickled as a tensor in its memory, made when it is asked for its state.
                of_the_last = [(s.low, s.high) for s in spans] == [(s.low, s.high) for s in last]
                if spans and not of_the_last:
                    found[key] = spans
                last = spans
        known = [value for _, value in self._known.values()]
        kinds = memory.exporting(known)
        for value in known if kinds else ():
            if type(value) in kinds:
                with contextlib.suppress(Unstorable):  # it stays where it is
                    found[id(value)] = list(memory.exported(value))
        return found

    def _find_exporters(self, arrays: Mapping[int, Any]) -> None:
        """Refuse arrays in the memory of something that is no array, where the notebook holds that as well."""
        met = {key for root in self._roots for key in root.met}
        for key, array in arrays.items():
            exporter = _exporter(array)
            if exporter is not None and (id(exporter) in self._known or id(exporter) in met):
                message = f"it lies in the memory of {with_article(type(exporter))}"
                self._windows[key] = (exporter, Unstorable(message, remedy="store a copy of it"))

    def _add_view(self, guest: memory.Extent, onto: memory.Extent) -> None:
        views = self._views.setdefault(id(guest.owner), {})
        if guest.block in views:
            return
        if any(owner is guest.owner for owner, _ in self._views.get(id(onto.owner), {}).values()):
            raise Unstorable("two frames lie in each other's memory", remedy="store a copy of one")
        try:
            views[guest.block] = (onto.owner, memory.view(guest, onto))
        except Unstorable as error:
            raise Unstorable("a frame shares its memory with another object", remedy="store a copy of it") from error

    def _window(
        self, array: Any, onto: memory.Extent, arrays: Mapping[int, object]
    ) -> tuple[object, memory.Window | Unstorable]:
        """Return what `array` is a window onto, and how; or why not, for whoever stores it.

        Not all will be: an object may make arrays onto its own memory each time that it is asked for its state.
        """
        label = next((r.label for r in self._roots if id(array) in r.arrays), "")
        if onto.block < 0 and id(onto.owner) in arrays:
            base = next(memory.extents([_base(onto.array)]))
            if base.owner is not onto.owner and id(onto.owner) not in self._windows:
                # Both are windows onto an array that has no name.
                self._windows[id(onto.owner)] = self._window(onto.owner, base, {})
            onto = base
        try:
            return onto.owner, memory.window(array, onto)
        except Unstorable as error:
            return onto.owner, Unstorable(
                error.message, name=label, remedy="store a copy of it, or leave it out with -o"
            )

    def _refer(self, label: str) -> Callable[[object], Reference | None]:
        def refer(value: object) -> Reference | None:
            if (reference := self._elsewhere(value)) is not None:
                return reference
            return self._file(label, value) if _is_file(value) or self._is_linked(value) else None

        return refer

    def _is_linked(self, value: object) -> bool:
        """Tell whether an array, however small, has a file of its own or is in one: as a window, or below windows."""
        return id(value) in self._windows or id(value) in self._owners

    def _refer_from_cells(self, label: str, table: object) -> Callable[[object], Reference | None]:
        """Return what gives the reference for an object in a table's cells; what it consists of itself has none."""

        def refer(value: object) -> Reference | None:
            if value is table:
                return None
            if memory.is_array(value) and self._is_linked(value):
                return self._file(label, value)
            is_part = _is_tabular(type(value)) and id(value) not in self._hoisted
            return None if is_part else self._elsewhere(value)

        return refer

    def _write_pickle(self, folder: Path, number: int, group: list[_Root]) -> Output:
        label, _ = self._files[number]
        told = self._told()
        names = [r.label for r in group]
        path = folder / f"{number:02d}-{_file_name(label)}{PickledCodec.suffix}"
        values = {r.label: r.value for r in group}
        if len(group) == 1 and _is_inert(group[0].value):
            # Millions of plain numbers or texts: the pickler need not ask about each of them.
            tree = write_bytes(path, lambda f: pickle.dump(values, f, protocol=pickle.HIGHEST_PROTOCOL), told)
        else:
            refer = self._refer(names[0])
            tree = write_bytes(path, lambda f: dump(values, f, pickler=self._pickler(f, refer)), told)
        meta: dict[str, Json] = {"pieces": list(tree.pieces), "summaries": {r.label: summary(r.value) for r in group}}
        kind = type(group[0].value).__name__ if len(group) == 1 else "values"
        return Output(label, kind, PickledCodec.name, path.name, tree.digest, tree.size, meta)

    def _write_value(self, folder: Path, number: int) -> Output:
        label, value = self._files[number]
        codec = codecs.codec_for(value)
        path = folder / f"{number:02d}-{_file_name(label)}{codec.suffix}"
        self._begun = number + 1
        try:
            written = codec.write(
                value,
                path,
                namespace=self._namespace,
                refer=self._refer_from_cells(label, value),
                shelf=self._shelf,
                progress=self._told(),
            )
        except Unstorable as error:
            raise Unstorable(error.message, name=label, remedy=error.remedy) from error
        made = Output(label, type(value).__name__, codec.name, path.name, written.digest, written.size, written.meta)
        if self._shelf is not None:
            self._shelf.add(made, written.parts)
        return made


_OF_PARTS: Final = ("pieces", "runs")


class _Drafted:
    """What the store has, and what the files already written beside each other have."""

    def __init__(self, folder: Path, store: Shelf) -> None:
        self.linked: list[Output] = []
        self._folder = folder
        self._store = store
        self._here: list[Output] = []

    def add(self, made: Output, parts: Iterable[Part]) -> None:
        """Know one more file, and the parts that were linked for it."""
        links = [
            Output(made.name, PART, PART, part.name, held.digest, held.size, {k: held.meta[k] for k in _OF_PARTS})
            for part in parts
            if part.is_link
            for held in (part.output,)
        ]
        self.linked += links
        self._here += [made, *links]

    def find(self, samples: Collection[Digest]) -> Mapping[Digest, Sequence[Held]]:
        """Return where runs with these samples may be, files of this folder first: they cost no further link."""
        found: dict[Digest, list[Held]] = collections.defaultdict(list)
        for output in self._here:
            runs = cast("list[tuple[str, int, int]]", output.meta.get("runs", []))
            for sample, start, _ in runs:
                if sample in samples:
                    found[sample].append(Held(self._folder / output.file, start, output))
        for sample, held in self._store.find(samples).items():
            found[sample] += held
        return found

    def take(self, held: Held, path: Path) -> Path | None:
        """Return the name of a file of this folder, or give one of the store's a name in it."""
        return held.path if held.path.parent == self._folder else self._store.take(held, path)


def _base(array: Any) -> Any:
    while memory.is_array(array.base):
        array = array.base
    return array


def _exporter(array: Any) -> object | None:
    """Return the object in whose memory an array lies that is no array itself, such as a bytearray."""
    base = _base(array).base
    return base.obj if isinstance(base, memoryview) else base


def _owner_and_guest(
    one: memory.Extent, other: memory.Extent, fresh: set[int], *, apart: bool
) -> tuple[memory.Extent, memory.Extent | None]:
    """Return which of two overlapping extents is stored (or stays), and which is a window onto it."""
    rank = {True: 0, False: 1}
    # What was there before stays; a frame keeps its blocks; of two arrays the larger is kept, or what is no view.
    first, second = sorted(
        (one, other),
        key=lambda e: (rank[id(e.owner) not in fresh], rank[e.block >= 0], e.low - e.high, e.array.base is not None),
    )
    if id(second.owner) not in fresh:
        return first, None
    if second.block >= 0:
        # Both are pandas objects, or an array from before lies under a new frame's block.
        is_invisible = first.block >= 0 and (apart or inplace.copies_on_write())
        return first, None if is_invisible else second
    return first, second


def _has_own_file(value: object) -> bool:
    return memory.is_array(value) or _is_file(value)


def _is_file(value: object) -> bool:
    if memory.is_array(value):
        return value.nbytes >= SMALL_ARRAY and not value.dtype.hasobject  # type: ignore[attr-defined]
    return _is_tabular(type(value)) and codecs.codec_for(value).name != PickledCodec.name


def _is_shared_by_nature(value: object) -> bool:
    """Tell whether nobody can tell, or it is certain, that two pickles give one object."""
    if isinstance(value, type | types.FunctionType):
        # What a cell defines is made anew by each pickle that holds it.
        return value.__module__ != "__main__" and found_by_name(value)
    return isinstance(value, _SHARED_BY_NATURE)


def _is_tabular(cls: type) -> bool:
    # Asked of every object in a pickle: most are of classes that no library of tables made.
    homes = (base.__module__ for base in cls.__mro__)
    return any(modules.package_name(home) in _TABULAR and not home.startswith("numpy.random") for home in homes)


def _is_inert(value: Any) -> bool:
    """Tell whether a container holds plain numbers and texts only: nothing that could be shared or referred to."""
    if type(value) in {list, tuple, set, frozenset}:
        return set(map(type, value)) <= PLAIN
    return type(value) is dict and set(map(type, value.values())) <= PLAIN and set(map(type, value)) <= PLAIN


def _plain(value: object) -> Reference | None:
    if value is None or type(value) in {bool, int}:
        return ("plain", value)
    if type(value) is float:
        return ("plain", value) if math.isfinite(value) else ("float", value.hex())
    if type(value) is str and len(value) <= LONG_TEXT and _is_unicode(value):
        return ("plain", value)
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _module(value: object) -> Reference | None:
    if isinstance(value, types.ModuleType) and modules.is_importable(value):
        return ("module", value.__name__)
    return None


def _file_name(label: str) -> str:
    """Return a label as part of a file's name: letters, digits and underscores only."""
    return re.sub(r"[^A-Za-z0-9]+", "_", label).strip("_")[:40] or "value"


def summary(value: object) -> str:
    """Return one short line about a value; calls no code of the value's own class."""
    cls = type(value)
    if cls.__module__ == "builtins" and cls.__name__ in {"list", "dict", "set", "tuple", "frozenset", "bytes", "str"}:
        return f"{cls.__name__} of {len(value):,}"  # type: ignore[arg-type]
    if isinstance(value, types.FunctionType | type):
        return f"{cls.__name__} {value.__qualname__}"
    return cls.__qualname__


class GraphReader:
    """Gives the objects that references stand for; each file is read once, and only when it is asked for.

    Parameters
    ----------
    folder
        The entry's.
    outputs
        Its files.
    trusted
        Whether its pickles may be opened.
    namespace
        Where paths start and functions live; it is not changed.
    apart
        Values are read apart from the notebook where the cell ran: a frame has an index of its own.
    """

    def __init__(
        self,
        folder: Path,
        outputs: Iterable[Output],
        *,
        trusted: bool,
        namespace: MutableMapping[str, object],
        apart: bool = False,
    ) -> None:
        self._apart = apart
        self._folder = folder
        self._outputs = tuple(outputs)
        self._trusted = trusted
        self._namespace = namespace
        self._read: dict[int, object] = {}
        self._windows: dict[int, object] = {}
        self._instead: dict[int, object] = {}
        self._viewed: set[int] = set()
        self._parts: Mapping[object, Callable[[object, Any], object]] = {
            "window": self._window,
            "view": self._view,
            "axes": self._with_axes,
            "axis": self._axis,
        }
        """What becomes of the object that a reference of three words names in the second."""

    def get(self, reference: Any) -> object:
        """Return the object; :class:`Damaged` where there is none such."""
        match reference:
            case ("plain", value) | ["plain", value]:
                return value
            case ("float", str() as text) | ["float", str() as text]:
                return float.fromhex(text)
            case ("module", str() as name) | ["module", str() as name]:
                return _imported(name)
            case ("path", path) | ["path", path]:
                return self._resolved(path)
            case ("file", int() as number) | ["file", int() as number]:
                return self._value(number)
            case ("item", int() as number, str() as label) | ["item", int() as number, str() as label]:
                return self._item(number, label)
            case (kind, of, more) | [kind, of, more] if kind in self._parts:
                return self._parts[kind](self.get(of), more)
            case _:
                raise Damaged(f"unknown reference {reference!r}")

    def will_be(self, value: object, content: object) -> None:
        """Let windows onto `value` be windows onto `content`, whose memory it will have; None: nobody knows which."""
        self._instead[id(value)] = content

    def _window(self, owner: object, told: Any) -> object:
        which, description = told
        if which not in self._windows:
            self._windows[which] = self._memory(owner, description)
        return self._windows[which]

    def _memory(self, owner: object, description: Any) -> object:
        onto = self._instead.get(id(owner), owner)
        if onto is None:
            raise Damaged("a window onto an array that gets another size")
        try:
            return memory.opened(description, onto)
        except (IndexError, TypeError, ValueError) as error:
            raise Damaged(f"a window does not fit into what it is a window onto: {error}") from error

    def _view(self, frame: object, views: Any) -> object:
        if id(frame) not in self._viewed:
            self._viewed.add(id(frame))  # which lives as long as this reader
            for block, owner, description in views:
                array = self._memory(self.get(owner), description)
                try:
                    memory.put_block(frame, int(block), array)
                except (AttributeError, IndexError, ValueError) as error:
                    raise Damaged(f"a frame does not fit into the memory where it lay: {error}") from error
        return frame

    def _axis(self, frame: object, number: Any) -> object:
        try:
            return memory.axes_of(frame)[number]
        except (IndexError, TypeError) as error:
            raise Damaged(f"there is no index {number!r} where one should be") from error

    def _with_axes(self, frame: object, axes: Any) -> object:
        for number, reference in axes:
            if self._apart and reference[0] == "path":
                continue  # its own labels are the same
            try:
                memory.put_axis(frame, int(number), self.get(reference))
            except (AttributeError, IndexError, ValueError) as error:
                raise Damaged(f"a frame does not fit to the index that it had: {error}") from error
        return frame

    def _resolved(self, path: Any) -> object:
        steps = tuple((str(kind), at) for kind, at in path)
        try:
            return resolve(steps, self._namespace)
        except LookupError as error:
            raise Damaged(f"nothing is at {steps!r} in the notebook") from error

    def _item(self, number: int, label: str) -> object:
        values = self._value(number)
        if not isinstance(values, dict) or label not in values:
            raise Damaged(f"output {number} holds no {label!r}")
        return values[label]

    def _value(self, number: int) -> object:
        if number not in self._read:
            try:
                output = self._outputs[number]
            except IndexError as error:
                raise Damaged(f"there is no output number {number}") from error
            codec = codecs.codec(output.codec)
            self._read[number] = codec.read(
                self._folder / output.file,
                output.meta,
                trusted=self._trusted,
                namespace=self._namespace,
                resolve=self.get,
            )
        return self._read[number]


def _imported(name: str) -> types.ModuleType:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Damaged(f"the module {name} cannot be imported any more") from error
