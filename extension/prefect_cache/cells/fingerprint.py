"""Values of a notebook -> digests of their whole content, and what lies behind them.

:class:`Fingerprinter` walks the inputs of one cell. It gives each a digest (``cells.walk``), lists every mutable
object that the cell could change through them, says which of them are one object under several
paths, and follows the user's functions into the globals that they read. What a function reads is a part of the key by
itself: a helper that changed is named, and two functions that call each other are no circle.

What is digested how stands in ``plain`` (Python's own types and instances), ``arrays`` (NumPy, SciPy),
``tables`` (pandas), ``columns`` (Arrow, polars) and ``code`` (functions, classes, modules). Users add to it with
:func:`register`.
"""

from __future__ import annotations

import _thread
import builtins
import contextlib
import enum
import functools
import io
import itertools
import os
import random
import sys
import types
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from prefect_cache import modules
from prefect_cache.cells import (
    arrays,
    code,
    columns,
    commands,
    ipython,
    lasting,
    leaves,
    named,
    patched,
    plain,
    tables,
)
from prefect_cache.cells.walk import Met, Shape, Walk, spell, truncated
from prefect_cache.digests import combine
from prefect_cache.errors import Unfingerprintable
from prefect_cache.model import Part

if TYPE_CHECKING:
    import ast
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from prefect_cache.model import Digest, Json, ObjectPath, Step

    Handler = Callable[[Any, Walk], Shape]

ABSENT = combine("absent")
"""The digest of a name that is not there."""


