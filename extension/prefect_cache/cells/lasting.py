"""What code changes outside of the notebook, where a hit could not do it again.

A setting of the process, an attribute of an installed class, a converter registered with a library: none of these
is in the namespace, and few can be read back. Code that is seen to change one is a bypass.
What :mod:`prefect_cache.cells.state` puts back on a hit is no such thing.
"""

from __future__ import annotations

import ast
import sys
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final, Literal

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
        *("mpl.use", "torch.set_default_dtype", "random.set_seed", "config.update"),
        *("pl.set_random_seed", "polars.set_random_seed", "utils.set_random_seed", "pl.enable_string_cache"),
        *("copyreg.pickle", "copyreg.constructor", "mimetypes.add_type", "csv.field_size_limit"),
    },
)
"""Calls that change the process, and not only what :mod:`prefect_cache.cells.state` puts back."""

_REGISTERING: Final = ("register", "unregister")
"""How functions and methods begin that tell a library of something."""

_SETTING: Final = ("set_", "use_", "enable", "disable")
"""How the functions begin by which a library's settings are made: ``xr.set_options(...)``, ``theme.enable(...)``."""

_ARRANGING: Final = ("set", "install", "init", "patch", "unpatch", "activate", "configure", "autolog", "extension")
"""How those begin that are called for nothing else, by themselves: ``calendar.setfirstweekday(6)``, ``rich.install()``.

As a part of something larger they would be functions like others: ``setdiff1d(a, b)``.
"""

_PUT_BACK: Final = frozenset({"pandas", "numpy", "matplotlib", "seaborn", "sklearn", "warnings", "decimal", "random"})
"""Packages whose settings and generators :mod:`prefect_cache.cells.state` puts back, but for those of `CALLS`."""


def call(dotted: str) -> str:
    """Return what is wrong with a call of a function so named; nothing where it is none of these."""
    known = ".".join(dotted.split(".")[-2:]) in CALLS
    return f"{dotted}() changes the process, which a hit could not do again" if known else ""


def calls(tree: ast.AST, namespace: Mapping[str, object]) -> Iterator[tuple[str, ast.Call]]:
    """Yield the calls in code that change the process or an object of a library, each with what it is about.

    A later call about the same takes the place of an earlier one: ``xr.set_options(keep_attrs=)`` of one with another
    value, ``csv.register_dialect('pipes')`` of one that gives that name to another dialect.
    """
    for how, dotted, node in _touched(tree):
        if isinstance(node, ast.Call) and how != "sets" and _OUTSIDE[how](dotted, namespace):
            yield _about(how, dotted, node), node
    for node in _walked(tree):
        if isinstance(node, ast.Call) and call(dotted := dotted_name(node.func)):
            yield f"{dotted}()", node


def _about(how: str, dotted: str, node: ast.Call) -> str:
    if how == "registers":
        return f"{dotted}({', '.join(map(ast.unparse, node.args[:1]))})"
    words = () if node.args else sorted(f"{keyword.arg}=" for keyword in node.keywords if keyword.arg)
    return f"{dotted}({', '.join(words)})"


def setting(dotted: str) -> str:
    """Return what is wrong with setting an attribute of something that is installed."""
    return f"it sets {dotted.replace(_ITEM, '[...]')}, which a hit could not do again"


def remedy(reason: str) -> str:
    """Return the way out of a bypass for this reason: code that is out of sight, or one of the reasons of this file."""
    if "resize()" in reason:
        return "take what np.resize() gives instead"
    return REMEDY if reason.endswith("a hit could not do again") else "name what it reads, so that it can be seen"


def done_by(tree: ast.AST, namespace: Mapping[str, object]) -> str:
    """Return what a cell that has run did to something installed, by its source and the namespace; mostly nothing."""
    for how, dotted, _ in _touched(tree):
        if _OUTSIDE[how](dotted, namespace):
            is_call = how in {"registers", "sets up", "told"}
            return f"it calls {dotted}(), which a hit could not do again" if is_call else setting(dotted)
    return ""


def settings(tree: ast.AST) -> list[str]:
    """Return the attributes that code sets or deletes by name, or of which it sets items, in whatever function."""
    return [dotted.removesuffix(_ITEM) for how, dotted, _ in _touched(tree) if how == "sets"]


_ITEM: Final = ".[]"
_CONTAINERS: Final = (dict, list, set, bytearray)


def _touched(tree: ast.AST) -> Iterator[tuple[Literal["sets", "registers", "sets up", "told"], str, ast.AST]]:
    """Yield what code changes by name.

    ``a.b = ...`` and ``a.b[...] = ...``, ``a.register(...)``, ``a.set_options(...)``; and ``a.b.tell(...)`` that stands
    by itself, as ``alt.theme.enable("dark")`` does: it is there for what it does.
    """
    for_a_while: set[ast.AST] = set()
    by_themselves: set[ast.AST] = set()
    for node in _walked(tree):
        if isinstance(node, ast.With):
            for_a_while.update(item.context_expr for item in node.items)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            by_themselves.add(node.value)
            if "." in (name := dotted_name(node.value.func)):
                yield "told", name, node.value
        elif isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            yield "sets", dotted_name(node), node
        elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
            yield "sets", dotted_name(node.value) + _ITEM, node
        elif isinstance(node, ast.Call) and (how := _done_by_call(node, alone=node in by_themselves)):
            if how == "sets":
                yield how, f"{dotted_name(node.args[0])}.{_text(node.args[1:2])}", node
            elif how == "registers" or node not in for_a_while:
                yield how, dotted_name(node.func), node


