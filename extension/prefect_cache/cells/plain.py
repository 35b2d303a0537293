"""Shapes of Python's own values: containers, scalars with parts, instances by their state.

Nothing here runs a user's code, except the ``__reduce_ex__`` (``__getstate__`` ...) by which a class itself
says what its state is.
"""

from __future__ import annotations

import collections
import copyreg
import datetime as dt
import functools
import operator
import os
import sys
import types
import typing
from array import array
from itertools import compress
from typing import TYPE_CHECKING, Any, cast

from prefect_cache import modules
from prefect_cache.cells import leaves
from prefect_cache.cells.named import bound_in_module, by_name, importable, kind_name
from prefect_cache.cells.walk import Shape, Walk, truncated
from prefect_cache.codecs.instances import contents, has_own_pickles, is_not_yet_pickled
from prefect_cache.codecs.pickled import TYPE_PARAMETER_OPTIONS
from prefect_cache.digests import Hasher, combine, digest
from prefect_cache.errors import Unfingerprintable, with_article

if TYPE_CHECKING:
    import enum
    import random
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from prefect_cache.model import Digest, Json, Step

    Handler = Callable[[Any, Walk], Shape]
    Detail = Callable[[Sequence[Digest]], dict[str, Json]]

FEW = 10_000
"""Texts of a container that are looked at as names of files; more are data."""
LISTED = 100
"""Parts that a detail names."""


def opaque(value: object, why: str = "", remedy: str = "") -> Unfingerprintable:
    """Return the error for a value that no digest can stand for."""
    name = kind_name(type(value)).removeprefix("builtins.")
    remedy = remedy or "Make it inside the cell, or leave it out with --ignore."
    return Unfingerprintable(
        f"is {with_article(name)}{', ' + why if why else ', whose content cannot be read'}", remedy=remedy
    )


# ------------------------------------------------------------------------------------------ sequences, mappings, sets


def run(tag: str, items: Sequence[object], walk: Walk, *, mutable: bool, extra: Sequence[object] = ()) -> Shape:
    """Return the shape of a sequence; `extra` are further children, at ``("part", i)``."""
    kinds = leaves.codes(items)
    if len(items) <= FEW and leaves.TEXT in kinds:
        walk.met.strings(items)
    label = digest(f"{tag}:{len(extra)}:{leaves.run_digest(items, kinds)}".encode())
    places = leaves.compounds(items, kinds)
    if not places and not extra:
        return Shape(label, mutable=mutable, detail=_run_detail(tag, items))
    children = items if len(places) == len(items) else [items[i] for i in places]
    steps: list[Step] = [("index", i) for i in places]
    if extra:
        children, steps = [*children, *extra], [*steps, *(("part", str(i)) for i in range(len(extra)))]
    return Shape(label, children, steps, mutable=mutable, detail=_run_detail(tag, items))


def _run_detail(tag: str, items: Sequence[object]) -> Detail:
    return lambda _slots: {"type": tag, "length": len(items)}


def _list(value: list[object], walk: Walk) -> Shape:
    return run("list", value, walk, mutable=True)


def _tuple(value: tuple[object, ...], walk: Walk) -> Shape:
    return run("tuple", value, walk, mutable=False)


def _deque(value: collections.deque[object], walk: Walk) -> Shape:
    return run(f"deque {value.maxlen}", list(value), walk, mutable=True)


def mapping(tag: str, value: Mapping[Any, object], walk: Walk, *, mutable: bool, extra: Sequence[object] = ()) -> Shape:
    """Return the shape of a mapping in its order; keys without parts are hashed as a run, and so are such values."""
    keys, items = list(value.keys()), list(value.values())
    shape = run(tag, items, walk, mutable=mutable, extra=extra)
    kinds = leaves.codes(keys)
    if len(keys) <= FEW and leaves.TEXT in kinds:
        walk.met.strings(keys)
    shape.label = digest(f"mapping:{leaves.run_digest(keys, kinds)}{shape.label}".encode())
    if shape.steps:
        shape.steps = [("key", step[1]) if step[0] == "index" else step for step in shape.steps]
    if places := leaves.compounds(keys, kinds):
        shape.children = [*shape.children, *(keys[i] for i in places)]
        shape.steps = [*shape.steps, *(("part", f"key {i}") for i in places)]
    shape.detail = _mapping_detail(tag, keys, items)
    return shape


