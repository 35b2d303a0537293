"""The own content of an object, apart from the objects that it refers to; taken out and put back.

A cell that changes a list, a frame or an instance in place changes it for every name that refers
to it. To do that again on a hit, the object keeps its identity and gets the content that it had
after the run: :func:`state_of` takes that content, :func:`put_state` puts it into the object that stands
in the same place now. The content is *shallow*: the elements of a list are the very elements, which have
states of their own where they changed.

pandas and NumPy objects are changed as their own methods change them: into the same memory where the run
wrote into that memory, so that views of it see the change; by exchanging what they hold where the run did so.
"""

from __future__ import annotations

import array
import collections
import io
import random
import sys
import types
from dataclasses import dataclass, replace
from typing import Any

from prefect_cache.errors import Unstorable

_CONTAINERS = (list, dict, set, bytearray, collections.deque, array.array)
_HEAP_TYPE = 1 << 9
_OWN_CLASS_ATTRIBUTES = frozenset({"__dict__", "__weakref__", "__doc__", "__module__", "__qualname__"})


@dataclass(frozen=True, slots=True)
class State:
    """The content of one object: what its type holds, its attributes, its slots."""

    kind: str
    content: Any = None
    attributes: dict[str, Any] | None = None
    slots: dict[str, Any] | None = None
    kept: tuple[bool, ...] = ()
    """For pandas objects: which blocks of memory the run wrote into, rather than exchanged."""


def state_of(value: Any, memory: tuple[int, ...] = ()) -> State:
    """Return the content of `value`; `memory` is what :func:`memory_of` gave before the run.

    Raises
    ------
    Unstorable
        Where the type has a content that cannot be taken out and put back.
    """
    kind = _kind(value)
    if kind == "pandas":
        return State(kind, value.copy(deep=False), kept=tuple(a in memory for a in memory_of(value)))
    if kind == "index":
        return State(kind, list(value.names))
    if kind == "ndarray":
        return State(kind, value.view())
    if kind == "bits":
        return State(kind, value.state)
    if kind == "generator":
        return State(kind, value.bit_generator.state)
    if kind == "legacy generator":
        return State(kind, value.get_state(legacy=False))
    if kind == "random":
        return State(kind, value.getstate(), *_attributes(value))
    if kind == "text":
        return State(kind, (value.getvalue(), value.tell()))
    if kind == "cell":
        return State(kind, (value.cell_contents,))
    if kind == "class":
        return State(kind, {k: v for k, v in vars(value).items() if _is_content(k, v)})
    if kind == "module":
        return State(kind, {k: v for k, v in vars(value).items() if not k.startswith("__")})
    return State(kind, _container_content(value), *_attributes(value))


def put_state(value: Any, state: State) -> None:
    """Give `value`, in place, the content that :func:`state_of` took."""
    kind = _kind(value)
    if kind != state.kind:
        raise Unstorable(f"the content of a {state.kind} cannot go into a {type(value).__name__}")
    if kind == "pandas":
        _put_pandas(value, state)
    elif kind == "index":
        value.names = state.content
    elif kind == "ndarray":
        _put_array(value, state.content)
    elif kind == "bits":
        value.state = state.content
    elif kind == "generator":
        value.bit_generator.state = state.content
    elif kind == "legacy generator":
        value.set_state(state.content)
    elif kind == "random":
        value.setstate(state.content)
        _put_attributes(value, state)
    elif kind == "text":
        text, position = state.content
        value.seek(0)
        value.truncate()
        value.write(text)
        value.seek(position)
    elif kind == "cell":
        (value.cell_contents,) = state.content
    elif kind in {"class", "module"}:
        _put_names(value, state.content, {k for k, v in vars(value).items() if kind == "class" and not _is_content(k, v)})
    else:
        _put_container(value, state.content)
        _put_attributes(value, state)


def copied(state: State) -> State:
    """Return a state that shares no memory with the object it was taken from."""
    if state.kind in {"pandas", "ndarray"}:
        return replace(state, content=state.content.copy())
    return state


def fits(value: Any, state: State) -> bool:
    """Tell whether the content can go into this object."""
    return _kind(value) == state.kind


def memory_of(value: Any) -> tuple[int, ...]:
    """Return the addresses of a pandas object's blocks, in their order; empty for anything else."""
    return tuple(_address(block.values) for block in _blocks(value))


def blocks_of(value: Any) -> tuple[Any, ...]:
    """Return the arrays of a pandas object's blocks that are plain NumPy memory, in their order."""
    return tuple(block.values for block in _blocks(value))


def _kind(value: Any) -> str:  # noqa: PLR0911 - a table of types reads best as one
    pandas, numpy = sys.modules.get("pandas"), sys.modules.get("numpy")
    if pandas is not None and isinstance(value, pandas.DataFrame | pandas.Series):
        return "pandas"
    if pandas is not None and isinstance(value, pandas.Index):
        return "index"
    if numpy is not None:
        if isinstance(value, numpy.ma.MaskedArray):
            raise Unstorable("a masked array that a cell changes in place cannot be changed again in place")
        if isinstance(value, numpy.ndarray):
            return "ndarray"
        if isinstance(value, numpy.random.Generator):
            return "generator"
        if isinstance(value, numpy.random.RandomState):
            return "legacy generator"
        if isinstance(value, numpy.random.BitGenerator):
            return "bits"
    if isinstance(value, random.Random):
        return "random"
    if isinstance(value, io.StringIO | io.BytesIO):
        return "text"
    if isinstance(value, type):
        return "class"
    if isinstance(value, types.CellType):
        return "cell"
    if isinstance(value, types.ModuleType):
        return "module"
    return _plain_kind(value)


