"""The own content of an object, apart from the objects that it refers to; taken out and put back.

A cell that changes a list, a frame or an instance in place changes it for every name that refers
to it. To do that again on a hit, the object keeps its identity and gets the content that it had
after the run: :func:`state_of` takes that content, :func:`put_state` puts it into the object that stands
in the same place now. The content is *shallow*: the elements of a list are the very elements, which have
states of their own where they changed.

pandas and NumPy objects are changed as their own methods change them: into the same memory where the run
wrote into that memory, so that views of it see the change; by exchanging what they hold where the run did so.
"""

# ruff: noqa: SLF001 - where the blocks of a frame lie is known to its manager alone
from __future__ import annotations

import array
import collections
import contextlib
import functools
import io
import operator
import random
import sys
import types
import weakref
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final

from prefect_cache.cells.code import is_dispatcher, registered_with
from prefect_cache.codecs.instances import (
    attributes,
    frame_attributes,
    is_of_python,
    own_dict,
    put_frame_attributes,
    slots,
)
from prefect_cache.errors import Unstorable, with_article

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_CONTAINERS: Final[dict[str, type]] = {
    "defaultdict": collections.defaultdict,
    "dict": dict,
    "list": list,
    "set": set,
    "bytearray": bytearray,
    "deque": collections.deque,
    "array": array.array,
    "exception": BaseException,
    "partial": functools.partial,
}
_TRANSPARENT: Final = frozenset({object, types.SimpleNamespace, collections.OrderedDict, *_CONTAINERS.values()})
"""Types of C whose content is known here; a class of Python's own keeps its content in attributes and slots."""

_CLASS: Final = vars(object)["__class__"]
"""What sets the class of any object, whatever rules its own class has about setting attributes."""

_OWN_CLASS_ATTRIBUTES = frozenset({"__dict__", "__weakref__", "__doc__", "__module__", "__qualname__"})


IN_FILES: Final = frozenset({"pandas", "ndarray"})
"""The kinds whose content has a file of its own."""

EXCHANGED, ALONE, SHARED = 0, 1, 2
"""What a run did to a block of a pandas object: another one is in its place; or it is the same memory, to which nothing
else referred, or which pandas would have copied before writing to it: then somebody wrote past pandas."""


@dataclass(frozen=True, slots=True)
class State:
    """The content of one object: what its type holds, its attributes, its slots."""

    kind: str
    content: Any = None
    attributes: dict[str, Any] | None = None
    slots: dict[str, Any] = field(default_factory=dict)
    kept: tuple[int, ...] = ()
    """For pandas objects, of each block: :data:`EXCHANGED`, or written into if at all, while `ALONE` or `SHARED`."""
    writes: tuple[tuple[Any, Any], ...] = ()
    """Memory of the object that the content goes into, and what is to be written there, see :func:`linked`."""
    cls: type | None = None
    """The class that the object has now, where it had another one."""
    exchanged: bool = False
    """Whether `attributes` is to be its very ``__dict__``, which others may hold too, in the place of the older one."""


@dataclass(frozen=True, slots=True)
class Look:
    """What of an object tells, after a run, how the run changed it."""

    memory: Mapping[int, bool]
    """See :func:`memory_of`."""
    cls: Callable[[], type | None]
    """Its class, None once that is gone."""
    own: int
    """The ``id`` of its ``__dict__``, 0 where it has none."""


def look(value: object) -> Look:
    """Return how an object is before a run."""
    return Look(memory_of(value), weakref.ref(type(value)), id(own) if (own := own_dict(value)) is not None else 0)