def _mapping_detail(tag: str, keys: Sequence[object], items: Sequence[object]) -> Detail:
    def detail(slots: Sequence[Digest]) -> dict[str, Json]:
        named: dict[str, Json] = {}
        deeper = iter(slots)
        for key, item in list(zip(keys, items, strict=True))[:LISTED]:
            kind = leaves.code(item)
            digest = next(deeper, "") if kind == leaves.COMPOUND else leaves.leaf_digest(item, kind)
            named[truncated(repr(key), 60) if leaves.code(key) != leaves.COMPOUND else type(key).__name__] = digest[:12]
        return {"type": tag, "length": len(keys), "keys": named}

    return detail


def _dict(value: dict[object, object], walk: Walk) -> Shape:
    return mapping("dict", value, walk, mutable=True)


def _ordered(value: collections.OrderedDict[object, object], walk: Walk) -> Shape:
    return mapping("OrderedDict", value, walk, mutable=True)


def _defaultdict(value: collections.defaultdict[object, object], walk: Walk) -> Shape:
    return mapping("defaultdict", value, walk, mutable=True, extra=(value.default_factory,))


def _proxy(value: types.MappingProxyType[Any, object], walk: Walk) -> Shape:
    return mapping("mappingproxy", value, walk, mutable=False)


def members(tag: str, value: Any, walk: Walk, *, mutable: bool) -> Shape:
    """Return the shape of a set; leaves are sorted by type and then by their own order."""
    items = list(value)
    kinds = leaves.codes(items)
    if len(items) <= FEW and leaves.TEXT in kinds:
        walk.met.strings(items)
    if len(kinds) == 1 and kinds[0] in _SORTABLE:
        return Shape(
            combine(tag, leaves.run_digest(sorted(items), kinds)), mutable=mutable, detail=_run_detail(tag, items)
        )
    if len(kinds) == 1:
        kinds *= len(items)
    simple = sorted(leaves.leaf_digest(i, k) for i, k in zip(items, kinds, strict=True) if k != leaves.COMPOUND)
    deeper = list(compress(items, [k == leaves.COMPOUND for k in kinds]))
    label = combine(tag, "mixed", len(items), "".join(simple))
    steps: list[Step] = [("member", "")] * len(deeper)  # the trail puts the element's digest here
    return Shape(label, deeper, steps, mutable=mutable, unordered=True, detail=_run_detail(tag, items))


_SORTABLE = (2, 3, 6, 7)
"""Codes of leaves with a total order in which equal means identical: bools, ints, texts, bytes."""


def _set(value: set[object], walk: Walk) -> Shape:
    return members("set", value, walk, mutable=True)


def _frozenset(value: frozenset[object], walk: Walk) -> Shape:
    return members("frozenset", value, walk, mutable=False)


# ------------------------------------------------------------------------------------------ scalars with parts, buffers


def _slice(value: slice, walk: Walk) -> Shape:
    return run("slice", (value.start, value.stop, value.step), walk, mutable=False)


def _range(value: range, walk: Walk) -> Shape:
    return run("range", (value.start, value.stop, value.step), walk, mutable=False)


def _bytearray(value: bytearray, _walk: Walk) -> Shape:
    return Shape(Hasher(combine("bytearray").encode()).update(value).hexdigest(), mutable=True)


def _memoryview(value: memoryview, _walk: Walk) -> Shape:
    data = value if value.c_contiguous else value.tobytes()
    label = combine("memoryview", value.format, repr(value.shape), Hasher(data).hexdigest())
    return Shape(label, mutable=not value.readonly)


