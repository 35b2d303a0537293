"""Everything that no Arrow file can hold: pickles, written and read in the notebook's own terms.

A pickle of a notebook's values has three needs that plain pickling does not meet:

* functions and classes defined in a cell belong to the **notebook's** namespace: restored ones read and
  set its globals, as if the cell's ``def`` had run there (cloudpickle gives each a private copy of its globals);
* what is already in the notebook must stay that very object: the pickle then holds a reference, which
  the caller makes and resolves (``refer`` and ``resolve``);
* closures that share a variable go on sharing it, those that a module made too;
* instances of the user's own classes, the notebook's and those of modules beside it, come back as they were, also
  where the class leaves something out of its pickles (``__getstate__``), makes its instances anew when they are
  loaded (``__reduce__``, ``__setstate__``), or has a say in reading and setting attributes.

cloudpickle does the rest: code objects, dynamic classes and enums, properties, type variables.
A pickle runs code when it is read. It is therefore only opened when its entry carries a trusted signature.
"""

from __future__ import annotations

import collections
import contextlib
import enum
import functools
import gc
import importlib
import io
import os
import pickle
import sys
import types
import typing
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, cast

import cloudpickle

from prefect_cache import modules
from prefect_cache.codecs import Written
from prefect_cache.codecs.instances import (
    HEAP_TYPE,
    contents,
    forgets_attributes,
    has_own_pickles,
    has_shared_dict,
    holds_attributes_alone,
    is_not_yet_pickled,
    made_past_init,
    put_contents,
    reduced_with_attributes,
    reduced_with_dict,
    slots,
)
from prefect_cache.digests import TreeHasher
from prefect_cache.errors import Damaged, Unstorable, Untrusted, first_line, with_article

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, MutableMapping

    from typing_extensions import Buffer

    from prefect_cache.codecs.body import Progress
    from prefect_cache.codecs.parts import Shelf
    from prefect_cache.model import Json

Reference = tuple[str, *tuple[object, ...]]
"""What stands in a pickle for an object that is not in it: a tag and plain values."""

Refer = Callable[[object], Reference | None]
"""Gives the reference that stands for an object, None for an object that is to be pickled itself."""

Resolve = Callable[[Reference], object]
"""Gives the object that a reference stands for."""

NAMESPACE: Final[Reference] = ("namespace",)

PLAIN: Final = frozenset({type(None), bool, int, float, complex, str, bytes})
"""Types of values that have no parts, and of which nobody asks whether two are one."""


class ValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles values of a notebook.

    Parameters
    ----------
    file
        Where the bytes go.
    namespace
        The notebook's namespace: functions whose globals it is are restored into it.
    refer
        Asked for each object that is not plain data; gives the reference to store in its place, or None.
    decided, shared
        What the picklers of one graph find out about its objects, by ``id``; whoever shares it keeps them alive.
    """

    def __init__(
        self,
        file: IO[bytes],
        *,
        namespace: Mapping[str, object] | None = None,
        refer: Refer | None = None,
        decided: dict[int, bool] | None = None,
        shared: dict[int, bool] | None = None,
    ) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._namespace = namespace
        self._refer = refer
        self._usual: dict[type, bool] = {}
        self._forgetful: dict[type, bool] = {}
        self._shared = {} if shared is None else shared
        self._decided = {} if decided is None else decided
        """Of instances with pickles of their own, by ``id``, whether they go by content; shared with the tries."""

    def persistent_id(self, value: object) -> Reference | None:
        """Return what stands in for `value`, None where it is pickled itself."""
        if type(value) in PLAIN:
            return None
        if value is self._namespace:
            return NAMESPACE
        return None if self._refer is None else self._refer(value)

    def reducer_override(self, value: Any) -> Any:
        """Reduce functions, closure cells and classes of the notebook; leave the rest to cloudpickle."""
        if type(value) is types.FunctionType and self._namespace is not None:
            if value.__globals__ is self._namespace:
                return _reduced_function(value)
            if (module := _module_of(value)) is not None:
                return _reduced_function(value, module)
        if type(value) is types.CellType:
            return _reduced_cell(value)
        if type(value).__module__ == "numpy" and _is_locked_array(value):
            return _reduced_locked_array(value)
        if (home := _singleton(value)) is not None:
            return attribute_of, home
        if (content := self._by_content(value)) is not None:
            return content
        reduced = super().reducer_override(value)
        return _remade(value, reduced) if isinstance(value, type) and isinstance(reduced, tuple) else reduced

    def _by_content(self, value: Any) -> tuple[Any, ...] | None:
        """Reduce what pickle would refuse, or would keep by a name of the notebook's."""
        _refuse_handles(value)
        if isinstance(value, _FILES) and value.closed:
            return _reduced_closed_file(value)
        reduced = _reduced_by_type(value)
        if reduced is not None:
            return reduced
        if type(value) not in self.dispatch_table and _names_itself(value):
            return _reduced_by_content(value)
        if is_not_yet_pickled(type(value)):
            return made_past_init, (type(value),), contents(value), None, None, put_contents
        if self._namespace is None:
            return None
        whole = reduced_with_dict(value) if self._has_shared_dict(value) else None
        if whole is None and self._is_forgetful(type(value)):
            whole = reduced_with_attributes(value)
        return whole or (None if self._is_usual(type(value)) else self._reduced_instance(value))

    def _has_shared_dict(self, value: Any) -> bool:
        known = self._shared.get(id(value))
        if known is None:
            known = self._shared[id(value)] = has_shared_dict(value)
        return known

    def _is_forgetful(self, cls: type) -> bool:
        known = self._forgetful.get(cls)
        if known is None:
            known = self._forgetful[cls] = forgets_attributes(cls)
        return known

    def _is_usual(self, cls: type) -> bool:
        """Tell whether pickle's own way keeps the instances of a class as they are, or the class is not the user's."""
        known = self._usual.get(cls)
        if known is None:
            # To slots, and to what reading a pickle asks for (__setstate__), a class may answer by code of its own.
            own = has_own_pickles(cls) or hasattr(cls, "__getattr__") or slots(cls)
            users = modules.origin(cls.__module__) == "local" and holds_attributes_alone(cls)
            known = self._usual[cls] = not (own and users)
        return known

    def _reduced_instance(self, value: Any) -> tuple[Any, ...] | None:
        """Reduce an instance past its class's own way; None where something in it has no other."""
        state = contents(value)
        if not has_own_pickles(type(value)):
            return made_past_init, (type(value),), state, None, None, put_contents
        if id(value) not in self._decided:
            self._decided[id(value)] = True  # for what leads back to it
            self._decided[id(value)] = self._goes_by_content(value, state)
        return (made_past_init, (type(value),), state, None, None, put_contents) if self._decided[id(value)] else None

    def _goes_by_content(self, value: Any, state: dict[str, object]) -> bool:
        file = io.BytesIO()
        try:
            if isinstance(value.__reduce_ex__(pickle.HIGHEST_PROTOCOL), str):
                return False  # there is one such object, which has a name
            tried = ValuePickler(file, namespace=self._namespace, decided=self._decided, shared=self._shared)
            dump(state, file, pickler=tried)
        except Unstorable:
            return False
        except Exception as error:  # a class's own method may raise anything
            raise Unstorable(f"{with_article(type(value))} cannot be pickled: {first_line(error)}") from error
        return True


def _refuse_handles(value: Any) -> None:
    """Raise :class:`Unstorable` for what belongs to an open file, or to no file at all."""
    if isinstance(value, types.ModuleType) and not modules.is_importable(value):
        raise Unstorable(
            f"{value.__name__} is a module that cannot be imported", remedy="write it to a file, and import that"
        )
    if isinstance(value, _FILES) and not value.closed and value not in {sys.stdout, sys.stderr}:
        raise Unstorable("an open file cannot be stored", remedy="close it in the cell: `with open(...) as ...`")
    if type(value).__name__ == "memmap" and getattr(value, "_mmap", None) is not None:
        raise Unstorable(
            "a file that is mapped cannot be stored", remedy="read it as a whole, or map it in a cell of its own"
        )