def state_of(value: Any, before: Look | None = None) -> State:
    """Return the content of `value`; of class and ``__dict__`` only what is not as it was `before`.

    Raises
    ------
    Unstorable
        Where the type has a content that cannot be taken out and put back.
    """
    kind = _kind(value)
    content = _CONTENTS[kind].take(value)
    was = type(value) if before is None else before.cls()
    if kind in IN_FILES and type(value) is not was:
        raise Unstorable(f"what has become {with_article(type(value))} in place cannot become one again")
    if kind == "pandas":
        ways = {None: EXCHANGED, False: ALONE, True: SHARED}
        memory = {} if before is None else before.memory
        return State(
            kind, content, kept=tuple(ways[memory.get(address)] for address in map(_address_of, _blocks(value)))
        )
    own, filled = attributes(value) if _CONTENTS[kind].has_attributes else (None, {})
    exchanged = own is not None and before is not None and before.own != id(own_dict(value))
    cls = None if before is not None and type(value) is was else type(value)
    return State(kind, content, own_dict(value) if exchanged else own, filled, cls=cls, exchanged=exchanged)


def put_state(value: Any, state: State) -> None:
    """Give `value`, in place, the content that :func:`state_of` took."""
    if not fits(value, state):
        raise Unstorable(f"the content of {with_article(state.kind)} cannot go into {with_article(type(value))}")
    if state.kind == "pandas":
        _put_pandas(value, state)
        return
    if state.cls is not None and type(value) is not state.cls:
        _CLASS.__set__(value, state.cls)
    _CONTENTS[state.kind].put(value, state.content)
    if _CONTENTS[state.kind].has_attributes:
        _put_attributes(value, state)


def copied(state: State) -> State:
    """Return a state that shares no memory with the object it was taken from."""
    if state.kind == "pandas":
        return replace(state, content=_with_its_own(state.content.copy(), state.content))
    return replace(state, content=state.content.copy()) if state.kind == "ndarray" else state


def fits(value: Any, state: State) -> bool:
    """Tell whether the content can go into this object."""
    return _kind(value) == state.kind


def is_whole(state: State) -> bool:
    """Tell whether a state that was read holds all that this version asks for: another may have stored less."""
    is_short = state.kind == "class" and len(state.content) < _PARTS_OF_A_CLASS
    return not is_short and all(hasattr(state, one.name) for one in fields(state))


def memory_of(value: Any) -> dict[int, bool]:
    """Return the addresses of a pandas object's blocks, in their order, and whether each is shared; else nothing."""
    return {_address_of(block): _is_shared(block) for block in _blocks(value)}


def is_unforeseen(value: Any, state: State) -> bool:
    """Tell whether nobody knows if the run would write to memory that is shared now: it was not when it ran."""
    return state.kind == "pandas" and any(
        kept == ALONE and _is_shared(target) and not _same_bytes(target.values, block.values)
        for block, target, kept in _met_again(value, state)
    )


def linked(value: Any, state: State) -> State:
    """Return the state of a pandas object with its content in the memory where :func:`put_state` will have it.

    Nothing is written yet, but what is made a window onto the content now is one onto `value` afterwards.
    """
    writes = list(state.writes)
    for block, target, kept in _met_again(value, state):
        if block.values is not target.values and (kept == SHARED or not _is_shared(target)):
            writes.append((target.values, block.values))
            block.values = target.values
    return replace(state, writes=tuple(writes))


def _met_again(value: Any, state: State) -> Iterator[tuple[Any, Any, int]]:
    """Yield each block of a state that is to go into the memory of a block of `value`, and that block."""
    old = {tuple(b.mgr_locs.as_array): b for b in _blocks(value)}
    for block, kept in zip(_blocks(state.content), state.kept, strict=True):
        target = old.get(tuple(block.mgr_locs.as_array))
        if kept and target is not None and _same_layout(target.values, block.values):
            yield block, target, kept


def _same_bytes(one: Any, other: Any) -> bool:
    arrays = [getattr(values, "_ndarray", values) for values in (one, other)]
    if not hasattr(arrays[0], "flags"):
        return bool(arrays[0].equals(arrays[1]))
    if arrays[0].dtype.hasobject:
        return all(map(operator.is_, *(array.reshape(-1) for array in arrays)))
    return bool(arrays[0].tobytes() == arrays[1].tobytes())


