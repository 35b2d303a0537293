"""What code changes outside of the notebook, where a hit could not do it again.

A setting of the process, an attribute of an installed class, a converter registered with a library: none of these
is in the namespace, and few can be read back. Code that is seen to change one is a bypass.
What :mod:`prefect_cache.cells.state` puts back on a hit is no such thing.
"""

from __future__ import annotations

import ast
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from prefect_cache import modules
from prefect_cache.cells.named import importable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

REMEDY: Final = "do that in a cell of its own, without the magic"

RESTORED: Final = frozenset(
    {"sys.path", "os.environ", "warnings.filters", "mpl.rcParams", "matplotlib.rcParams", "plt.rcParams"}
)
"""What may be set in a module: the state that a hit puts back."""

CALLS: Final = frozenset(
    {
        *("logging.basicConfig", "logging.captureWarnings", "logging.setLoggerClass", "logging.addLevelName"),
        *("config.dictConfig", "config.fileConfig"),
        *("locale.setlocale", "signal.signal", "signal.alarm", "atexit.register", "atexit.unregister"),
        *("sys.setrecursionlimit", "sys.settrace", "sys.setprofile", "sys.setswitchinterval", "os.umask", "os.nice"),
        *("gc.disable", "gc.enable", "gc.freeze", "faulthandler.enable", "socket.setdefaulttimeout"),
        *("asyncio.set_event_loop_policy", "nest_asyncio.apply", "multiprocessing.set_start_method"),
        *("tqdm.pandas", "plt.ion", "plt.ioff", "plt.switch_backend", "matplotlib.use"),
        *("mpl.use", "torch.manual_seed", "torch.set_default_dtype", "random.set_seed", "config.update"),
        *("pl.set_random_seed", "polars.set_random_seed", "utils.set_random_seed", "pl.enable_string_cache"),
        *("copyreg.pickle", "copyreg.constructor", "mimetypes.add_type", "csv.field_size_limit"),
    },
)
"""Calls that change the process, and not only what :mod:`prefect_cache.cells.state` puts back."""

_REGISTERING: Final = ("register", "unregister")
"""How functions and methods begin that tell a library of something."""


def call(dotted: str) -> str:
    """Return what is wrong with a call of a function so named; nothing where it is none of these."""
    known = ".".join(dotted.split(".")[-2:]) in CALLS
    return f"{dotted}() changes the process, which a hit could not do again" if known else ""


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Yield the calls in code that change the process, with the names by which it does so."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and call(dotted := dotted_name(node.func)):
            yield dotted, node


def setting(dotted: str) -> str:
    """Return what is wrong with setting an attribute of something that is installed."""
    return f"it sets {dotted}, which a hit could not do again"


def remedy(reason: str) -> str:
    """Return the way out of a bypass for this reason: code that is out of sight, or one of the reasons of this file."""
    return REMEDY if reason.endswith("a hit could not do again") else "name what it reads, so that it can be seen"


def done_by(tree: ast.AST, namespace: Mapping[str, object]) -> str:
    """Return what a cell that has run did to something installed, by its source and the namespace; mostly nothing."""
    for dotted, registers in _touched(tree):
        if is_outside(dotted.split("."), namespace):
            head, _, last = dotted.rpartition(".")
            return f"it calls {head}.{last}(), which a hit could not do again" if registers else setting(dotted)
    return ""


def settings(tree: ast.AST) -> list[str]:
    """Return the attributes that code sets or deletes by name, ``a.b.c`` each, in whatever function."""
    return [dotted for dotted, registers in _touched(tree) if not registers]


def _touched(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Yield the attributes that code sets, and the functions by which it registers something (with True)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            yield dotted_name(node), False
        elif isinstance(node, ast.Call):
            name = dotted_name(node.func)
            if name in {"setattr", "delattr"} and node.args and (owner := dotted_name(node.args[0])):
                yield f"{owner}.{_text(node.args[1:2])}", False
            elif name.rpartition(".")[2].startswith(_REGISTERING):
                yield name, True


def _text(nodes: Sequence[ast.expr]) -> str:
    named = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return named[0] if named else "..."


def dotted_name(node: ast.AST) -> str:
    """Return ``a.b.c`` for that expression; an unknown head is left out (``.query`` for ``f().query``)."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted_name(node.value)}.{node.attr}"
    return ""


def is_outside(words: Sequence[str], namespace: Mapping[str, object]) -> bool:
    """Tell whether an attribute, ``a.b.c`` as words, belongs to an installed module or class or to what that holds."""
    head, *inner = words[:-1] or [""]
    if not head or head not in namespace or ".".join(words) in RESTORED:
        return False
    owner: Any = namespace[head]
    within = _is_installed(owner)
    for name in inner:
        held = vars(owner) if isinstance(owner, ModuleType | type) else None
        owner = held.get(name) if held is not None else getattr(owner, name, None) if within else None
        within = within or _is_installed(owner)
    return within and not _is_put_back(owner)


def _is_installed(value: object) -> bool:
    if isinstance(value, ModuleType):
        return value.__name__ != "__main__" and modules.origin(value.__name__) in {"installed", "python"}
    return isinstance(value, type) and importable(value)


def _is_put_back(owner: object) -> bool:
    # pd.options.display.max_rows = 10: pandas gives its options as attributes of objects of its own.
    pandas = sys.modules.get("pandas")
    return pandas is not None and type(owner) is type(pandas.options)