def _reduced_by_type(value: Any) -> tuple[Any, ...] | None:
    """Reduce what pickles of its own type leave out or change."""
    if isinstance(value, _WINDOWS):
        return _reduced_window(value)
    if isinstance(value, BaseException) and type(value).__reduce__ in _USUAL:
        return _reduced_exception(value)
    if type(value) is functools.cached_property:
        # Up to Python 3.11 it has a lock, which belongs to the process.
        return functools.cached_property, (value.func,), {"attrname": value.attrname, "__doc__": value.__doc__}
    if _is_closed_pool(value):
        return closed_pool, (type(value).__name__, value._max_workers)  # noqa: SLF001 - nobody tells otherwise
    if isinstance(value, _TYPE_PARAMETERS) and value.__module__ == "__main__":
        return _reduced_type_parameter(value)
    if type(value).__module__ == "plotly.graph_objs._figure":
        return _reduced_figure(value)
    if type(value).__module__ == "numpy" and type(value).__name__ == "void":
        # Into what NumPy's own pickles give (1.26 to 2.4) nothing can be written: it is lost without a word.
        return record, (sys.modules["numpy"].asarray(value).copy(),)
    return None


def record(array: Any) -> Any:
    """Return the record that an array without dimensions holds; called from pickles."""
    return array[()]