def is_frame_or_series(value: object) -> bool:
    """Tell whether a value is pandas'; imports nothing, and asks the type alone: an object may raise anything."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and issubclass(type(value), pandas.DataFrame | pandas.Series)


def blocks_of(value: Any) -> tuple[Any, ...]:
    """Return the arrays of a pandas object's blocks that are plain NumPy memory, in their order."""
    return tuple(block.values for block in _blocks(value))


def _kind(value: Any) -> str:
    return (
        _library_kind(value)
        or ("dispatcher" if is_dispatcher(value) else "")
        or next((kind for kind, cls in _KINDS.items() if isinstance(value, cls)), "")
        or _plain_kind(value)
    )


def _library_kind(value: Any) -> str:
    """Return the kind of an object of pandas or NumPy, where these are loaded at all."""
    pandas, numpy = sys.modules.get("pandas"), sys.modules.get("numpy")
    kinds: dict[str, Any] = {}
    if pandas is not None:
        kinds |= {"pandas": (pandas.DataFrame, pandas.Series), "index": pandas.Index}
    if numpy is not None:
        kinds |= {"masked": numpy.ma.MaskedArray, "ndarray": numpy.ndarray, "generator": numpy.random.Generator}
        kinds |= {"legacy generator": numpy.random.RandomState, "bits": numpy.random.BitGenerator}
    kind = next((kind for kind, cls in kinds.items() if isinstance(value, cls)), "")
    if kind == "masked":
        raise Unstorable("a masked array that a cell changes in place cannot be changed again in place")
    return kind


_KINDS: Final[dict[str, Any]] = {
    "function": types.FunctionType,
    "random": random.Random,
    "text": (io.StringIO, io.BytesIO),
    "class": type,
    "closure": types.CellType,
    "module": types.ModuleType,
}


def _plain_kind(value: Any) -> str:
    cls = type(value)
    for base in cls.__mro__:
        if not (base in _TRANSPARENT or issubclass(base, BaseException) or is_of_python(base)):
            raise Unstorable(f"{with_article(cls)} that a cell changes in place cannot be changed again in place")
    return next((kind for kind, container in _CONTAINERS.items() if isinstance(value, container)), "instance")


def _blocks(value: Any) -> tuple[Any, ...]:
    return tuple(value._mgr.blocks) if is_frame_or_series(value) else ()


def _address_of(block: Any) -> int:
    return _address(block.values)


def _address(values: Any) -> int:
    data = getattr(values, "_ndarray", getattr(values, "_data", values))
    interface = getattr(data, "__array_interface__", None)
    return 0 if interface is None else int(interface["data"][0])


def _shallow(value: Any) -> Any:
    return _with_its_own(value.copy(deep=False), value)


def _with_its_own(content: Any, value: Any) -> Any:
    """Give a copy of a pandas object what pandas copies with it, but the notebook may hold elsewhere as well."""
    object.__setattr__(content, "_attrs", dict(value._attrs))
    put_frame_attributes(content, frame_attributes(value))
    content._mgr.axes = [*value._mgr.axes]
    return content


def _put_pandas(value: Any, state: State) -> None:
    linked_ = linked(value, state)
    new = linked_.content
    for target, values in linked_.writes:
        _write(target, values)
    object.__setattr__(value, "_mgr", new._mgr)
    if value._attrs is not new._attrs:
        value._attrs.clear()
        value._attrs.update(new._attrs)
    object.__setattr__(
        value, "_flags", value.flags.__class__(value, allows_duplicate_labels=new.flags.allows_duplicate_labels)
    )
    put_frame_attributes(value, frame_attributes(new))
    if "_name" in vars(new):
        object.__setattr__(value, "_name", new._name)
    for clear in ("_clear_item_cache", "_reset_cache"):
        # pandas 2 keeps the Series of columns that were looked at.
        if (method := getattr(value, clear, None)) is not None:
            method()


