"""What instances hold, past what their classes say of it: in their ``__dict__``, and in slots.

A class may leave something out of its pickles, make its instances anew when they are read, or answer by code of its
own when an attribute is asked for. Here none of its methods is called; and a ``__dict__`` that others hold as well
(``self.__dict__ = self``, ``names = vars(one)``) is an object like any other.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import pickle
import sys
import types
from typing import TYPE_CHECKING, Any, Final, cast

from prefect_cache import modules

if TYPE_CHECKING:
    from collections.abc import Mapping

HEAP_TYPE: Final = 1 << 9
"""The flag of classes that are made at run time."""

_OWN_WAYS: Final = (
    *("__reduce_ex__", "__reduce__", "__getnewargs_ex__", "__getnewargs__"),
    *("__getstate__", "__setstate__"),
)


def has_own_pickles(cls: type) -> bool:
    """Tell whether a class says itself how it is pickled, though all that its instances hold is in attributes."""
    return _says_how(cls) and holds_attributes_alone(cls)


def _says_how(cls: type) -> bool:
    return any(getattr(cls, way, None) is not getattr(object, way, None) for way in _OWN_WAYS)


def holds_attributes_alone(cls: type) -> bool:
    """Tell whether all that the instances of a class hold is in attributes."""
    # Members of enumerations are made with their class.
    return not isinstance(cls, enum.EnumMeta) and all(map(is_of_python, cls.__mro__[:-1]))


def is_not_yet_pickled(cls: type) -> bool:
    """Tell whether a class refuses to be pickled though attributes hold all of it: patsy (1.0) says "not yet"."""
    return modules.package_name(cls.__module__) == "patsy" and holds_attributes_alone(cls)


def is_of_python(cls: type) -> bool:
    """Tell whether a ``class`` statement made this class; one that is made in C may have content out of sight."""
    of_c = (types.WrapperDescriptorType, types.MethodDescriptorType)
    own = (member for member in vars(cls).values() if isinstance(member, of_c))
    return bool(cls.__flags__ & HEAP_TYPE) and all(member.__objclass__ is not cls for member in own)


def slots(cls: type) -> dict[str, types.MemberDescriptorType]:
    """Return the slots that ``class`` statements declare for the instances of `cls`, by name."""
    found: dict[str, types.MemberDescriptorType] = {}
    for base in cls.__mro__:
        if base.__flags__ & HEAP_TYPE:
            held = {name: slot for name, slot in vars(base).items() if type(slot) is types.MemberDescriptorType}
            found = {**held, **found}
    return found


def attributes(value: object) -> tuple[dict[str, object] | None, dict[str, object]]:
    """Return what an instance holds in its ``__dict__``, None where it has none, and what in slots.

    No method of the class's own is asked: ``__getattr__``, or a property of a slot's name, may say anything.
    """
    own = own_dict(value)
    filled = {}
    for name, slot in slots(type(value)).items():
        with contextlib.suppress(AttributeError):  # nothing was put into it
            filled[name] = slot.__get__(value)
    return None if own is None else dict(own), filled


def own_dict(value: object) -> dict[str, object] | None:
    """Return the ``__dict__`` of an instance, None where it has none."""
    try:
        own = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return None
    return own if isinstance(own, dict) else None


def _references(own: dict[str, object] | None) -> int:
    return 0 if own is None else sys.getrefcount(own)


_ALONE: Final = functools.partial(int)
_UNSHARED: Final = _references(own_dict(_ALONE))
"""How often a ``__dict__`` is referred to that its instance alone holds, while :func:`_references` counts."""


def has_shared_dict(value: object) -> bool:
    """Tell whether others than an instance hold its ``__dict__``: ``self.__dict__ = self``, ``names = vars(one)``."""
    return _references(own_dict(value)) > _UNSHARED


def reduced_with_dict(value: Any) -> tuple[Any, ...] | None:
    """Reduce an instance with the very ``__dict__`` that it has; None where its class has a way of its own."""
    own = own_dict(value)
    if isinstance(value, type | types.FunctionType | types.ModuleType | enum.Enum) or _says_how(type(value)):
        return None
    holder = next((vars(base)["__dict__"] for base in type(value).__mro__ if "__dict__" in vars(base)), None)
    if not isinstance(holder, types.GetSetDescriptorType):  # else it cannot be set
        return None
    maker, arguments, *rest = cast("tuple[Any, ...]", value.__reduce_ex__(pickle.HIGHEST_PROTOCOL))
    state, *items = (*rest, None, None, None)[:3]
    # Of what is empty Python gives no state.
    dicts = state if type(state) is tuple else (own if state is None else state, {})
    if len(dicts) != 2 or dicts[0] is not own:  # noqa: PLR2004 - the attributes, and the slots
        return None
    return maker, arguments, dicts, *items, put_dict


def forgets_attributes(cls: type) -> bool:
    """Tell whether a class is the user's, and a base of it that is not has a way of its own with pickles.

    Arrays, dates and decimal numbers forget the attributes of subclasses: ``class Measured(np.ndarray)``, ``x.unit``.
    """
    if modules.origin(cls.__module__) != "local":
        return False
    says = next((base for base in cls.__mro__ if {"__reduce__", "__reduce_ex__"} & vars(base).keys()), object)
    return says is not object and modules.origin(says.__module__) != "local"


def reduced_with_attributes(value: Any) -> tuple[Any, ...] | None:
    """Reduce an instance of such a class with its attributes; None where they are in its pickle already."""
    own = own_dict(value)
    reduced = value.__reduce_ex__(pickle.HIGHEST_PROTOCOL) if own else None
    if own is None or not isinstance(reduced, tuple):
        return None
    maker, arguments, *rest = reduced
    state, *items = (*rest, None, None, None)[:3]
    told = [part for part in (state if type(state) is tuple else (state,)) if isinstance(part, dict)]
    if len(rest) > len(items) + 1 or any(part.keys() >= own.keys() for part in told):
        return None
    return maker, arguments, (state, own), *items, put_beside


def put_beside(value: Any, state: tuple[object, dict[str, object]]) -> None:
    """Give a restored instance what its base keeps, and the attributes beside it; called from pickles."""
    kept, own = state
    if kept is not None:
        value.__setstate__(kept)
    put_contents(value, own)


def put_dict(value: object, state: tuple[dict[str, object], dict[str, object] | None]) -> None:
    """Give a restored instance a ``__dict__`` that others hold as well; called from pickles."""
    own, filled = state
    object.__setattr__(value, "__dict__", own)
    put_contents(value, filled or {})


_PANDAS_OWN: Final = frozenset(
    {
        *("_mgr", "_item_cache", "_attrs", "_flags", "_is_copy", "_cacher", "_name"),
        *("_index", "_cache", "_typ", "_metadata"),
    }
)
"""What pandas itself keeps in the ``__dict__`` of a DataFrame or Series."""


def frame_attributes(value: Any) -> dict[str, object]:
    """Return the attributes that somebody has given to a DataFrame or Series: ``orders.name = "2013"``.

    Its own pickles and copies forget those that its class does not list in ``_metadata``.
    """
    # pandas 2 keeps accessors that were asked for, as in ``names.str.upper()``.
    return {
        name: held
        for name, held in vars(value).items()
        if name not in _PANDAS_OWN and not _is_accessor(type(value), name)
    }


def _is_accessor(cls: type, name: str) -> bool:
    found = next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
    return type(found).__name__ == "CachedAccessor"


def put_frame_attributes(value: Any, own: Mapping[str, object]) -> None:
    """Give a DataFrame or Series these attributes and no others, past its class's rules about setting them."""
    for name in frame_attributes(value).keys() - own.keys():
        object.__delattr__(value, name)
    put_contents(value, dict(own))


def contents(value: object) -> dict[str, object]:
    """Return the attributes of an instance, those in slots included."""
    own, filled = attributes(value)
    return {**(own or {}), **filled}


def made_past_init(cls: type) -> object:
    """Return an instance of which no method of the class's has been called; called from pickles."""
    return object.__new__(cls)


def put_contents(value: object, state: dict[str, object]) -> None:
    """Give a restored instance its attributes, past all rules of its class about setting them; called from pickles."""
    filled = slots(type(value))
    for name, held in state.items():
        if name in filled:
            filled[name].__set__(value, held)
        else:
            object.__getattribute__(value, "__dict__")[name] = held