def _array(value: array[Any], _walk: Walk) -> Shape:
    return Shape(combine("array", value.typecode, Hasher(value).hexdigest()), mutable=True)


def _zoned(value: dt.datetime | dt.time, walk: Walk) -> Shape:
    naive = value.replace(tzinfo=None)
    return run(type(value).__name__, (naive, value.tzinfo), walk, mutable=False)


def _timezone(value: dt.timezone, _walk: Walk) -> Shape:
    return Shape(combine("timezone", *map(repr, value.__getinitargs__())))  # type: ignore[attr-defined]


def _type_parameter(value: Any, walk: Walk) -> Shape:
    # Its own pickle is its name alone.
    told = [getattr(value, f"__{name}__", None) for name in ("constraints", *TYPE_PARAMETER_OPTIONS)]
    return run(type(value).__name__, (value.__name__, *told), walk, mutable=False)


def _new_type(value: typing.NewType, walk: Walk) -> Shape:
    return run("NewType", (value.__name__, value.__supertype__), walk, mutable=False)


def _object(_value: object, _walk: Walk) -> Shape:
    return Shape(combine("object"), mutable=False)


def _path(value: os.PathLike[str], walk: Walk) -> Shape:
    text = os.fspath(value)
    walk.met.strings([text])
    return Shape(
        combine("path", type(value).__name__, text), detail=lambda _: {"type": "Path", "value": truncated(text)}
    )


def _random(value: random.Random, walk: Walk) -> Shape:
    try:
        state: object = value.getstate()
    except NotImplementedError:  # SystemRandom has no state
        state = None
    return run("Random", (type(value), state), walk, mutable=True)


# ------------------------------------------------------------------------------------------ callables made of others


def _partial(value: functools.partial[Any], walk: Walk) -> Shape:
    # Not vars(): looking at a partial's dictionary makes one, and functools no longer flattens such a partial.
    own: dict[str, object] = cast("Any", value.__reduce__())[2][3] or {}
    names = ("func", "args", "keywords")
    shape = _attributes("partial", value, names, walk)
    shape.mutable = shape.shareable = True
    return _with_state(shape, value, own, list(shape.steps), walk)


def _method(value: types.MethodType, walk: Walk) -> Shape:
    if _is_shell(value.__self__):
        return Shape(combine("shell's", value.__func__.__qualname__))
    if name := bound_in_module(value):
        walk.met.package(name)
        return Shape(combine("builtin", name))
    return _attributes("method", value, ("__self__", "__func__"), walk)


def _property(value: property, walk: Walk) -> Shape:
    return _attributes("property", value, ("fget", "fset", "fdel", "__doc__"), walk)


def _wrapper(value: Any, walk: Walk) -> Shape:
    return _attributes(type(value).__name__, value, ("__func__",), walk)


def _cached_property(value: functools.cached_property[Any], walk: Walk) -> Shape:
    return _attributes("cached_property", value, ("func", "attrname"), walk)


def _lru_cache(value: Any, walk: Walk) -> Shape:
    """Return the shape of the function and the cache's size; what it holds follows from the function."""
    extra = {k: v for k, v in vars(value).items() if k not in functools.WRAPPER_ASSIGNMENTS}
    limits = tuple(value.cache_parameters().values()) if hasattr(value, "cache_parameters") else ()
    extra.pop("cache_parameters", None)
    extra.pop("__wrapped__", None)
    shape = _attributes("lru_cache", value, ("__wrapped__",), walk)
    shape.label = combine("lru_cache", repr(limits), shape.label)
    if extra:
        shape.label = combine("with attributes", *extra, shape.label)
        shape.children = [*shape.children, *extra.values()]
        shape.steps = [*shape.steps, *(("attr", name) for name in extra)]
    return shape


