"""What a run did to a namespace, found by looking, and done again on a hit.

Before a run, :class:`Before` remembers which object stands under each name and the fingerprint of
every mutable object that the cell can reach. After it, :func:`take` compares: names bound, rebound (also
inside helpers) and deleted; objects changed in place; state of the process. :func:`write` puts that into
files, :class:`Replay` does it again: first everything is read and found, then everything is changed,
so that a damaged file leaves the notebook as it was.

A name that the cell may bind, that it does not read, and that holds the same object afterwards is
ambiguous: was it bound to that object again, or not at all? Such names are taken out of the namespace for
the time of the run (:meth:`Before.set_aside`): what is there afterwards has been bound.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from prefect_cache import modules
from prefect_cache.cells import annotated, inplace
from prefect_cache.cells import state as process
from prefect_cache.cells.fingerprint import Fingerprinter, resolve
from prefect_cache.cells.graph import GraphReader, GraphWriter
from prefect_cache.cells.keys import ABSENT, name_digest
from prefect_cache.cells.named import asked
from prefect_cache.codecs.instances import has_shared_dict, own_dict
from prefect_cache.errors import Damaged, Unfingerprintable, Unstorable
from prefect_cache.model import Cell, Entry, Json, ObjectPath, Observed, Output

if TYPE_CHECKING:
    import ast
    from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
    from pathlib import Path

    from prefect_cache.cells.fingerprint import Node
    from prefect_cache.codecs.body import Progress
    from prefect_cache.codecs.parts import Shelf

_VALUE = "Out"
_PROCESS = "process state"


class _Reference:
    """An object remembered: weakly where that is possible, so that a run may free what it replaces."""

    __slots__ = ("_get",)

    def __init__(self, value: object) -> None:
        try:
            self._get: Callable[[], object] = weakref.ref(value)
        except TypeError:
            self._get = lambda: value

    def get(self) -> object | None:
        """Return the object, None where it is gone."""
        return self._get()

    def is_for(self, value: object) -> bool:
        """Tell whether `value` is that very object."""
        mine = self._get()
        # A weak reference to a dead object gives None, and nothing refers weakly to None itself.
        return mine is value and (mine is not None or not isinstance(self._get, weakref.ref))


@dataclass(frozen=True, slots=True)
class _Was:
    """A mutable object that the cell can reach, as it was."""

    path: ObjectPath
    reference: _Reference
    digest: str
    look: inplace.Look
    children: tuple[int, ...]
    """Which objects its parts were, by ``id``: the fingerprinter holds them as long as the run lasts."""

    def get(self) -> Any:
        """Return the object, None where it is gone."""
        return self.reference.get()


class Before:
    """A namespace as it was before a run.

    Parameters
    ----------
    namespace
        The notebook's.
    cell
        What analysis says of the cell.
    found
        The fingerprinter that has walked the cell's inputs.
    hidden
        Tells names that belong to IPython rather than to the notebook.
    """

    def __init__(
        self,
        namespace: MutableMapping[str, object],
        cell: Cell,
        found: Fingerprinter,
        hidden: Callable[[str], bool],
    ) -> None:
        self.namespace = namespace
        self.hidden = hidden
        self.reached = frozenset(found.names)
        self.may_bind = (set(cell.writes) | found.stores) - self.reached
        self.may_delete = set(cell.deletes)
        self.names = {name: _Reference(value) for name, value in namespace.items() if not hidden(name)}
        self.objects = [_was(node) for node in found.nodes]
        self._caches = [(function, function.cache_info()) for function in found.caches]
        self._tree = cell.tree
        self._aside: dict[str, object] = {}
        self.annotated: Mapping[str, object] = {}
        """The annotations of names that the run made."""
        self._bound_again: set[str] = set()
        self._kept: dict[str, object] | None = None
        self._states: list[tuple[_Was, inplace.State]] = []

    @contextlib.contextmanager
    def set_aside(self) -> Iterator[None]:
        """Take the ambiguous names out for the time of a run; those that it did not bind come back."""
        self._take_aside()
        try:
            with annotated.apart(self._tree, self.namespace) as self.annotated:
                yield
        finally:
            self._bound_again = {name for name in self._aside if name in self.namespace}
            for name, value in self._aside.items():
                self.namespace.setdefault(name, value)

    def _take_aside(self) -> None:
        names = [n for n in self.may_bind - self.may_delete if n in self.names and n in self.namespace]
        self._aside = {name: self.namespace.pop(name) for name in names}

    def keep_for_retries(self) -> None:
        """Keep copies of all that the cell can reach, for :meth:`rewind`.

        Raises
        ------
        Unstorable
            Where an object has a content that cannot be put back.
        """
        self._kept = {k: v for k, v in self.namespace.items() if not self.hidden(k)}
        living = [(was, value) for was in self.objects if (value := was.get()) is not None]
        self._states = [(was, inplace.copied(inplace.state_of(value))) for was, value in living]

    def rewind(self) -> None:
        """Bring names and objects back to where they were before the run, for another try."""
        if self._kept is None:
            return
        for name in [n for n in self.namespace if n not in self._kept and not self.hidden(n)]:
            del self.namespace[name]
        self.namespace.update(self._kept)
        for name in self._aside:
            self.namespace.pop(name, None)
        now = _Comparison(self.namespace)
        for was, kept in self._states:
            value = was.get()
            if value is not None and now.differs(was, value):
                inplace.put_state(value, inplace.copied(kept))

    def filled_cache(self) -> str:
        """Return the name of a function whose ``lru_cache`` the run filled, else nothing."""
        grown = (function for function, info in self._caches if function.cache_info().misses != info.misses)
        return next((function.__qualname__ for function in grown), "")

    def is_bound(self, name: str) -> bool:
        """Tell whether the run bound `name`, which is in the namespace now."""
        if name in self._aside:
            return name in self._bound_again
        return name not in self.names or not self.names[name].is_for(self.namespace[name])

    def known(self) -> dict[int, tuple[ObjectPath, object]]:
        """Return what the cell could reach and is still there, by ``id``, with the path to it."""
        found: dict[int, tuple[ObjectPath, object]] = {}
        for was in self.objects:
            if (value := was.get()) is not None:
                found.setdefault(id(value), (was.path, value))
                if has_shared_dict(value) and id(own := own_dict(value)) == was.look.own:
                    found.setdefault(id(own), ((*was.path, ("attr", "__dict__")), own))
        for name in sorted(self.reached):
            value = self.names[name].get() if name in self.names else None
            if _has_identity(value):
                found.setdefault(id(value), ((("name", name),), value))
        return found

    def strangers(self, known: Collection[int]) -> dict[int, str]:
        """Return the mutable values of names that the cell could not reach, by ``id``."""
        found: dict[int, str] = {}
        for name, reference in self.names.items():
            value = reference.get()
            if (
                name not in self.reached
                and _has_identity(value)
                and not _is_importable(value)
                and id(value) not in known
            ):
                found[id(value)] = name
        return found


def _was(node: Node) -> _Was:
    return _Was(node.path, _Reference(node.value), node.digest, inplace.look(node.value), node.children)


class _Comparison:
    """Tells which of the objects that there were before a run have changed since."""

    def __init__(self, namespace: Mapping[str, object]) -> None:
        self._now = Fingerprinter(namespace)
        self._once_more = Fingerprinter(namespace)

    def differs(self, was: _Was, value: object) -> bool:
        """Tell whether `value` is not equal to what it was, or does not hold the very objects that it held.

        ``config["columns"] = ["a"]`` may put a list in the place of an equal one: another name for the old one is no
        longer one for what is there. Parts that are made when somebody asks for them are others each time; they tell
        nothing.
        """
        if self._now.digest_of(value) != was.digest:
            return True
        parts = self._now.children_of(value)
        exchanged = [i for i, (old, new) in enumerate(zip(was.children, parts, strict=False)) if new and old != new]
        if not exchanged:
            return False
        again = self._once_more.children_of(value)
        return any(parts[i] == again[i] for i in exchanged)


def _has_identity(value: object) -> bool:
    if isinstance(value, tuple):
        return type(value) is not tuple  # a named tuple of the notebook's is one of its instances
    return value is not None and not isinstance(value, bool | int | float | complex | str | bytes | frozenset | range)


def _is_importable(value: object) -> bool:
    """Tell whether a pickle names this object by its module rather than holding it."""
    module = asked(value, "__module__") if isinstance(value, type) or callable(value) else None
    return type(value) is type(sys) or (isinstance(module, str) and module != "__main__" and module in sys.modules)


@dataclass(frozen=True, slots=True)
class Changed:
    """An object that a run changed in place, the path to it, and how it was before."""

    path: ObjectPath
    value: object
    look: inplace.Look


@dataclass(frozen=True, slots=True)
class Effects:
    """What a run did: values, still in memory."""

    bound: Mapping[str, object]
    deleted: tuple[str, ...]
    changed: tuple[Changed, ...]
    value: object
    process: Mapping[str, Any]
    imports: tuple[str, ...]
    annotated: Mapping[str, bool]
    """Names that were annotated, see ``cells.annotated``."""
    depends: tuple[Observed, ...]
    """Names whose earlier value decides, though the cell does not read them."""


def take(
    before: Before,
    namespace: Mapping[str, object],
    cell: Cell,
    value: object,
    process: Mapping[str, Any],
    keep: Collection[str] = (),
) -> Effects:
    """Return what a run did, by comparing `namespace` with how it was.

    Parameters
    ----------
    before
        The namespace as it was.
    namespace
        The namespace now.
    cell
        What ran.
    value
        What its last expression gave.
    process
        What it changed of the process, see ``cells.state``.
    keep
        The names to store; all that were bound where empty.

    Raises
    ------
    Unfingerprintable
        Where something that the run might have changed has no digest any more.
    Unstorable
        Where a hit could not do all of it again.
    """
    changed = tuple(_changed(before))
    if changed and (cached := before.filled_cache()):
        # Where only values were computed, to do so once more later is no difference but in time.
        raise Unstorable(
            f"it filled the cache of {cached} and changed something in place, and a hit could do only that"
        )
    names = [n for n in namespace if not before.hidden(n)]
    bound = {n: namespace[n] for n in names if before.is_bound(n) or n in cell.settled}
    deleted = [n for n in before.names if n not in namespace]
    deleted += [n for n in cell.settled if n not in namespace and n not in before.names]
    return Effects(
        bound={n: v for n, v in bound.items() if not keep or n in keep},
        deleted=tuple(sorted(deleted)),
        changed=changed,
        value=value,
        process=process,
        imports=tuple(m for m in cell.imports if m in sys.modules),
        annotated=annotated.told(cell.tree, before.annotated, namespace),
        depends=tuple(_depends(before, namespace, cell)),
    )


def _changed(before: Before) -> Iterator[Changed]:
    now = _Comparison(before.namespace)
    for was in before.objects:
        value = was.get()
        if value is None:
            continue
        try:
            differs = now.differs(was, value)
        except Unfingerprintable as error:
            raise Unfingerprintable(f"the run put into {text(was.path)} what has no digest: {error}") from error
        if differs:
            yield Changed(was.path, value, was.look)


def _depends(before: Before, namespace: Mapping[str, object], cell: Cell) -> Iterator[Observed]:
    """Yield the names of which nobody can tell whether the run bound or deleted them."""
    for name in sorted(before.may_bind):
        if name in cell.settled or before.hidden(name):
            continue
        if name not in namespace:
            if name not in before.names and name in before.may_delete:
                yield Observed("name", name, ABSENT)
        elif name in before.may_delete and not before.is_bound(name):
            yield Observed("name", name, name_digest(namespace, name))


def text(path: ObjectPath) -> str:
    """Return a path as a person writes it: ``cfg['a'][0].x``."""
    words = []
    for kind, at in path:
        words.append(str(at) if kind == "name" else f".{at}" if kind == "attr" else f"[{at!r}]")
    return "".join(words)


def write(
    effects: Effects,
    before: Before,
    namespace: Mapping[str, object],
    folder: Path,
    *,
    verified: Collection[str] = (),
    shelf: Shelf | None = None,
    progress: Progress | None = None,
) -> tuple[tuple[Output, ...], dict[str, Json]]:
    """Write a run's effects into files of `folder`; return the files and what the manifest says of them.

    `verified` are further names that a hit will find as they are now: what they stand for may be referred to.
    `shelf` and `progress` are as in :meth:`~prefect_cache.cells.graph.GraphWriter.write`.

    Raises
    ------
    Unstorable
        Where something cannot be kept; its ``name`` is the variable.
    """
    found = {name: namespace[name] for name in verified if _has_identity(namespace.get(name))}
    also: dict[int, tuple[ObjectPath, object]] = {id(v): ((("name", name),), v) for name, v in found.items()}
    known = {**also, **_in_modules(effects.imports), **before.known()}
    graph = GraphWriter(namespace, known, before.strangers(known.keys()))
    for name, value in effects.bound.items():
        graph.add(name, value)
    states = [(changed.path, inplace.state_of(changed.value, changed.look)) for changed in effects.changed]
    labels = _labels(states, effects.bound.keys())
    for label, (_, state) in zip(labels, states, strict=True):
        # What an Arrow file holds needs no pickle around it, and so no trust.
        if state.kind in inplace.IN_FILES:
            graph.add(label, state.content, detached=True)
        else:
            graph.add(label, state)
    graph.add(_VALUE, effects.value)
    if effects.process:
        graph.add(_PROCESS, dict(effects.process))
    drawn = graph.holds("matplotlib")
    outputs, references = graph.write(folder, shelf=shelf, progress=progress)
    return outputs, {
        "names": {name: _json(references[name]) for name in effects.bound},
        "deleted": list(effects.deleted),
        "changed": [
            {"path": _json(path), "kind": state.kind, "kept": list(state.kept), "state": _json(references[label])}
            for label, (path, state) in zip(labels, states, strict=True)
        ],
        "value": _json(references[_VALUE]),
        "process": _json(references[_PROCESS]) if effects.process else None,
        "imports": list(effects.imports),
        "annotated": dict(effects.annotated),
        "drawn": drawn,
    }


def _in_modules(names: Collection[str]) -> dict[int, tuple[ObjectPath, object]]:
    """Return the mutable objects that imported modules of the user's own hold, by ``id``, with the path to each."""
    found = Fingerprinter({})
    for name in names:
        if modules.origin(name) == "local" and name in sys.modules:
            found.add_module(name)
    return {id(node.value): (node.path, node.value) for node in found.nodes}