@dataclass(frozen=True, slots=True)
class Node:
    """A mutable object as it was when walked: the first path to it, its digest, and which objects its parts were."""

    path: ObjectPath
    value: object
    digest: Digest
    children: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The digest of a value, and enough of what it is made of to say later how another one differs."""

    digest: Digest
    detail: Json = None


# ------------------------------------------------------------------------------------------ which handler for which

_REGISTERED: dict[type, Callable[[Any], object]] = {}


def register(cls: type) -> Callable[[Callable[[Any], object]], Callable[[Any], object]]:
    """Let a function say what stands for objects of a class, and of its subclasses, in keys.

    Parameters
    ----------
    cls
        The class.

    Returns
    -------
    callable
        A decorator for the function, which takes the object and returns a simpler value: that is fingerprinted in the
        object's place, beside the class. Two objects for which it returns equal values are the same to every key.

    Examples
    --------
    >>> @prefect_cache.fingerprint_for(sqlite3.Connection)  # doctest: +SKIP
    ... def _(connection):
    ...     return connection.execute("PRAGMA database_list").fetchall()
    """

    def decorator(function: Callable[[Any], object]) -> Callable[[Any], object]:
        _REGISTERED[cls] = function
        return function

    return decorator


_REFUSED: dict[str, str] = {
    "threading.Thread": "a thread",
    "threading.Event": "which other threads may set",
    "threading.Condition": "a lock",
    "threading.Semaphore": "a lock",
    "threading.Barrier": "a lock",
    "threading.local": "which differs from thread to thread",
    "queue.Queue": "a queue between threads",
    "queue.SimpleQueue": "a queue between threads",
    "socket.socket": "an open socket",
    "subprocess.Popen": "a running program",
    "sqlite3.Connection": "an open connection",
    "sqlite3.Cursor": "an open cursor",
    "concurrent.futures._base.Executor": "a pool of workers",
    "concurrent.futures._base.Future": "a running task",
    "_asyncio.Future": "a running task",
    "asyncio.futures.Future": "a running task",
    "asyncio.events.AbstractEventLoop": "an event loop",
    "contextvars.ContextVar": "which differs from context to context",
    "mmap.mmap": "a mapped file",
    "weakref.WeakKeyDictionary": "which forgets by itself",
    "weakref.WeakValueDictionary": "which forgets by itself",
    "_weakrefset.WeakSet": "which forgets by itself",
    "weakref.ReferenceType": "a reference that may die",
    "matplotlib.artist.Artist": "a drawing",
    "pyarrow._dataset.Dataset": "which reads files when it is used",
    "pyarrow._parquet.ParquetReader": "an open file",
    "pyarrow.lib.NativeFile": "an open file",
    "sqlalchemy.engine.base.Engine": "a pool of connections",
    "sqlalchemy.engine.base.Connection": "an open connection",
    "sqlalchemy.orm.session.Session": "a session with a database",
    "duckdb.DuckDBPyConnection": "an open connection",
    "_duckdb.DuckDBPyConnection": "an open connection",
    "asyncio.locks._ContextManagerMixin": "a lock",
}
"""Classes whose state lies outside of them, however well they could be read."""

_CONSUMED = (
    types.GeneratorType,
    types.CoroutineType,
    types.AsyncGeneratorType,
    types.FrameType,
    types.TracebackType,
)
_LOCKS = (_thread.LockType, _thread.RLock)


def _handler(cls: type) -> Handler:
    """Return what knows how to read objects of a class."""
    for base in cls.__mro__:
        if base in _REGISTERED:
            return functools.partial(_registered, _REGISTERED[base])
    if cls in plain.EXACT:
        return plain.EXACT[cls]
    if _is_iterator(cls) or issubclass(cls, (*_CONSUMED, *_LOCKS)):
        return _refuse_consumed
    for base in cls.__mro__:
        if (why := _REFUSED.get(named.kind_name(base))) is not None:
            return functools.partial(_refuse, why)
    return _family(cls) or _by_base(cls)


def _family(cls: type) -> Handler | None:
    for base in cls.__mro__:
        family = _FAMILIES.get(base.__module__.partition(".")[0])
        handler = family(cls) if family is not None else None
        if handler is not None:
            return handler
    return None


_FAMILIES: dict[str, Callable[[type], Handler | None]] = {
    "numpy": arrays.numpy_handler,
    "scipy": arrays.scipy_handler,
    "pandas": tables.handler,
    "pyarrow": columns.arrow_handler,
    "polars": columns.polars_handler,
    "IPython": lambda cls: _named_instance if _is_part_of_shell(cls) else None,
    "ipykernel": lambda cls: _named_instance if _is_part_of_shell(cls) else None,
    "prefect": lambda cls: _task if (cls.__module__, cls.__name__) in _TASKS else None,
}
"""Top-level modules of classes -> what knows them; nothing of them is imported here."""

_BY_BASE: dict[type, Handler] = {
    enum.Enum: plain.enum_member,
    type: code.class_shape,
    types.FunctionType: code.function_shape,
    types.ModuleType: code.module_shape,
    types.CodeType: code.code_shape,
    random.Random: plain._random,  # noqa: SLF001 - one family of modules
    PurePath: plain._path,  # noqa: SLF001
    **{base: plain.subclass(base) for base in plain.BASES},
}
"""Handlers for a class and all of its subclasses; the first one of these in a class's MRO decides."""


def _by_base(cls: type) -> Handler:
    for base in cls.__mro__:
        if base in _BY_BASE and not (issubclass(cls, enum.Enum) and base is not enum.Enum):
            return _BY_BASE[base]
    if issubclass(cls, io.IOBase) and not issubclass(cls, io.BytesIO | io.StringIO):
        return functools.partial(_refuse, "an open file")
    return plain.instance


def _is_iterator(cls: type) -> bool:
    """Tell whether objects of a class are used up by looking, or are Python's own iterators."""
    own = cls.__module__ in ("builtins", "itertools", "_csv", "_io", "re", "zipfile", "os", "posix")
    return own and hasattr(cls, "__next__") and not issubclass(cls, io.BytesIO | io.StringIO)


def _is_part_of_shell(cls: type) -> bool:
    return cls.__module__.startswith(("IPython.core.autocall", "IPython.core.interactiveshell", "ipykernel"))