def _plain_kind(value: Any) -> str:
    cls = type(value)
    container = next((c for c in _CONTAINERS if isinstance(value, c)), None)
    known = {object, *_CONTAINERS, BaseException, types.FunctionType, types.SimpleNamespace, collections.OrderedDict}
    known |= {collections.defaultdict, collections.Counter}
    for base in cls.__mro__:
        if base not in known and not issubclass(base, BaseException) and not base.__flags__ & _HEAP_TYPE:
            raise Unstorable(f"a {cls.__name__} that a cell changes in place cannot be changed again in place")
    return container.__name__ if container is not None else "instance"


def _blocks(value: Any) -> tuple[Any, ...]:
    manager = getattr(value, "_mgr", None)
    return tuple(getattr(manager, "blocks", ()))


def _address(values: Any) -> int:
    data = getattr(values, "_ndarray", getattr(values, "_data", values))
    interface = getattr(data, "__array_interface__", None)
    return 0 if interface is None else int(interface["data"][0])


def _put_pandas(value: Any, state: State) -> None:
    new, old = state.content, {tuple(b.mgr_locs.as_array): b for b in _blocks(value)}
    for block, kept in zip(_blocks(new), state.kept, strict=True):
        target = old.get(tuple(block.mgr_locs.as_array))
        if kept and target is not None and _same_layout(target.values, block.values) and not _is_shared(target):
            target.values[...] = block.values
            block.values = target.values
    object.__setattr__(value, "_mgr", new._mgr)
    object.__setattr__(value, "_attrs", new._attrs)
    object.__setattr__(value, "_flags", value.flags.__class__(value, allows_duplicate_labels=new.flags.allows_duplicate_labels))
    if "_name" in vars(new):
        object.__setattr__(value, "_name", new._name)
    for clear in ("_clear_item_cache", "_reset_cache"):
        # pandas 2 keeps the Series of columns that were looked at.
        if (method := getattr(value, clear, None)) is not None:
            method()


def _same_layout(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one.dtype == other.dtype and one.shape == other.shape and _address(one) != 0


def _is_shared(block: Any) -> bool:
    # Under copy-on-write, pandas itself copies a block that another object refers to before it writes.
    refs = getattr(block, "refs", None)
    return refs is not None and bool(refs.has_reference())


def _put_array(value: Any, content: Any) -> None:
    if value.dtype != content.dtype:
        value.dtype = content.dtype
    if value.shape != content.shape:
        if value.size == content.size:
            value.shape = content.shape
        else:
            value.resize(content.shape, refcheck=False)
    if value.flags.writeable:
        value[...] = content
    elif value.base is None:
        value.flags.writeable = True
        value[...] = content
        value.flags.writeable = False
    # Else it is a read-only window: what it shows is another object's memory, which is put back by itself.


def _container_content(value: Any) -> Any:
    if isinstance(value, dict):
        content: Any = dict(value)
        return (content, value.default_factory) if isinstance(value, collections.defaultdict) else content
    if isinstance(value, list):
        return list(value)
    if isinstance(value, set):
        return set(value)
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, collections.deque):
        return list(value)
    if isinstance(value, array.array):
        return value.tolist()
    return value.args if isinstance(value, BaseException) else None


def _put_container(value: Any, content: Any) -> None:
    if isinstance(value, dict):
        if isinstance(value, collections.defaultdict):
            content, value.default_factory = content
        dict.clear(value)
        dict.update(value, content)
        if isinstance(value, collections.OrderedDict):
            value.clear()
            for key, item in content.items():
                collections.OrderedDict.__setitem__(value, key, item)
    elif isinstance(value, list):
        list.__setitem__(value, slice(None), content)
    elif isinstance(value, set):
        set.clear(value)
        set.update(value, content)
    elif isinstance(value, bytearray | array.array):
        value[:] = array.array(value.typecode, content) if isinstance(value, array.array) else content
    elif isinstance(value, collections.deque):
        value.clear()
        value.extend(content)
    elif isinstance(value, BaseException):
        value.args = content


def _attributes(value: Any) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    own = getattr(value, "__dict__", None)
    slots = {name: getattr(value, name) for name in _slots(type(value)) if hasattr(value, name)}
    return (None if own is None else dict(own)), slots or None


def _slots(cls: type) -> list[str]:
    return [
        name
        for base in cls.__mro__
        for name, member in vars(base).items()
        if isinstance(member, types.MemberDescriptorType) and base.__flags__ & _HEAP_TYPE
    ]


def _put_attributes(value: Any, state: State) -> None:
    if state.attributes is not None:
        own = value.__dict__
        own.clear()
        own.update(state.attributes)
    wanted = state.slots or {}
    for name in _slots(type(value)):
        # object's own methods: a frozen dataclass or a class with rules of its own refuses the usual way.
        if name in wanted:
            object.__setattr__(value, name, wanted[name])
        elif hasattr(value, name):
            object.__delattr__(value, name)


def _is_content(name: str, value: Any) -> bool:
    made_by_python = isinstance(value, types.MemberDescriptorType | types.GetSetDescriptorType)
    return name not in _OWN_CLASS_ATTRIBUTES and not made_by_python and not name.startswith("_abc_")


def _put_names(owner: Any, content: dict[str, Any], leave: set[str]) -> None:
    for name in [n for n in vars(owner) if n not in content and n not in leave]:
        if isinstance(owner, type) or not name.startswith("__"):
            delattr(owner, name)
    for name, value in content.items():
        if vars(owner).get(name, _put_names) is not value:
            setattr(owner, name, value)
