"""A namespace as plain tuples: values, and which mutable object is which, so that two can be compared.

Every mutable object gets a number when it is first met, names in order; met again it is a reference to that number. Two
namespaces with equal snapshots cannot be told apart by a cell (within the kinds of values that the grammar makes).
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import copy
import enum
import functools
import hashlib
import io
import os
import pickle
import random
import re
import sys
import types
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pandas as pd

HIDDEN = frozenset({"In", "Out", "get_ipython", "exit", "quit", "open", "display"})
ATOMS = (bool, int, float, complex, str, bytes, type(None), type(...), type(NotImplemented), range, slice)
MEMBERS_OF_NO_INTEREST = frozenset(
    {
        "__dict__",
        "__weakref__",
        "__module__",
        "__firstlineno__",
        "__static_attributes__",
        "__abstractmethods__",
        "__slotnames__",  # what copy and pickle put there when an instance is first pickled
    }
)
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
ADDRESS_IN_FILES = re.compile(ADDRESS.pattern.encode())


def namespace(names: dict[str, Any]) -> dict[str, object]:
    """Return the snapshot of every name of the user's, and of ``_``."""
    describe = Describer(names)
    shown = sorted(name for name in names if not name.startswith("_") and name not in HIDDEN)
    found: dict[str, object] = {name: describe(names[name]) for name in [*shown, *(["_"] if "_" in names else [])]}
    found["<overlaps>"] = describe.overlaps()
    return found


class Describer:
    """Describes values; what it has met keeps its number."""

    def __init__(self, names: dict[str, Any]) -> None:
        self._globals = names
        self._numbers: dict[int, int] = {}
        self._kept: list[object] = []  # so that no id is used twice
        self._arrays: list[np.ndarray] = []

    def __call__(self, value: Any) -> object:
        """Describe one value."""
        kind = type(value)
        if kind in ATOMS:
            return (kind.__name__, repr(value))
        if kind is tuple:
            return ("tuple", *map(self, value))
        if kind is frozenset:
            return ("frozenset", *sorted(map(repr, map(self, value))))
        if isinstance(value, np.generic | np.dtype | pd.api.extensions.ExtensionDtype | PurePath | re.Pattern):
            return (kind.__name__, repr(value))
        if isinstance(value, pd.Timestamp | pd.Timedelta | pd.Period | pd.Interval):
            return (kind.__name__, repr(value))  # their __dict__ is a cache
        if isinstance(value, types.ModuleType):
            return ("module", value.__name__)
        if isinstance(value, types.BuiltinFunctionType):
            return ("builtin", value.__name__, self._owner(value))
        if isinstance(value, enum.Enum):
            return ("member", self(kind), value.name)
        return self._numbered(value)

    def _owner(self, value: Any) -> object:
        owner = getattr(value, "__self__", None)
        return None if owner is None or isinstance(owner, types.ModuleType) else self(owner)

    def _numbered(self, value: Any) -> object:
        if id(value) in self._numbers:
            return ("again", self._numbers[id(value)])
        number = self._numbers[id(value)] = len(self._kept)
        self._kept.append(value)
        return (type(value).__name__, number, *self._content(value))

    def _content(self, value: Any) -> tuple[object, ...]:
        match value:
            case pd.DataFrame():
                columns = [self._column(value.iloc[:, i]) for i in range(value.shape[1])]
                return (self(value.columns), self(value.index), *columns, *self._flags(value))
            case pd.Series():
                return (self(value.index), self._column(value), repr(value.name), *self._flags(value))
            case pd.Index():
                return (self._index(value),)
            case np.ndarray():
                self._arrays.append(value)
                return self._array(value)
            case pd.api.extensions.ExtensionArray():
                return (repr(value.dtype), *map(self, value))
            case np.random.Generator():
                return (repr(value.bit_generator.state),)
            case np.random.RandomState():
                return (repr(value.get_state()),)
            case random.Random():
                return (repr(value.getstate()),)
            case types.FunctionType():
                return self._function(value)
            case types.MethodType():
                return (self(value.__self__), self(value.__func__))
            case functools.partial():
                return (self(value.func), self(value.args), self(value.keywords))
            case type():
                return self._class(value)
            case types.CellType():
                return (self._cell(value),)
            case types.GeneratorType():
                return (value.__name__,)  # to look inside is to consume it
            case io.IOBase():
                return (value.closed,)
            case concurrent.futures.Executor():
                return (value._max_workers,)
            case staticmethod() | classmethod():
                return (self(value.__func__),)
            case property():
                return (self(value.fget), self(value.fset))
        if hasattr(value, "cache_info"):
            return (self(value.__wrapped__),)
        if hasattr(value, "__next__"):
            return self._iterator(value)
        return self._instance(value)

    def _instance(self, value: Any) -> tuple[object, ...]:
        parts: list[object] = []
        if isinstance(value, dict):
            parts += [(self(k), self(v)) for k, v in value.items()]
        elif isinstance(value, list | tuple | collections.deque):
            parts += map(self, value)
        elif isinstance(value, set):
            parts += sorted(map(repr, map(self, value)))
        elif isinstance(value, bytearray):
            parts.append(bytes(value))
        own = type(value).__module__ == "__main__"
        if own:
            parts.append(self(type(value)))
            slots = [n for c in type(value).__mro__ for n in c.__dict__.get("__slots__", ()) if hasattr(value, n)]
            parts += [(name, self(getattr(value, name))) for name in slots]
        state = getattr(value, "__dict__", None)
        if state:
            parts += [(name, self(state[name])) for name in sorted(state)]
        if not parts and not isinstance(value, dict | list | tuple | set | collections.deque):
            parts.append(ADDRESS.sub("", repr(value)))
        if isinstance(value, collections.defaultdict):
            parts.append(self(value.default_factory))
        if isinstance(value, collections.deque):
            parts.append(value.maxlen)
        return tuple(parts)

    def _iterator(self, value: Any) -> tuple[object, ...]:
        try:
            twin = copy.copy(value)
        except TypeError:
            return ()
        return tuple(self(item) for item, _ in zip(twin, range(50), strict=False))

    def _index(self, index: pd.Index) -> object:
        if isinstance(index, pd.MultiIndex):
            levels = tuple(self._index(level) for level in index.levels)
            return ("MultiIndex", tuple(index.names), levels, *(tuple(codes) for codes in index.codes))
        if isinstance(index, pd.RangeIndex):
            return ("RangeIndex", repr(index))
        freq = getattr(index, "freqstr", None)
        return (type(index).__name__, repr(index.name), repr(index.dtype), freq, *map(self, index))

    def _column(self, column: pd.Series) -> object:
        dtype = column.dtype
        if isinstance(dtype, np.dtype) and not dtype.hasobject:
            return (str(dtype), _digest(np.ascontiguousarray(column.to_numpy()).tobytes()))
        extra = self._index(dtype.categories) if isinstance(dtype, pd.CategoricalDtype) else None
        return (repr(dtype), extra, *map(self, column.array))

    def _flags(self, value: pd.DataFrame | pd.Series) -> tuple[object, ...]:
        given = {k: v for k, v in vars(value).items() if k[0] != "_" and not hasattr(type(value), k)}
        named = (*value.attrs.items(), *sorted(given.items()))
        return (value.flags.allows_duplicate_labels, *((repr(k), self(v)) for k, v in named))

    def _array(self, value: np.ndarray) -> tuple[object, ...]:
        shape = (str(value.dtype), value.shape, value.flags.writeable)
        if value.dtype.hasobject:
            return (*shape, *map(self, value.ravel().tolist()))
        return (*shape, _digest(np.ascontiguousarray(value).tobytes()))

    def overlaps(self) -> tuple[object, ...]:
        """Return which of the arrays met share memory with which."""
        arrays = self._arrays[:40]
        pairs = [(i, j) for j in range(len(arrays)) for i in range(j)]
        return tuple((i, j) for i, j in pairs if np.may_share_memory(arrays[i], arrays[j]))

    def _function(self, value: types.FunctionType) -> tuple[object, ...]:
        closure = [self(cell) for cell in value.__closure__ or ()]
        attributes = [(name, self(item)) for name, item in sorted(value.__dict__.items())]
        here = value.__globals__ is self._globals
        return (
            value.__qualname__,
            value.__module__,
            here,
            _code(value.__code__),
            self(value.__defaults__),
            self(value.__kwdefaults__),
            *closure,
            *attributes,
        )

    def _cell(self, cell: types.CellType) -> object:
        try:
            return self(cell.cell_contents)
        except ValueError:
            return "empty"

    def _class(self, value: type) -> tuple[object, ...]:
        if value.__module__ != "__main__":
            return (f"{value.__module__}.{value.__qualname__}",)
        members = sorted(set(vars(value)) - MEMBERS_OF_NO_INTEREST)
        found = [(n, self(vars(value)[n])) for n in members if not isinstance(vars(value)[n], _SLOT_KINDS)]
        return (value.__qualname__, tuple(map(self, value.__bases__)), *found)