def _done_by_call(node: ast.Call, *, alone: bool) -> Literal["sets", "registers", "sets up", ""]:
    name = dotted_name(node.func)
    if name in {"setattr", "delattr"} and node.args and dotted_name(node.args[0]):
        return "sets"
    last = name.rpartition(".")[2]
    if last.startswith(_REGISTERING):
        return "registers"
    return "sets up" if last.startswith(_SETTING) or (alone and last.startswith(_ARRANGING)) else ""


def _walked(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk code from the outside in; a decorator is a call of it: ``@atexit.register`` calls ``atexit.register``."""
    for node in ast.walk(tree):
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for decorator in node.decorator_list:
                if not isinstance(decorator, ast.Call):
                    yield ast.Call(decorator, [ast.Name(node.name)], [])


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
    return _holder(words, namespace) is not None


def _is_outside(dotted: str, namespace: Mapping[str, object]) -> bool:
    owner = _holder(dotted.split("."), namespace)
    return owner is not None and not (dotted.endswith(_ITEM) and _is_data(owner, dotted, namespace))


def _sets_up(dotted: str, namespace: Mapping[str, object]) -> bool:
    """Tell whether a function so named makes settings of an installed package that a hit does not put back."""
    *words, last = dotted.split(".")
    owner = _holder(dotted.split("."), namespace) if words else namespace.get(last)
    module = owner.__name__ if isinstance(owner, ModuleType) else None
    if not words and _is_imported(owner):
        module = owner.__module__
    return module is not None and module.partition(".")[0] not in _PUT_BACK


def _registers(dotted: str, namespace: Mapping[str, object]) -> bool:
    """Tell whether a function so named tells an installed library of something."""
    return _is_imported(namespace.get(dotted)) or _is_outside(dotted, namespace)


def _is_imported(value: object) -> bool:
    """Tell whether this is what ``from csv import register_dialect`` gives: a package's function or class."""
    return isinstance(value, FunctionType | BuiltinFunctionType | type) and importable(value)


def _is_object_outside(dotted: str, namespace: Mapping[str, object]) -> bool:
    """Tell whether a method so named is that of an object which an installed module or class holds."""
    owner = _holder(dotted.split("."), namespace)
    is_no_object = isinstance(owner, ModuleType | type | FunctionType | BuiltinFunctionType)
    if owner is None or is_no_object or _is_data(owner, dotted, namespace):
        return False
    return not _is_of_sys(dotted, namespace) or type(owner) in _CONTAINERS  # its streams: what is written is shown


def _is_data(owner: object, dotted: str, namespace: Mapping[str, object]) -> bool:
    """Tell whether this is plain data that a module holds, which is changed in place again as the notebook's own is."""
    return type(owner) in _CONTAINERS and not _is_of_sys(dotted, namespace)


def _is_of_sys(dotted: str, namespace: Mapping[str, object]) -> bool:
    """Tell whether the process itself holds what is named so: ``sys.modules``, ``sys.meta_path``."""
    return namespace[dotted.partition(".")[0]] is sys


_OUTSIDE: Final = {"sets": _is_outside, "registers": _registers, "sets up": _sets_up, "told": _is_object_outside}
"""How what code changes by name is found to belong to something that is installed."""


def _holder(words: Sequence[str], namespace: Mapping[str, object]) -> Any:
    """Return what has the attribute; None where it belongs to nothing that is installed, or a hit puts it back."""
    head, *inner = words[:-1] or [""]
    if not head or head not in namespace or any(".".join(words[:n]) in RESTORED for n in range(2, len(words) + 1)):
        return None
    owner: Any = namespace[head]
    within = _is_installed(owner)
    for name in inner:
        held = vars(owner) if isinstance(owner, ModuleType | type) else None
        owner = held.get(name) if held is not None else getattr(owner, name, None) if within else None
        within = within or _is_installed(owner)
    return owner if within and not _is_put_back(owner) else None


def _is_installed(value: object) -> bool:
    if isinstance(value, ModuleType):
        return value.__name__ != "__main__" and modules.origin(value.__name__) in {"installed", "python"}
    return isinstance(value, type) and importable(value)


def _is_put_back(owner: object) -> bool:
    # pd.options.display.max_rows = 10: pandas gives its options as attributes of objects of its own.
    pandas = sys.modules.get("pandas")
    return pandas is not None and type(owner) is type(pandas.options)