def _named_instance(value: object, _walk: Walk) -> Shape:
    return Shape(combine("shell's", named.kind_name(type(value))))


def _registered(function: Callable[[Any], object], value: object, walk: Walk) -> Shape:
    shape = plain.run("registered", (function(value),), walk, mutable=True)
    shape.steps = [("made", "what stands for it")] * len(shape.steps)
    shape.label = combine("registered", named.kind_name(type(value)), shape.label)
    return shape


_TASKS: frozenset[tuple[str, str]] = frozenset({("prefect.tasks", "Task"), ("prefect.flows", "Flow")})


def _task(value: object, walk: Walk) -> Shape:
    """Let a Prefect task's function and what decides how it runs stand for it: the rest is names, hooks and text."""
    return _registered(lambda t: (t.fn, t.retries, t.retry_delay_seconds, t.timeout_seconds), value, walk)


def _refuse(why: str, value: object, _walk: Walk) -> Shape:
    raise plain.opaque(value, why)


def _refuse_consumed(value: object, _walk: Walk) -> Shape:
    if isinstance(value, io.IOBase):
        raise plain.opaque(value, "an open file", "Pass the file's path, or open it inside the cell.")
    if isinstance(value, _LOCKS):
        raise plain.opaque(value, "which other threads may hold")
    raise plain.opaque(value, "which looking at would use up", "Make a list of it, or make it inside the cell.")


class _Dispatch:
    """Finds the handler for a value, and remembers it by class for the time of one fingerprinter."""

    def __init__(self, namespace: Mapping[str, object]) -> None:
        self._handlers: dict[type, Handler] = {}
        self._namespace = namespace

    def __call__(self, value: object, walk: Walk) -> Shape:
        cls = type(value)
        handler = self._handlers.get(cls)
        if handler is None:
            handler = self._handlers[cls] = _handler(cls)
        if value is self._namespace:
            raise plain.opaque(value, "the notebook's namespace itself", "Pass the values that the cell needs.")
        return handler(value, walk)


# ------------------------------------------------------------------------------------------ the inputs of a cell


class _Notes(Met):
    """Keeps what the walk of one fingerprinter meets."""

    def __init__(self) -> None:
        self.functions: list[types.FunctionType] = []
        self.packages: set[str] = set()
        self.modules: list[str] = []
        self.texts: set[str] = set()
        self.arrays: list[Any] = []

    def function(self, function: types.FunctionType) -> None:
        self.functions.append(function)

    def package(self, module: str) -> None:
        self.packages.add(module)

    def module(self, name: str) -> None:
        self.modules.append(name)

    def strings(self, found: Sequence[object]) -> None:
        self.texts.update(s for s in found if type(s) is str and code.names_file(s))

    def array(self, array: Any) -> None:
        self.arrays.append(array)