_SLOT_KINDS = (types.MemberDescriptorType, types.GetSetDescriptorType, types.WrapperDescriptorType)


def _code(code: types.CodeType) -> object:
    consts = tuple(_code(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts)
    return (code.co_code, code.co_names, code.co_varnames, code.co_freevars, consts)


def _digest(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest() if len(data) > 40 else data.hex()


def _content(path: Path) -> object:
    data = path.read_bytes()
    if path.suffix == ".pkl":
        # Its bytes hang on which equal texts and dtypes are one object, which nobody can tell by looking.
        with contextlib.suppress(Exception):  # what cannot be read is compared as it is
            return Describer(vars(sys.modules["__main__"]))(pickle.loads(data))
    return _digest(ADDRESS_IN_FILES.sub(b"", data))


def process(folder: Path, started: dict[str, object]) -> dict[str, object]:
    """Return the state of this process that a notebook changes, and the files in its folder."""
    return {
        "cwd": os.path.relpath(Path.cwd(), folder),
        "environ": {k: v for k, v in os.environ.items() if k.startswith("FUZZ_")},
        "sys.path": [entry for entry in sys.path if entry not in started["sys.path"]],
        "random": _digest(repr(random.getstate()).encode()),
        "numpy.random": _digest(repr(np.random.get_state()).encode()),  # noqa: NPY002 - the global one is the question
        "precision": pd.get_option("display.precision"),
        "max_rows": pd.get_option("display.max_rows"),
        "recursion": sys.getrecursionlimit(),
        "files": {str(p.relative_to(folder)): _content(p) for p in sorted(folder.rglob("*")) if p.is_file()},
    }
