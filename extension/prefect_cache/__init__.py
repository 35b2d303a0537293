"""Run notebook cells as Prefect tasks and restore what they produced, exactly, instead of computing it again.

In a notebook::

    %load_ext prefect_cache

    %%prefect_cache
    orders = load_orders()

The names below are loaded when they are first used: importing the package loads neither pandas nor Prefect nor IPython.

Attributes
----------
last
    The last cell's outcome: ``.status`` is "hit", "miss", "refresh", "bypass" or "failed"; ``.key``, ``.because`` and
    ``.seconds`` say more. None before the first cell.
trust
    ``trust(key_file)`` also believes entries that this key has signed, for a team that shares a store.
fingerprint_for
    ``@fingerprint_for(MyType)`` over a function that returns a simpler value: it stands for such an object in keys.
fingerprint
    The content digest of one value.
cell
    A Prefect ``task`` whose body is a notebook's cell, as ``%prefect_cache export`` writes it.
cached
    A Prefect ``task`` with Arrow results and keys by content.
ArrowSerializer
    Prefect's serializer "arrow".
DataFrameInputs, CodeAndGlobals
    Prefect cache policies by the content of inputs, and by the code that a task reaches.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .cache_policies import CodeAndGlobals, DataFrameInputs, cached
    from .capture import Shell
    from .cells.fingerprint import fingerprint
    from .cells.fingerprint import register as fingerprint_for
    from .flows import cell
    from .magics import Last
    from .serializers import ArrowSerializer
    from .store.trust import trust

    last: Last | None

__all__ = [
    "ArrowSerializer",
    "CodeAndGlobals",
    "DataFrameInputs",
    "cached",
    "cell",
    "fingerprint",
    "fingerprint_for",
    "last",
    "load_ipython_extension",
    "trust",
    "unload_ipython_extension",
]

_HOMES: Final = {
    "ArrowSerializer": ("serializers", "ArrowSerializer"),
    "CodeAndGlobals": ("cache_policies", "CodeAndGlobals"),
    "DataFrameInputs": ("cache_policies", "DataFrameInputs"),
    "cached": ("cache_policies", "cached"),
    "cell": ("flows", "cell"),
    "fingerprint": ("cells.fingerprint", "fingerprint"),
    "fingerprint_for": ("cells.fingerprint", "register"),
    "trust": ("store.trust", "trust"),
}
"""Where each public name lives, and what it is called there."""


def __getattr__(name: str) -> Any:
    if name == "last":
        # Made anew for each look; and where no magic was ever loaded, IPython need not be.
        magics = sys.modules.get(f"{__name__}.magics")
        return None if magics is None else magics.last()
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(f".{module}", __name__), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_ipython_extension(shell: Shell) -> None:
    """Give the shell ``%%prefect_cache`` and ``%prefect_cache``; what ``%load_ext prefect_cache`` calls."""
    from .magics import load

    load(shell)


def unload_ipython_extension(shell: Shell) -> None:
    """Take them away and leave the shell as it was; what ``%unload_ext prefect_cache`` calls."""
    from .magics import unload

    unload(shell)