def _write(target: Any, values: Any) -> None:
    raw, given = (getattr(array, "_ndarray", array) for array in (target, values))
    if not hasattr(raw, "flags"):  # nullable: numbers and their mask
        raw[:] = given
        return
    locked = not raw.flags.writeable
    raw.flags.writeable = True  # pandas locks memory that it shares
    raw[...] = given
    raw.flags.writeable = not locked


def _same_layout(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one.dtype == other.dtype and one.shape == other.shape and _address(one) != 0


def _is_shared(block: Any) -> bool:
    # Under copy-on-write, pandas itself copies a block that another object refers to before it writes.
    refs = getattr(block, "refs", None)
    return copies_on_write() and refs is not None and bool(refs.has_reference())


def copies_on_write() -> bool:
    """Tell whether pandas copies memory that objects share before it writes to it, as it does from version 3 on."""
    pandas = sys.modules["pandas"]
    return int(pandas.__version__.split(".")[0]) >= 3 or pandas.get_option("mode.copy_on_write") is True  # noqa: PLR2004


def _put_array(value: Any, content: Any) -> None:
    # A window onto read-only memory cannot be unlocked: it shows another object's memory, which is put back by itself.
    with contextlib.suppress(ValueError):
        value.flags.writeable = True
    if value.dtype != content.dtype:
        value.dtype = content.dtype
    if value.shape != content.shape:
        if value.size == content.size:
            value.shape = content.shape
        else:
            value.resize(content.shape, refcheck=False)
    if value.flags.writeable:
        value[...] = content
    if not content.flags.writeable:
        value.flags.writeable = False


@dataclass(frozen=True, slots=True)
class _Content:
    """How the content of one kind of object is taken out and put back."""

    take: Callable[[Any], Any]
    put: Callable[[Any, Any], None]
    has_attributes: bool = False


def _index_content(value: Any) -> tuple[list[Any], Any]:
    return list(value.names), value.freq if _has_own_freq(value) else None


def _put_index(value: Any, content: tuple[list[Any], Any]) -> None:
    value.names, frequency = content
    if _has_own_freq(value):
        value.freq = frequency


def _has_own_freq(index: Any) -> bool:
    """Tell whether an index has a frequency that can be set; a period's is its dtype's."""
    pandas = sys.modules["pandas"]
    return isinstance(index, pandas.DatetimeIndex | pandas.TimedeltaIndex)


def _put_text(value: Any, content: tuple[Any, int]) -> None:
    text, position = content
    value.seek(0)
    value.truncate()
    value.write(text)
    value.seek(position)


def _put_cell(value: types.CellType, content: tuple[Any]) -> None:
    (value.cell_contents,) = content


_OF_FUNCTIONS: Final = (
    *("__code__", "__defaults__", "__kwdefaults__", "__annotations__", "__type_params__"),
    *("__name__", "__qualname__", "__doc__", "__module__"),
)
"""What a function holds that can be set, beside its attributes; its globals and its cells cannot."""


def _function_content(value: types.FunctionType) -> dict[str, Any]:
    return {name: getattr(value, name) for name in _OF_FUNCTIONS if hasattr(value, name)}


def _put_function(value: types.FunctionType, content: dict[str, Any]) -> None:
    for name, held in content.items():
        setattr(value, name, held)


def _put_dispatcher(value: Any, content: dict[type, Any]) -> None:
    for cls, function in content.items():
        if value.registry.get(cls) is not function:
            value.register(cls, function)


_PARTS_OF_A_CLASS: Final = 3


def _class_content(value: type) -> tuple[dict[str, Any], tuple[type, ...], tuple[type, ...]]:
    return {k: x for k, x in vars(value).items() if _is_content(k, x)}, value.__bases__, registered_with(value)


def _put_class(value: Any, content: tuple[dict[str, Any], tuple[type, ...], tuple[type, ...]]) -> None:
    held, bases, registered = content
    if value.__bases__ != bases:
        value.__bases__ = bases
    _put_names(value, held, {k for k, v in vars(value).items() if not _is_content(k, v)})
    for cls in set(registered).difference(registered_with(value)):
        value.register(cls)


def _put_dict(value: Any, content: dict[Any, Any]) -> None:
    value.clear() if isinstance(value, collections.OrderedDict) else dict.clear(value)
    # A subclass may have rules of its own about setting items; what was there once is put back past them.
    put = collections.OrderedDict.__setitem__ if isinstance(value, collections.OrderedDict) else dict.__setitem__
    for key, item in content.items():
        put(value, key, item)


def _put_defaultdict(value: Any, content: tuple[dict[Any, Any], Any]) -> None:
    items, value.default_factory = content
    _put_dict(value, items)


def _put_set(value: set[Any], content: set[Any]) -> None:
    set.clear(value)
    set.update(value, content)


def _put_slice(value: Any, content: Any) -> None:
    value[:] = content


def _put_deque(value: collections.deque[Any], content: list[Any]) -> None:
    value.clear()
    value.extend(content)


def _put_arguments(value: BaseException, content: tuple[Any, ...]) -> None:
    value.args = content


def _set(name: str) -> Callable[[Any, Any], None]:
    return lambda value, content: setattr(value, name, content)


def _put_attributes(value: Any, state: State) -> None:
    if state.exchanged:
        object.__setattr__(value, "__dict__", state.attributes)
    elif state.attributes is not None:
        own = object.__getattribute__(value, "__dict__")
        own.clear()
        own.update(state.attributes)
    # Past the class's own rules: a frozen dataclass, say, refuses the usual way.
    filled = attributes(value)[1]
    for name, slot in slots(type(value)).items():
        if name in state.slots:
            slot.__set__(value, state.slots[name])
        elif name in filled:
            slot.__delete__(value)


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


_CONTENTS: Final[dict[str, _Content]] = {
    "pandas": _Content(_shallow, lambda _value, _content: None),
    "index": _Content(_index_content, _put_index),
    "ndarray": _Content(lambda v: v.view(), _put_array),
    "bits": _Content(lambda v: v.state, _set("state")),
    "generator": _Content(
        lambda v: v.bit_generator.state, lambda v, content: setattr(v.bit_generator, "state", content)
    ),
    "legacy generator": _Content(lambda v: v.get_state(legacy=False), lambda v, content: v.set_state(content)),
    "random": _Content(lambda v: v.getstate(), lambda v, content: v.setstate(content), has_attributes=True),
    "text": _Content(lambda v: (v.getvalue(), v.tell()), _put_text),
    "function": _Content(_function_content, _put_function, has_attributes=True),
    "dispatcher": _Content(lambda v: dict(v.registry), _put_dispatcher),
    "class": _Content(_class_content, _put_class),
    "closure": _Content(lambda v: (v.cell_contents,), _put_cell),
    "module": _Content(
        lambda v: {k: x for k, x in vars(v).items() if not k.startswith("__")},
        lambda v, content: _put_names(v, content, set()),
    ),
    "defaultdict": _Content(lambda v: (dict(v), v.default_factory), _put_defaultdict, has_attributes=True),
    "dict": _Content(dict, _put_dict, has_attributes=True),
    "list": _Content(list, _put_slice, has_attributes=True),
    "set": _Content(set, _put_set, has_attributes=True),
    "bytearray": _Content(bytes, _put_slice, has_attributes=True),
    "deque": _Content(list, _put_deque, has_attributes=True),
    "array": _Content(lambda v: v[:], _put_slice, has_attributes=True),
    # Its attributes are part of what it gives and takes for pickling.
    "partial": _Content(lambda v: v.__reduce__()[2], lambda v, content: v.__setstate__(content)),
    "exception": _Content(lambda v: v.args, _put_arguments, has_attributes=True),
    "instance": _Content(lambda _: None, lambda _value, _content: None, has_attributes=True),
}