def _remade(cls: type, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    """Mend four things in how cloudpickle rebuilds a class of the notebook."""
    tracker = cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS.get(cls)  # noqa: SLF001 - there is no public way
    # typing.NamedTuple sets the slots of its classes itself and refuses them from outside.
    named_tuple = NamedTuple in cls.__dict__.get("__orig_bases__", ())
    slots = None if named_tuple else cls.__dict__.get("__slots__")

    # Of an enumeration cloudpickle takes its members, but not other names for them or for several of them together.
    enumeration: Any = cls if isinstance(cls, enum.EnumMeta) else ()
    names: Mapping[str, Any] = getattr(enumeration, "__members__", {})
    members = {member.name: member.value for member in enumeration}

    def mended(argument: Any) -> Any:
        if members and type(argument) is dict and argument == members:
            return {name: member.value for name, member in names.items()}
        # By its tracker's id cloudpickle gives back the class that this process made before. Had the cell
        # run, there would be a new class, of which older instances are no instances: so no id is kept.
        if tracker is not None and isinstance(argument, str) and argument == tracker:
            return None
        # Slots must be there when the class is made; set later they are an attribute without effect.
        if type(argument) is dict and "__module__" in argument:
            declared = {} if slots is None else {"__slots__": slots}
            return {**argument, **declared, "__qualname__": cls.__qualname__}
        return argument

    maker, args, *rest = reduced
    if members:
        attributes, *inner = rest[0]
        own = {name: _own_content(member) for name, member in names.items()}
        kept = {name: held for name, held in attributes.items() if name not in names}
        rest[0], rest[-1] = (rest[-1], (kept, *inner), own), fill_enumeration
    return (maker, tuple(mended(a) for a in args), *rest)


def _own_content(member: enum.Enum) -> dict[str, object]:
    made = {"_value_", "_name_", "_sort_order_", "__objclass__"}
    return {name: held for name, held in vars(member).items() if name not in made}


def fill_enumeration(cls: Any, state: tuple[Callable[..., object], object, Mapping[str, dict[str, object]]]) -> None:
    """Give a restored enumeration its methods, and its members what ``__init__`` gave them; called from pickles."""
    fill, attributes, own = state
    fill(cls, attributes)
    for name, held in own.items():
        vars(cls.__members__[name]).update(held)


@functools.cache
def _homes(module: str) -> dict[int, str]:
    """Return the objects that a module holds of its own classes, by ``id``."""
    held = vars(sys.modules[module])
    return {id(value): name for name, value in held.items() if getattr(type(value), "__module__", "") == module}


def _singleton(value: object) -> tuple[str, str] | None:
    # Markers such as dataclasses.MISSING are compared by identity, and are found where their class lives.
    module = type(value).__module__
    if module in {"builtins", "__main__"} or module not in sys.modules:
        return None
    name = _homes(module).get(id(value))
    # The id may be another object's by now, where the module let go of its own.
    return (module, name) if name is not None and getattr(sys.modules[module], name, None) is value else None


def attribute_of(module: str, name: str) -> object:
    """Return an object that lives in an importable module; called from pickles."""
    return getattr(importlib.import_module(module), name)


def _names_itself(value: Any) -> bool:
    """Tell whether pickle would keep of an object only its name in the notebook, where another may stand then."""
    if isinstance(value, type | types.FunctionType):
        return False  # cloudpickle keeps what these are
    own = getattr(value, "__dict__", None)
    return type(own) is dict and own.get("__module__") == "__main__" and isinstance(value.__reduce_ex__(4), str)


def _reduced_by_content(value: Any) -> tuple[Any, ...]:
    if isinstance(value, typing.NewType):
        return typing.NewType, (value.__name__, value.__supertype__), {"__module__": value.__module__}
    if isinstance(value, functools._lru_cache_wrapper):  # noqa: SLF001 - the class has no public name
        made = {"__wrapped__", "cache_parameters"}
        own = {name: held for name, held in vars(value).items() if name not in made}
        return caching, (value.__wrapped__, value.cache_parameters()), own
    raise Unstorable(f"{with_article(type(value))} is kept by its name alone")


_USUAL: Final = {BaseException.__reduce__, OSError.__reduce__, ImportError.__reduce__}
"""How Python's own exceptions are pickled; a class with another way is left to it."""


def _reduced_exception(error: BaseException) -> tuple[Any, ...]:
    # Pickles forget why an exception was raised, and call a class's own __init__ with what its base was given.
    _, arguments, *rest = cast("tuple[Any, ...]", error.__reduce__())
    reasons = (error.__cause__, error.__context__, error.__suppress_context__)
    attributes = dict(rest[0] or {}) if rest else {}
    if isinstance(error, NameError | AttributeError) and error.name is not None:
        attributes["name"] = error.name
    state = (attributes, error.args, *reasons)
    return exception, (type(error), arguments), state, None, None, fill_exception


def exception(kind: type[BaseException], arguments: tuple[Any, ...]) -> BaseException:
    """Return an exception made past what the notebook's own class does on making one; called from pickles."""
    builtin: Any = next(base for base in kind.__mro__ if not base.__flags__ & HEAP_TYPE)
    made = builtin.__new__(kind, *arguments)
    builtin.__init__(made, *arguments)
    return cast("BaseException", made)


def fill_exception(error: BaseException, state: tuple[Any, ...]) -> None:
    """Give a restored exception its attributes, and its reasons; called from pickles."""
    attributes, error.args, error.__cause__, error.__context__, error.__suppress_context__ = state
    if attributes:
        error.__setstate__(attributes)


def _reduced_figure(figure: Any) -> tuple[Any, ...]:
    # plotly 6 pickles its arrays as it writes them into a page; read back, fig.data[0].x is a dict of their bytes.
    maker, (properties, *_), *rest = figure.__reduce__()
    frames = [frame.to_plotly_json() for frame in figure._frame_objs]  # noqa: SLF001 - the public ways encode them too
    whole = {"data": figure._data, "layout": figure._layout, "frames": frames}  # noqa: SLF001 - as above
    return maker, ({**properties, **whole},), *rest


_VIEWS: Final[tuple[type, ...]] = tuple(
    type(getattr(kind(), part)()) for kind in (dict, collections.OrderedDict) for part in ("keys", "values", "items")
)
_WINDOWS: Final = (*_VIEWS, memoryview, types.MappingProxyType, weakref.ProxyType, weakref.CallableProxyType)
"""Values that show another object; cloudpickle keeps a copy of what they show."""


def _reduced_window(value: Any) -> tuple[Any, ...]:
    kind = type(value)
    if kind in {weakref.ProxyType, weakref.CallableProxyType}:
        raise Unstorable("a weak reference cannot be stored")
    if kind is memoryview:
        whole = type(value.obj) in {bytes, bytearray} and value.nbytes == len(value.obj) and value.format == "B"
        if not whole or value.readonly != isinstance(value.obj, bytes):
            raise Unstorable("a memoryview onto a part of an object cannot be stored")
        return memoryview, (value.obj,)
    (owner,) = gc.get_referents(value)
    if kind is types.MappingProxyType:
        own = owner.get("__dict__")
        return (vars, (own.__objclass__,)) if hasattr(own, "__objclass__") else (types.MappingProxyType, (owner,))
    return dict_view, (owner, kind.__name__.rpartition("_")[2])


def dict_view(owner: dict[Any, Any], kind: str) -> object:
    """Return the keys, values or items of a dict; called from pickles."""
    return getattr(owner, kind)()


_TYPE_PARAMETERS: Final = (typing.TypeVar, typing.ParamSpec, typing.TypeVarTuple)


TYPE_PARAMETER_OPTIONS: Final = ("bound", "covariant", "contravariant", "infer_variance", "default")


def _reduced_type_parameter(value: Any) -> tuple[Any, ...]:
    held = {name: getattr(value, f"__{name}__", None) for name in TYPE_PARAMETER_OPTIONS}
    options = {name: one for name, one in held.items() if one and one is not getattr(typing, "NoDefault", None)}
    return type_parameter, (type(value), value.__name__, getattr(value, "__constraints__", ()), options)


def type_parameter(kind: Any, name: str, constraints: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """Return a type variable of the notebook; called from pickles."""
    made = kind(name, *constraints, **options)
    made.__module__ = "__main__"  # it takes the name of the module that calls
    return made


def caching(function: Callable[..., Any], parameters: Mapping[str, Any]) -> Any:
    """Return the function with an empty ``functools.lru_cache`` around it; called from pickles."""
    return functools.lru_cache(**parameters)(function)


_FILES: Final = (io.TextIOWrapper, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.FileIO)


def _reduced_closed_file(file: Any) -> tuple[Any, ...]:
    # `with open(path) as file:` leaves a closed file behind in the notebook, which nobody means to keep.
    text = isinstance(file, io.TextIOWrapper)
    return closed_file, (file.name, file.mode, file.encoding if text else None, file.errors if text else None)


def closed_file(name: object, mode: str, encoding: str | None, errors: str | None) -> Any:
    """Return a closed file like the one that a cell left behind; called from pickles."""
    opened: Any = Path(os.devnull).open(mode.replace("x", "w"), encoding=encoding, errors=errors)  # noqa: SIM115 - closed below
    raw = opened
    while hasattr(raw, "buffer") or hasattr(raw, "raw"):
        raw = raw.buffer if hasattr(raw, "buffer") else raw.raw
    raw.name = name
    if encoding is not None:
        opened.mode = mode
    opened.close()
    return opened


_POOLS: Final = {
    ("concurrent.futures.thread", "ThreadPoolExecutor"): "_shutdown",
    ("concurrent.futures.process", "ProcessPoolExecutor"): "_shutdown_thread",
}
"""Pools, and which attribute says that one has been shut down."""


def _is_closed_pool(value: object) -> bool:
    # `with ThreadPoolExecutor() as pool:` leaves one behind as well.
    mark = _POOLS.get((type(value).__module__, type(value).__name__))
    return mark is not None and bool(vars(value).get(mark))


def closed_pool(kind: str, workers: int) -> Any:
    """Return a pool of threads or processes that has been shut down; called from pickles."""
    import concurrent.futures

    pool = getattr(concurrent.futures, kind)(workers)
    pool.shutdown()
    return pool


WRITEABLE: Final = 0x400
"""The bit of ``ndarray.flags.num`` (NumPy's ``NPY_ARRAY_WRITEABLE``)."""


def _is_locked_array(value: Any) -> bool:
    numpy = sys.modules["numpy"]
    # flags.writeable warns where NumPy 1 broadcast the array.
    return type(value) is numpy.ndarray and not value.flags.num & WRITEABLE


def _reduced_locked_array(array: Any) -> tuple[Any, ...]:
    # NumPy's own pickles forget that an array is read-only.
    maker, arguments, state = array.__reduce__()
    return maker, arguments, state, None, None, fill_locked_array


def fill_locked_array(array: Any, state: tuple[Any, ...]) -> None:
    """Give a restored read-only array its elements; called from pickles."""
    array.__setstate__(state)
    array.flags.writeable = False


def _reduced_cell(cell: types.CellType) -> tuple[Any, ...]:
    try:
        contents = cell.cell_contents
    except ValueError:
        return types.CellType, ()
    # The content is state, not an argument: a function may be in its own closure, and the empty cell is
    # known to the pickle before its content is met.
    return types.CellType, (), (contents,), None, None, fill_cell


def fill_cell(cell: types.CellType, state: tuple[object]) -> None:
    """Put the content into a closure's cell; called from pickles."""
    (cell.cell_contents,) = state


def _module_of(function: types.FunctionType) -> str | None:
    """Return the module in whose namespace a function without a name of its own there was made; else None.

    cloudpickle would give it copies of the module's variables, and of those that it shares with other functions.
    """
    name = function.__globals__.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) and name != "__main__" else None
    if module is None or vars(module) is not function.__globals__:
        return None
    found: object = sys.modules.get(function.__module__ or "") if function.__module__ != "__main__" else None
    for word in function.__qualname__.split("."):
        found = getattr(found, word, None)
    return None if found is function else module.__name__


def _reduced_function(function: types.FunctionType, module: str = "") -> tuple[Any, ...]:
    state = {
        "__defaults__": function.__defaults__,
        "__kwdefaults__": function.__kwdefaults__,
        "__annotations__": function.__annotations__,
        "__qualname__": function.__qualname__,
        "__module__": function.__module__,
        "__doc__": function.__doc__,
    }
    if parameters := getattr(function, "__type_params__", ()):
        state["__type_params__"] = parameters
    where = module or function.__globals__
    arguments = (function.__code__, where, function.__name__, function.__closure__)
    return make_function, arguments, (state, function.__dict__), None, None, fill_function


def make_function(
    code: types.CodeType,
    where: dict[str, object] | str,
    name: str,
    closure: tuple[types.CellType, ...] | None,
) -> types.FunctionType:
    """Return a function of the notebook's namespace, or of the module of that name; called from pickles."""
    namespace = vars(importlib.import_module(where)) if isinstance(where, str) else where
    return types.FunctionType(_present(code), namespace, name, None, closure)


_compiled: ContextVar[Callable[[], Mapping[object, types.CodeType]]] = ContextVar("compiled", default=dict)


@contextlib.contextmanager
def compiled_as(codes: Callable[[], Iterable[types.CodeType]]) -> Iterator[None]:
    """Give functions that are read meanwhile the code objects of a source as it stands now.

    A cell may have moved, or got a comment more, since its functions were stored. What is the same code takes
    its file name and lines from `codes`, which is called when the first function is met.
    """
    token = _compiled.set(functools.cache(lambda: {_meaning(c): c for code in codes() for c in _nested(code)}))
    try:
        yield
    finally:
        _compiled.reset(token)


def _present(code: types.CodeType) -> types.CodeType:
    return _compiled.get()().get(_meaning(code), code)


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)