class Fingerprinter:
    """Walks values of a namespace; whatever two of them share is looked at once.

    Parameters
    ----------
    namespace
        The notebook's.
    ignore
        Names whose values are not to be looked at.

    Attributes
    ----------
    names
        Names of the namespace that were reached, those that functions read included.
    strings
        Text that may name files: values, and constants of the code that was reached.
    dynamic
        Why names may be read or bound out of sight, for each function concerned (``"helper calls eval"``).
    stores
        Names of the namespace that functions which were reached bind or delete (``global n``).
    """

    def __init__(self, namespace: Mapping[str, object], *, ignore: Collection[str] = ()) -> None:
        self._namespace = namespace
        self._ignore = frozenset(ignore)
        self._notes = _Notes()
        self._dispatch = _Dispatch(namespace)
        self._walk = Walk(self._dispatch, self._notes)
        self._again = Walk(self._dispatch)
        self._added: dict[str, Fingerprint] = {}
        self._parts: dict[tuple[str, str], Part] = {}
        self._followed: set[types.CodeType | str] = set()
        self.names: set[str] = set()
        self.dynamic: list[str] = []
        self.stores: set[str] = set()

    @property
    def strings(self) -> set[str]:
        """Return the texts met that may name files."""
        return self._notes.texts

    def add(self, name: str, *, using: types.CodeType | None = None) -> Fingerprint:
        """Return the fingerprint of ``namespace[name]``.

        Where that is a module of the user's own and the cell's code is given as `using`, only those of the
        module's attributes count which that code reads.

        Raises
        ------
        Unfingerprintable
            Where the value, or what a function in it reads, has no digest; nothing was touched.
        """
        if name not in self._added:
            self._parts.pop(("input", name), None)
            self._parts.pop(("function", name), None)
            value = self._namespace[name]
            if using is not None and isinstance(value, types.ModuleType) and modules.origin(value.__name__) == "local":
                made = self._read_attributes(name, value, using)
            else:
                made = self._fingerprint(value, (("name", name),))
            self._added[name] = made
            self.names.add(name)
            self._drain()
        return self._added[name]

    def add_installed(self, tree: ast.AST, packages: Iterable[str]) -> set[str]:
        """Take in what a cell reads of installed modules beside their version (see ``cells.patched``).

        `packages` are those that it is known to reach; all that it reaches are returned.
        """
        for place, value in patched.data_read(tree, self._namespace).items():
            self._take_data(place, value)
        reached = {*packages, *(modules.package_name(name) for name in self._notes.packages)}
        for (module, way), value in patched.PATCHES.found(sorted(reached)).items():
            steps = tuple(("attr", word) for word in way.split("."))
            if value is patched.ABSENT:
                self._put(Part("input", f"{module}.{way}", ABSENT, "absent"))
                continue
            made = self._fingerprint(value, (("module", module), *steps))
            self._put(Part("input", f"{module}.{way}", made.digest, made.detail))
        for about, (source, values) in patched.PATCHES.called.items():
            self._put(Part("state", about, combine("called", source, self._of_arguments(values)), source))
        self._drain()
        return reached

    def _of_arguments(self, values: Sequence[object]) -> Digest:
        try:
            return self._again.digest(values)
        except Unfingerprintable:
            return combine("some")

    def _take_data(self, place: patched.Place, value: object) -> None:
        module, name = place
        if (label := f"{module}.{name}") in self._followed:
            return
        self._followed.add(label)
        # What has no digest is no plain data after all: its package's version stands for it.
        with contextlib.suppress(Unfingerprintable):
            made = self._fingerprint(value, (("module", module), ("attr", name)))
            self._put(Part("state", label, made.digest, truncated(repr(value), 200)))

    def add_magics(self, magics: Iterable[str]) -> None:
        """Take in what magics call (``"%name"``, ``"%%name"``), where they are the notebook's own.

        Raises
        ------
        Unfingerprintable
            Where nobody can tell what one does.
        """
        for magic in magics:
            called = ipython.users_magic(magic)
            if called is not None and magic not in self._followed:
                self._followed.add(magic)
                made = self._fingerprint(called, ())
                self._put(Part("function", magic, made.digest, made.detail))
        self._drain()

    def take(self, value: object) -> Fingerprint:
        """Return the fingerprint of a value that no name need stand for."""
        made = self._fingerprint(value, ())
        self._drain()
        return made

    def _fingerprint(self, value: object, path: ObjectPath) -> Fingerprint:
        if type(value) is str:
            self._notes.strings([value])
        found = self._walk.digest(value, path)
        return Fingerprint(found, _detail(value, self._walk))

    # -------------------------------------------------------------------------------------- what functions read

    def _drain(self) -> None:
        notes = self._notes
        while notes.functions or notes.modules:
            while notes.functions:
                self._follow(notes.functions.pop())
            while notes.modules:
                self._follow_module(notes.modules.pop())

    def _follow(self, function: types.FunctionType) -> None:
        """Take in what a function of the user's own reads from its globals."""
        facts = code.code_facts(function.__code__)
        where = code.home(function)
        is_written = where is not None or function.__globals__ is self._namespace
        where = None if function.__globals__ is self._namespace or where == "__main__" else where
        mark = f"{where} {facts.digest} {id(function.__globals__)}"
        if mark in self._followed:
            return
        self._followed.add(mark)
        self.dynamic += [f"{function.__qualname__} uses {what}" for what in facts.dynamic]
        if is_written:  # and not one of the methods that attrs, say, generates, with globals of their own
            self.dynamic += [f"{function.__qualname__}: {what}" for what in _lasting(facts, function.__globals__)]
        self.dynamic += [
            f"{function.__qualname__}: {what}" for what in itertools.starmap(commands.reason, facts.commands) if what
        ]
        self.add_magics(magic for magic, _ in facts.commands)
        self._notes.texts.update(facts.strings)
        self._see_environment(facts.environ)
        if where is None:
            self.stores.update(facts.stores)
        for wanted in facts.imports:
            self._follow_import(wanted, function.__globals__)
        mentioned = [code.Read(m) for m in facts.mentions if m in function.__globals__]
        for read in (*facts.reads, *mentioned):
            self._take(read, function.__globals__, where)

    def _see_environment(self, names: Sequence[str]) -> None:
        for name in names:
            value = os.environ.get(name)
            self._put(
                Part(
                    "environ",
                    name,
                    ABSENT if value is None else combine("variable", value),
                    None if value is None else "set",
                )
            )

    def _take(self, read: code.Read, held: Mapping[str, object], where: str | None) -> None:
        """Take in one name that a function reads; `where` is the module that holds it, None for the notebook."""
        if where is None and read.name in self._ignore:
            return
        if read.name not in held:
            if not hasattr(builtins, read.name):
                name = f"{where}.{read.name}" if where else read.name
                self._put(Part("input", name, ABSENT, "absent"))
            return
        value = held[read.name]
        if isinstance(value, types.ModuleType) and read.attributes:
            if modules.origin(value.__name__) == "local":
                if where is None:
                    self.names.add(read.name)
                self._take_attribute(value, read.attributes)
                return
            if (found := patched.data(value, read.attributes)) is not None:
                self._take_data(*found)
        self._take_value(read.name, value, where)

    def _take_attribute(self, module: types.ModuleType, attributes: Sequence[str]) -> None:
        name, *further = attributes
        held = vars(module)
        if name not in held:
            inner = sys.modules.get(f"{module.__name__}.{name}")
            if inner is None:
                self._put(Part("input", f"{module.__name__}.{name}", ABSENT, "absent"))
                return
            held = {name: inner}
        self._take(code.Read(name, tuple(further)), held, module.__name__)

    def _take_value(self, name: str, value: object, where: str | None) -> None:
        label = f"{where}.{name}" if where else name
        if label in self._followed or (where is None and name in self._added):
            return
        self._followed.add(label)
        path: ObjectPath = (("module", where), ("attr", name)) if where else (("name", name),)
        made = self._fingerprint(value, path)
        if where is None:
            self.names.add(name)
        kind = "function" if isinstance(value, type | types.FunctionType) else "input"
        self._put(Part(kind, label, made.digest, made.detail))

    def _read_attributes(self, name: str, module: types.ModuleType, using: types.CodeType) -> Fingerprint:
        """Take in the attributes of a module that the cell's own code reads, or all of it."""
        facts = code.code_facts(using)
        for read in facts.reads:
            if read.name == name and read.attributes:
                self._take_attribute(module, read.attributes)
            elif read.name == name:
                self._notes.module(module.__name__)
        if name in facts.mentions:
            self._notes.module(module.__name__)
        detail: Json = {"type": "module", "value": module.__name__}
        return Fingerprint(combine("module", module.__name__), detail)

    def _follow_import(self, wanted: code.Import, held: Mapping[str, object]) -> None:
        package = held.get("__package__") or held.get("__name__") or ""
        name = code.absolute(wanted.module, wanted.level, str(package))
        for module in [name, *(f"{name}.{n}" for n in wanted.names if f"{name}.{n}" in sys.modules)]:
            if module not in self._followed:
                self._followed.add(module)
                for part in code.module_parts(module, self._namespace):
                    self._put(part)

    def _follow_module(self, name: str) -> None:
        """Take in a module of the user's own as a whole: its source, and what it holds now."""
        mark = f"module {name}"
        if mark in self._followed:
            return
        self._followed.add(mark)
        for part in code.module_parts(name, self._namespace):
            self._put(part)
        module = sys.modules.get(name)
        for attribute, value in list(vars(module).items()) if module is not None else ():
            if attribute.startswith("__") and attribute.endswith("__"):
                continue
            try:
                self._take_value(attribute, value, name)
            except Unfingerprintable:
                # the module's source says how it came to be; code that uses it by name is refused
                kind = named.kind_name(type(value))
                self._put(Part("input", f"{name}.{attribute}", combine("some", kind), {"type": kind}))

    def _put(self, part: Part) -> None:
        self._parts[part.kind, part.name] = part

    # -------------------------------------------------------------------------------------- what was found

    def parts(self) -> tuple[Part, ...]:
        """Return what else the values that were added depend on, sorted by kind and name."""
        for module in sorted(self._notes.packages):
            part = code.package_part(module)
            if part is not None:
                self._put(part)
        return tuple(
            part
            for key, part in sorted(self._parts.items())
            if key[1] not in self._added or key[0] not in ("input", "function")
        )

    @property
    def nodes(self) -> list[Node]:
        """Return every mutable object that was met, in the order in which they were met."""
        trail, seen = self._walk.trail, self._walk.seen
        return [
            Node(trail.path(number), value, seen[id(value)].digest, self._walk.children.get(id(value), ()))
            for number, value in enumerate(trail.values)
            if trail.mutable[number] and id(value) in seen
        ]

    @property
    def caches(self) -> list[Any]:
        """Return the functions met that ``functools.lru_cache`` made."""
        return [v for v in self._walk.trail.values if isinstance(v, functools._lru_cache_wrapper)]  # noqa: SLF001

    def add_module(self, name: str) -> None:
        """Walk what a loaded module of the user's own holds; what has no digest is passed over."""
        self._follow_module(name)
        self._drain()

    @property
    def shared(self) -> list[tuple[ObjectPath, ObjectPath]]:
        """Return the pairs of paths that lead to one mutable object."""
        return self._walk.trail.shared()

    @property
    def overlaps(self) -> list[tuple[ObjectPath, ObjectPath]]:
        """Return the pairs of paths that lead to different arrays in the same memory."""
        trail, seen = self._walk.trail, self._walk.seen
        pairs = arrays.overlapping(self._notes.arrays)
        numbers = [(seen[id(a)].number, seen[id(b)].number) for a, b in pairs if id(a) in seen and id(b) in seen]
        return sorted((tuple(sorted((trail.path(a), trail.path(b)), key=repr)) for a, b in numbers), key=repr)  # type: ignore[misc]

    def digest_of(self, value: object) -> Digest:
        """Return the digest of a value as it is now, nothing noted.

        What one fingerprinter has digested so it does not look at again: take a new one after a change.
        """
        return self._again.digest(value)

    def children_of(self, value: object) -> tuple[int, ...]:
        """Return which objects the parts of a value are now, by ``id``; 0 for those of which nobody can tell."""
        self._again.digest(value)
        seen = self._again.seen
        return tuple(
            c if c in seen and (seen[c].nodes or isinstance(seen[c].value, types.FunctionType)) else 0
            for c in self._again.children.get(id(value), ())
        )