def _dispatch_method(value: functools.singledispatchmethod[Any], walk: Walk) -> Shape:
    return _attributes("singledispatchmethod", value, ("dispatcher", "func"), walk)


def _attributes(tag: str, value: object, names: Sequence[str], walk: Walk) -> Shape:
    shape = run(tag, [getattr(value, name) for name in names], walk, mutable=False)
    shape.steps = [("attr", names[int(i)]) for _, i in shape.steps]
    return shape


def _cell(value: types.CellType, walk: Walk) -> Shape:
    try:
        held = value.cell_contents
    except ValueError:
        return Shape(combine("empty cell"), mutable=True)
    shape = run("cell", (held,), walk, mutable=True)
    shape.steps = [("attr", "cell_contents")] * len(shape.steps)
    return shape


def _is_shell(value: object) -> bool:
    shell = sys.modules.get("IPython.core.interactiveshell")
    return shell is not None and isinstance(value, shell.InteractiveShell)


def _builtin(value: types.BuiltinMethodType, walk: Walk) -> Shape:
    """Return the shape of a C function by its name, or of the object that it is bound to."""
    owner = value.__self__
    if owner is None or isinstance(owner, types.ModuleType):
        module = value.__module__ or getattr(owner, "__name__", "")
        walk.met.package(module)
        return Shape(combine("builtin", module, value.__qualname__))
    if name := bound_in_module(value):
        return Shape(combine("builtin", name))
    shape = run("builtin method", (owner, value.__name__), walk, mutable=False)
    shape.steps = [("attr", "__self__")] * len(shape.steps)
    return shape


def _slot(value: Any, walk: Walk) -> Shape:
    """Return the shape of a C type's descriptor: its class and name."""
    owner: type = value.__objclass__
    walk.met.package(owner.__module__)
    return Shape(combine("descriptor", kind_name(type(value)), kind_name(owner), value.__name__))


def _method_wrapper(value: types.MethodWrapperType, walk: Walk) -> Shape:
    shape = run("method-wrapper", (value.__self__, value.__name__), walk, mutable=False)
    shape.steps = [("attr", "__self__")] * len(shape.steps)
    return shape


# ------------------------------------------------------------------------------------------ instances


def enum_member(value: enum.Enum, walk: Walk) -> Shape:
    """Return the shape of a member: its class, name and value."""
    shape = run("enum", (value.name, value.value), walk, mutable=False)
    steps: list[Step] = [("attr", "value")] * len(shape.steps)
    return _of_class(shape, type(value), steps, walk)


def subclass(base: type) -> Handler:
    """Return a handler for instances of subclasses of a builtin type: class, base's content, attributes."""

    def handler(value: Any, walk: Walk) -> Shape:
        plain = EXACT.get(base)
        state = state_of(value)
        if plain is None:
            shape = run("value", (BASES[base](value),), walk, mutable=bool(state))
        else:
            shape = plain(BASES[base](value), walk)
            shape.mutable = shape.mutable or bool(state)
        shape.shareable = shape.mutable
        steps = list(shape.steps)
        return _with_state(shape, value, state, steps, walk)

    return handler


def _items(value: Any) -> Any:
    # dict.items and not value.items: the content of the base, whatever the subclass shows
    return dict(dict.items(value))


BASES: dict[type, Callable[[Any], Any]] = {
    bool: bool,
    int: int.__int__,
    float: float.__float__,
    complex: lambda v: complex(v.real, v.imag),
    str: str.__str__,
    bytes: lambda v: bytes.join(b"", (memoryview(v),)),
    bytearray: lambda v: bytearray(memoryview(v)),
    list: lambda v: list(list.__iter__(v)),
    tuple: lambda v: tuple(tuple.__iter__(v)),
    collections.OrderedDict: lambda v: collections.OrderedDict(collections.OrderedDict.items(v)),
    dict: _items,
    set: lambda v: set(set.__iter__(v)),
    frozenset: lambda v: frozenset(frozenset.__iter__(v)),
    collections.deque: lambda v: collections.deque(collections.deque.__iter__(v), v.maxlen),
}


