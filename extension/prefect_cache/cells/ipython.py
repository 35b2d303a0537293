"""The magics of the notebook's own, which IPython keeps: ``@register_line_magic``, ``%alias_magic``.

What a cell runs by such a magic depends on what the magic calls, as it would on a function that it calls by name.
"""

from __future__ import annotations

import sys
from types import FunctionType, MethodType
from typing import Any, Final

from prefect_cache import modules
from prefect_cache.cells import commands
from prefect_cache.errors import Unfingerprintable


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


_SIGNS: Final = {"line": "%", "cell": "%%"}


def _registry() -> dict[str, dict[str, Any]]:
    shell = _shell()
    return {} if shell is None else shell.magics_manager.magics


def magics() -> dict[str, Any]:
    """Return what each magic calls with which IPython does not come, by its name with its sign."""
    named = {f"{_SIGNS[kind]}{name}": found for kind, held in _registry().items() for name, found in held.items()}
    return {magic: found for magic, found in named.items() if not _is_ipythons(magic, found)}


def users_magic(magic: str) -> Any:
    """Return the function that a magic of the notebook's own calls; None for those of IPython and of tools to measure.

    Raises
    ------
    Unfingerprintable
        For one of which nobody can tell what it does: that of a package, an alias, one that is handed all variables.
    """
    name = magic.lstrip("%")
    held = _registry().get("cell" if magic.startswith("%%") else "line", {})
    if name in commands.PYTHON or (found := held.get(name)) is None or _is_ipythons(magic, found):
        return None
    package = modules.package_name(_maker(found).__module__)
    if package in _IPYTHONS:
        reason = f"{magic} is an alias, whose meaning is the notebook's"
    elif modules.origin(package) != "local":
        reason = f"{magic} is a magic of {package}, which may keep what it does to itself"
    elif not isinstance(found, FunctionType):
        reason = f"{magic} belongs to an object that reaches all variables"
    elif getattr(found, "needs_local_scope", False):
        reason = f"{magic} is handed all variables"
    else:
        return found
    raise Unfingerprintable(reason, name=magic, remedy="write what it does in Python")


_IPYTHONS: Final = frozenset({"IPython", "ipykernel", "matplotlib_inline"})


def _maker(found: Any) -> Any:
    if isinstance(found, FunctionType):
        return found
    # To ask a `LazyMagic` (IPython 9.18) for any attribute is to load what it stands for.
    return type(found.__self__ if isinstance(found, MethodType) else found)


def _is_ipythons(magic: str, found: Any) -> bool:
    """Tell whether IPython comes with a magic; its objects for them change at their first use."""
    name, maker = magic.lstrip("%"), _maker(found)
    if maker.__name__ == "Alias":
        usual = {(known, command.replace(" --color", "")) for known, command in _shell().alias_manager.default_aliases}
        return (name, found.cmd.replace(" --color", "")) in usual
    if maker.__name__ == "MagicAlias":
        return commands.is_known(name)
    return modules.package_name(maker.__module__) in _IPYTHONS
