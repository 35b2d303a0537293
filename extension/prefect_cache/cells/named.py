"""What is installed, as its name: a function or class that any process finds again under it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from prefect_cache import modules
from prefect_cache.cells.walk import Shape, Walk
from prefect_cache.digests import combine

if TYPE_CHECKING:
    from prefect_cache.model import Json


def kind_name(cls: Any) -> str:
    """Return the full name of a class or function for people and digests."""
    return f"{cls.__module__}.{cls.__qualname__}"


def asked(value: Any, name: str) -> Any:
    """Return an attribute of any object; None where it has none, or its class raises something when it is asked."""
    try:
        return getattr(value, name, None)
    except Exception:  # noqa: BLE001 - a class that is not ours may raise anything; then it has no answer
        return None


def importable(value: Any) -> bool:
    """Tell whether a function or class of an installed package can be found again by its name."""
    module = asked(value, "__module__")
    return isinstance(module, str) and modules.origin(module) in ("installed", "python") and found_by_name(value)


def found_by_name(value: Any) -> bool:
    """Tell whether a function or class is what its module holds under its name."""
    module, qualname = asked(value, "__module__"), asked(value, "__qualname__")
    if not isinstance(module, str) or not isinstance(qualname, str):
        return False
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found is value


def bound_in_module(method: Any) -> str:
    """Return the name of a method that a module offers as its function, bound to an object that it hides; else nothing.

    ``random.random`` and ``numpy.random.rand`` are bound to the process's generator, whose state is not their content.
    """
    name = getattr(method, "__name__", "")
    for module in (getattr(method, "__module__", None), type(method.__self__).__module__):
        known = isinstance(module, str) and modules.origin(module) in ("installed", "python")
        if known and getattr(sys.modules.get(module), name, None) == method:  # type: ignore[arg-type]
            return f"{module}.{name}"
    return ""


def by_name(value: Any, walk: Walk) -> Shape:
    """Return the shape of something installed: its name; its package's version is met."""
    walk.met.package(value.__module__)
    name = kind_name(value)
    detail: dict[str, Json] = {"type": "class" if isinstance(value, type) else "function", "value": name}
    return Shape(combine("named", name), detail=lambda _: detail)