def _with_state(shape: Shape, value: object, state: Mapping[str, object], steps: list[Step], walk: Walk) -> Shape:
    names = sorted(state)
    attrs = run("attributes", [state[n] for n in names], walk, mutable=False)
    shape.label = combine("with", shape.label, attrs.label, *names)
    shape.children = [*shape.children, *attrs.children]
    steps += [("attr", names[int(i)]) for _, i in attrs.steps]
    return _of_class(shape, type(value), steps, walk)


def _of_class(shape: Shape, cls: type, steps: list[Step], walk: Walk) -> Shape:
    shape.label = combine("instance", kind_name(cls), shape.label)
    shape.children, shape.steps = [*shape.children, cls], [*steps, ("class", "")]
    walk.met.package(cls.__module__)
    return shape


DERIVED = {"pandas": ("_cache", "_item_cache", "_cacher"), "sklearn": ("_doc_link_template",)}
"""Attributes of some packages' instances that only remember what follows from the others."""


def state_of(value: object) -> dict[str, object]:
    """Return the attributes that an instance holds, in its ``__dict__`` and in slots."""
    state = contents(value)
    for name in DERIVED.get(type(value).__module__.partition(".")[0], ()):
        state.pop(name, None)
    return state


def instance(value: object, walk: Walk) -> Shape:
    """Return the shape of an instance: its class and state, as the class itself gives it if it does."""
    cls = type(value)
    if callable(value) and importable(value):
        return by_name(value, walk)
    if _plain(cls):
        try:
            object.__reduce_ex__(value, 4)  # refuses what has fields out of Python's sight (C, Rust)
        except TypeError as error:
            raise opaque(value) from error
        state = state_of(value)
        marker = not state and importable(cls)  # such as dataclasses.MISSING: one for all
        shape = Shape(combine("state"), mutable=not marker, detail=_attribute_detail(cls, state))
        return _with_state(shape, value, state, [], walk)
    if is_not_yet_pickled(cls) or _pickles_itself(cls):
        # A cell sees more of an object than its class would pickle.
        state = dict(_readable(value, walk))
        shape = Shape(combine("state"), mutable=True, detail=_attribute_detail(cls, state))
        return _with_state(shape, value, state, [], walk)
    return _reduced(value, walk)


def _pickles_itself(cls: type) -> bool:
    return modules.origin(cls.__module__) == "local" and has_own_pickles(cls)


def _readable(value: object, walk: Walk) -> Iterator[tuple[str, object]]:
    """Yield the attributes that have digests: a class that pickles itself may leave out a lock, say."""
    # Each object is tried once by all walks of one fingerprinter; nothing is left out of what leads back to it.
    left_out: dict[int, set[str]] = vars(walk.shape_of).setdefault("left_out", {})
    state = state_of(value)
    if id(value) not in left_out:
        left_out[id(value)] = set()
        for name, held in state.items():
            try:
                Walk(walk.shape_of).digest(held)
            except Unfingerprintable:
                left_out[id(value)].add(name)
    yield from ((name, held) for name, held in state.items() if name not in left_out[id(value)])


def _attribute_detail(cls: type, state: Mapping[str, object]) -> Detail:
    def detail(slots: Sequence[Digest]) -> dict[str, Json]:
        deeper = iter(slots)
        named: dict[str, Json] = {}
        for name in sorted(state)[:LISTED]:
            kind = leaves.code(state[name])
            digest = next(deeper, "") if kind == leaves.COMPOUND else leaves.leaf_digest(state[name], kind)
            named[name] = digest[:12]
        return {"type": cls.__qualname__, "attributes": named}

    return detail


_STATE_METHODS = ("__reduce_ex__", "__reduce__", "__getstate__", "__getnewargs_ex__", "__getnewargs__")