def _lasting(facts: code.CodeFacts, held: Mapping[str, object]) -> list[str]:
    """Return what a function changes that is installed, where a hit could not do it again."""
    called = [lasting.call(".".join((r.name, *r.attributes))) for r in facts.reads if r.name in held]
    changed = [lasting.setting(dotted) for dotted in facts.sets if lasting.is_outside(dotted.split("."), held)]
    return [reason for reason in (*called, *changed) if reason]


def _detail(value: object, walk: Walk) -> Json:
    kind = leaves.code(value)
    if kind != leaves.COMPOUND:
        return {"type": type(value).__name__, "value": truncated(repr(value))}
    if walk.shape is None or walk.shape.detail is None:
        return {"type": type(value).__qualname__}
    return walk.shape.detail(walk.slots)


def fingerprint(value: object, namespace: Mapping[str, object] | None = None) -> Digest:
    """Return the digest of one value, of the functions in it with all that they read, of the packages that they need.

    Parameters
    ----------
    value
        Anything; every element of it is looked at, at about the speed of memory, and nothing is changed or used up.
    namespace
        The notebook's variables, by which its functions are told from those of modules.

    Returns
    -------
    str
        128 bits as 32 hexadecimal digits: the same in every process, for equal values of equal types.

    Raises
    ------
    Unfingerprintable
        Where the value has no digest; the message names what stands in the way, and the way out.
    """
    found = Fingerprinter(namespace if namespace is not None else {})
    made = found.take(value)
    parts = found.parts()
    if not parts:
        return made.digest
    return combine("fingerprint", made.digest, *(text for p in parts for text in (p.kind, p.name, p.digest)))