def _labels(states: Sequence[tuple[ObjectPath, inplace.State]], taken: Collection[str]) -> list[str]:
    used = set(taken)
    labels = []
    for path, _ in states:
        label = text(path)
        while label in used:
            label += " (in place)"
        used.add(label)
        labels.append(label)
    return labels


def _json(value: object) -> Json:
    if isinstance(value, tuple | list):
        return [_json(v) for v in value]
    return cast("Json", value)


class Replay:
    """A stored run, read and ready to be done again.

    Making one reads and finds everything and changes nothing.

    Raises
    ------
    Damaged
        Where a file is not what it should be, or the notebook holds nothing at a path.
    Untrusted
        Where a pickle is needed that may not be opened.
    """

    def __init__(self, entry: Entry, namespace: MutableMapping[str, object]) -> None:
        effects = cast("dict[str, Any]", entry.manifest.effects)
        self._namespace = namespace
        reader = GraphReader(entry.path, entry.manifest.outputs, trusted=entry.trusted, namespace=namespace)
        try:
            self._process = None if effects["process"] is None else reader.get(effects["process"])
            with process.found_as_after(cast("dict[str, Any]", self._process or {})):
                for module in effects["imports"]:
                    reader.get(("module", module))
            self._changed = _changes(effects["changed"], reader, namespace)
            self._bound = {str(name): reader.get(reference) for name, reference in effects["names"].items()}
            self._deleted = [str(name) for name in effects["deleted"]]
            self.value = reader.get(effects["value"])
            self.drawn = bool(effects.get("drawn", False))
            """Whether it brings back figures, or parts of them."""
            self._annotated = {str(name): bool(is_text) for name, is_text in effects.get("annotated", {}).items()}
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, Damaged):
                raise
            raise Damaged(f"the manifest's effects cannot be understood: {error!r}") from error

    def apply(self, tree: ast.AST) -> None:
        """Bring the notebook to where the run of the cell with this tree left it."""
        for value, state in self._changed:
            inplace.put_state(value, state)
        for name in self._deleted:
            self._namespace.pop(name, None)
        self._namespace.update(self._bound)
        annotated.put(tree, self._annotated, self._namespace)
        if self._process:
            process.apply(cast("dict[str, Any]", self._process))