def _plain(cls: type) -> bool:
    """Tell whether a class leaves it to Python what its instances' state is."""
    own = any(getattr(cls, m, None) is not getattr(object, m, None) for m in _STATE_METHODS)
    return not own and cls not in copyreg.dispatch_table


_WITH_SETTER = 6
"""Parts of what ``__reduce_ex__`` returns where the last one is a function that sets the state."""


def _reduced(value: object, walk: Walk) -> Shape:
    """Return the shape of what ``copy`` and ``pickle`` would take for the value's state."""
    cls = type(value)
    reducer = copyreg.dispatch_table.get(cls)
    try:
        made = reducer(value) if reducer else value.__reduce_ex__(4)
    except Unfingerprintable:
        raise
    except Exception as error:  # a class may raise anything from here
        raise opaque(value, f"whose content cannot be read ({truncated(str(error), 100)})") from error
    if isinstance(made, str):
        walk.met.package(cls.__module__)
        return Shape(combine("global", kind_name(cls), made))
    maker, args, state, items, pairs = (*made, None, None, None, None)[:5]
    if type(state) is dict and not state:
        state = None  # an exception has an empty __dict__ once somebody has asked for it
    if items is not None:
        items = list(items)
    if pairs is not None:
        pairs = dict(pairs)
    setter = made[-1] if len(made) == _WITH_SETTER else None
    if setter is not None:
        maker = (maker, setter)
    held = getattr(value, "__dict__", {})
    if isinstance(state, dict) and state and all(isinstance(k, str) for k in state):
        named = {k: v for k, v in state.items() if k not in DERIVED.get(cls.__module__.partition(".")[0], ())}
        shape = run("reduced", (maker, args, items, pairs), walk, mutable=True)
        steps: list[Step] = [("made", f"its pickle {i}") for _, i in shape.steps]
        shape = _with_state(shape, value, named, steps, walk)
        own = {name for name in named if held.get(name) is named[name]}
        shape.steps = [s if s[0] != "attr" or s[1] in own else ("made", f"state {s[1]}") for s in shape.steps]
        shape.detail = _attribute_detail(cls, named)
        return shape
    shape = run("reduced", (maker, args, items, pairs, state), walk, mutable=True)
    steps = [("made", f"its pickle {i}") for _, i in shape.steps]
    return _of_class(shape, cls, steps, walk)


EXACT: dict[type, Handler] = {
    list: _list,
    tuple: _tuple,
    dict: _dict,
    set: _set,
    frozenset: _frozenset,
    collections.deque: _deque,
    collections.OrderedDict: _ordered,
    collections.defaultdict: _defaultdict,
    types.MappingProxyType: _proxy,
    slice: _slice,
    range: _range,
    bytearray: _bytearray,
    memoryview: _memoryview,
    array: _array,
    dt.datetime: _zoned,
    dt.time: _zoned,
    dt.timezone: _timezone,
    object: _object,
    functools.partial: _partial,
    functools.cached_property: _cached_property,
    functools.singledispatchmethod: _dispatch_method,
    functools._lru_cache_wrapper: _lru_cache,  # noqa: SLF001 - the type has no public name
    types.MethodType: _method,
    types.BuiltinMethodType: _builtin,
    types.CellType: _cell,
    types.MethodWrapperType: _method_wrapper,
    property: _property,
    staticmethod: _wrapper,
    classmethod: _wrapper,
    types.WrapperDescriptorType: _slot,
    types.MethodDescriptorType: _slot,
    types.ClassMethodDescriptorType: _slot,
    types.MemberDescriptorType: _slot,
    types.GetSetDescriptorType: _slot,
    operator.attrgetter: _reduced,
    typing.TypeVar: _type_parameter,
    typing.ParamSpec: _type_parameter,
    typing.TypeVarTuple: _type_parameter,
    typing.NewType: _new_type,
}
"""What needs no look at the class's bases."""