# ------------------------------------------------------------------------------------------ the way back


def resolve(path: ObjectPath, namespace: Mapping[str, object]) -> object:
    """Return the object at a path.

    Raises
    ------
    LookupError
        Where nothing is there now.
    """
    if not path:
        raise LookupError("an empty path leads nowhere")
    (kind, name), *steps = path
    try:
        value: object = sys.modules[str(name)] if kind == "module" else namespace[str(name)]
        for step in steps:
            value = _step(value, step)
    except (LookupError, AttributeError, TypeError, ValueError) as error:
        raise LookupError(f"nothing is at {spell(path)}") from error
    return value


def _step(value: Any, step: Step) -> object:  # noqa: PLR0911 - a table of steps
    kind, key = step
    match kind:
        case "index":
            return _at(value, int(key))
        case "key":
            return next(itertools.islice(value.values(), int(key), None))
        case "attr":
            return vars(value)[str(key)] if isinstance(value, type) else _attribute(value, str(key))
        case "member":
            return _member(value, str(key))
        case "cell":
            return value.__closure__[value.__code__.co_freevars.index(key)]
        case "default":
            return value.__defaults__[key]
        case "kwdefault":
            return value.__kwdefaults__[key]
        case "class":
            return type(value)
        case "part":
            return _part(value, str(key))
        case _:
            raise LookupError(kind)


def _attribute(value: Any, name: str) -> object:
    held = getattr(value, "__dict__", {})
    return held[name] if name in held else getattr(value, name)


def _at(value: Any, number: int) -> object:
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray):
        return value.flat[number]
    return value[number]


def _member(value: Any, wanted: Digest) -> object:
    finder = Fingerprinter({})
    for item in value:
        if leaves.code(item) == leaves.COMPOUND and finder.digest_of(item) == wanted:
            return item
    raise LookupError(wanted)


def _part(value: Any, name: str) -> object:
    """Return the part of a value that its handler calls so, by asking the handler again."""
    found = Fingerprinter({})
    shape = found._dispatch(value, Walk(found._dispatch))  # noqa: SLF001 - the module's own class
    for (kind, key), child in zip(shape.steps, shape.children, strict=True):
        if kind == "part" and key == name:
            return child
    raise LookupError(name)