def _changes(
    changes: Sequence[Mapping[str, Any]], reader: GraphReader, namespace: Mapping[str, object]
) -> list[tuple[object, inplace.State]]:
    """Read what was changed in place; those in files first, for all else may hold windows onto them as they will be."""
    found: dict[int, tuple[object, inplace.State]] = {}
    for number in sorted(range(len(changes)), key=lambda n: changes[n]["kind"] not in inplace.IN_FILES):
        value, state = _change(changes[number], reader, namespace)
        if state.kind == "pandas":
            state = inplace.linked(value, state)
            reader.will_be(value, state.content)
        elif state.kind == "ndarray" and state.content.nbytes != cast("Any", value).nbytes:
            reader.will_be(value, None)
        found[number] = (value, state)
    return [found[number] for number in range(len(changes))]


def _change(
    change: Mapping[str, Any], reader: GraphReader, namespace: Mapping[str, object]
) -> tuple[object, inplace.State]:
    path = tuple((str(kind), at) for kind, at in change["path"])
    try:
        value = resolve(path, namespace)
    except LookupError as error:
        raise Damaged(f"nothing is at {text(path)} in the notebook") from error
    content: Any = reader.get(change["state"])
    kept = tuple(int(k) for k in change["kept"])
    state = inplace.State(change["kind"], content, kept=kept) if change["kind"] in inplace.IN_FILES else content
    if not isinstance(state, inplace.State) or not inplace.is_whole(state) or not inplace.fits(value, state):
        raise Damaged(f"{text(path)} is now something else")
    if inplace.is_unforeseen(value, state):
        raise Unfingerprintable(f"{text(path)} shares its memory now, as it did not when the cell ran")
    return value, state


def load(entry: Entry, name: str) -> object:
    """Return one variable of an entry, apart from any notebook.

    Raises
    ------
    LookupError
        Where the entry has no such variable.
    Damaged, Untrusted
        As in :class:`Replay`; also where the variable is an object of the notebook that ran the cell.
    """
    effects = cast("dict[str, Any]", entry.manifest.effects)
    reader = GraphReader(entry.path, entry.manifest.outputs, trusted=entry.trusted, namespace={}, apart=True)
    if name in effects["names"]:
        return reader.get(effects["names"][name])
    for change in effects["changed"]:
        if text(tuple(map(tuple, change["path"]))) == name and change["kind"] in inplace.IN_FILES:
            return reader.get(change["state"])
    raise LookupError(name)