def _meaning(code: types.CodeType) -> object:
    """Return what a code object does and is called, without where it stands."""
    constants = tuple(_meaning(c) if isinstance(c, types.CodeType) else (type(c), repr(c)) for c in code.co_consts)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    return (code.co_qualname, code.co_code, constants, names, counts)


def fill_function(function: types.FunctionType, state: tuple[Mapping[str, object], Mapping[str, object]]) -> None:
    """Give a restored function its attributes; called from pickles."""
    attributes, own = state
    for name, value in attributes.items():
        setattr(function, name, value)
    function.__dict__.update(own)


class ValueUnpickler(pickle.Unpickler):
    """Reads what :class:`ValuePickler` wrote, into a namespace."""

    def __init__(
        self,
        file: IO[bytes],
        *,
        namespace: MutableMapping[str, object] | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        super().__init__(file)
        self._namespace = namespace
        self._resolve = resolve

    def find_class(self, module: str, name: str) -> Any:
        """Return what a module holds under a name; the notebook's own names may mean something else by now."""
        if module == "__main__":
            raise Damaged(f"the pickle asks for {name} of the notebook")
        return super().find_class(module, name)

    def persistent_load(self, reference: Reference) -> object:
        """Return the object that a reference stands for."""
        if reference == NAMESPACE and self._namespace is not None:
            return self._namespace
        if self._resolve is None:
            raise Damaged(f"the pickle refers to {reference!r}, which belongs to the notebook that wrote it")
        return self._resolve(reference)


class HashingFile:
    """A new file, private to the user, whose tree digest is taken while it is written."""

    def __init__(self, path: Path, progress: Progress | None = None) -> None:
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._tree = TreeHasher()
        self._progress = progress

    def write(self, data: Buffer) -> int:
        """Append some bytes."""
        self._tree.update(data)
        count = self._file.write(data)
        if self._progress is not None:
            self._progress(self._tree.size, 0)
        return count

    def close(self) -> TreeHasher:
        """Close the file and return what was hashed."""
        self._file.close()
        return self._tree


def write_bytes(path: Path, dump: Callable[[IO[bytes]], object], progress: Progress | None = None) -> TreeHasher:
    """Create the file `path` with what `dump` writes, and return its digests.

    `progress` is called with the bytes so far, and 0 for those in all: nobody knows how long a pickle becomes.
    """
    file = HashingFile(path, progress)
    try:
        try:
            dump(file)  # type: ignore[arg-type]
        finally:
            tree = file.close()
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return tree


class PickledCodec:
    """One pickle in one file."""

    name = "pickle"
    suffix = ".pickle"

    def accepts(self, value: object) -> bool:  # noqa: ARG002 - whether a value can be pickled shows only in the doing
        """Tell that any value may be tried."""
        return True

    def write(
        self,
        value: object,
        path: Path,
        *,
        namespace: Mapping[str, object] | None = None,
        refer: Refer | None = None,
        shelf: Shelf | None = None,  # noqa: ARG002 - no part of a pickle is worth anything without the rest
        progress: Progress | None = None,
    ) -> Written:
        """Pickle `value` into the new file `path`; :class:`Unstorable` where that cannot be done."""
        tree = write_bytes(path, lambda file: dump(value, file, namespace=namespace, refer=refer), progress)
        return Written(tree.digest, tree.size, {"pieces": list(tree.pieces)})

    def read(
        self,
        path: Path,
        meta: Mapping[str, Json],  # noqa: ARG002 - a pickle describes itself
        *,
        trusted: bool,
        namespace: MutableMapping[str, object] | None = None,
        resolve: Resolve | None = None,
    ) -> object:
        """Return the value; :class:`Untrusted` without a trusted signature, :class:`Damaged` where it is broken."""
        if not trusted:
            raise Untrusted(
                f"{path.name} is a pickle without a signature that is trusted",
                remedy="run the cell here, or trust the other user's key with prefect_cache.trust(key_file)",
            )
        try:
            with path.open("rb") as file:
                return load(file, namespace=namespace, resolve=resolve)
        except FileNotFoundError as error:
            raise Damaged(f"{path.name} is missing") from error


def dump(
    value: object,
    file: IO[bytes],
    *,
    namespace: Mapping[str, object] | None = None,
    refer: Refer | None = None,
    pickler: ValuePickler | None = None,
) -> None:
    """Pickle `value` into an open file; :class:`Unstorable` says which type could not be.

    A `pickler` of the caller's is one that it wants to keep: what was pickled lives as long as it does.
    """
    pickler = pickler or ValuePickler(file, namespace=namespace, refer=refer)
    try:
        pickler.dump(value)
    except (Unstorable, OSError):
        raise
    except RecursionError as error:
        raise Unstorable("it is nested too deeply to be pickled") from error
    except Exception as error:
        # Any type's own reduction runs here and may raise whatever it likes.
        raise Unstorable(f"{with_article(type(value))} cannot be pickled: {first_line(error)}") from error


def load(
    file: IO[bytes],
    *,
    namespace: MutableMapping[str, object] | None = None,
    resolve: Resolve | None = None,
) -> object:
    """Read one pickle from an open file; :class:`Damaged` where that fails."""
    read = ValueUnpickler(file, namespace=namespace, resolve=resolve).load
    try:
        return read() if namespace is None else _called_from(namespace, read)
    except (Damaged, Untrusted):
        raise
    except Exception as error:
        # A class that is gone, another version's state, a reader's own failure: all mean "run the cell".
        raise Damaged(f"the pickle cannot be read: {type(error).__name__}: {first_line(error)}") from error


_CALLERS: Final = 4
"""Functions of the notebook's that stand between an unpickled object's own code and ours.

Some objects look for names where they are unpickled: a model of statsmodels (0.14) evaluates its formula again with
the names of its callers, up to four away.
"""

_CALL: Final = next(
    constant
    for constant in compile("lambda call: call()", "<restored>", "eval", dont_inherit=True).co_consts
    if isinstance(constant, types.CodeType)
)


def _called_from(namespace: MutableMapping[str, object], read: Callable[[], object]) -> object:
    """Call `read` as cells of the notebook would."""
    call = types.FunctionType(_CALL, cast("dict[str, object]", namespace))
    for _ in range(_CALLERS):
        read = functools.partial(call, read)
    return read()
