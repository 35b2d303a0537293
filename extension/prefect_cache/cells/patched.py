"""What the notebook has changed in installed modules and classes.

A package's name and version stand for it in a key, as long as it is what was installed. Where a notebook sets
``pd.DataFrame.cleaned = clean``, registers an accessor or sets ``math.precision = 3``, what it set is a part of the key
as well, with all that it reads. (A cell that does so is not stored itself, see ``cells.lasting``; this is about the
cells after it.)

Four looks find it. What code of the user's own made, by whatever way it came there, is told by the module whose names
it sees: the members of a package and of the classes that it gives out are looked through (:func:`strange`), once, and
again only when one of them has been exchanged. Other values tell nothing of where they come from; but cells that set
attributes by name are seen to do so (:meth:`Patches.note`). So are calls of which a library keeps what it was told
where nobody can read it back (``polars.set_random_seed(1)``): they count by their arguments. And data that a cell
itself reads from a module (``mimetypes.types_map``, :func:`data_read`) counts by its value.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import sys
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, Final

from prefect_cache import modules
from prefect_cache.cells import lasting
from prefect_cache.cells.named import asked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    Place = tuple[str, str]
    """A module, and the way from there to an attribute: ``("pandas.core.frame", "DataFrame.cleaned")``."""

_LOADED: Final = ("sys", "modules")
"""What the process has loaded is no input: cells count the modules that they name."""

ABSENT = object()
"""Stands for an attribute that is not there."""


class Patches:
    """The attributes of installed modules and classes that are not as they were installed."""

    def __init__(self) -> None:
        self._noted: dict[Place, None] = {}
        self._looked: dict[str, tuple[int, dict[Place, object]]] = {}
        self.called: dict[str, tuple[str, tuple[object, ...]]] = {}
        """Of calls that change the process, the last about each thing: its source, and what names in it stood for."""

    def note(self, tree: ast.AST, namespace: Mapping[str, object]) -> None:
        """Remember which attributes a cell that has run may have set, and what it has told libraries."""
        for about, node in lasting.calls(tree, namespace):
            names = [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]
            self.called[about] = (ast.unparse(node), tuple(namespace.get(name) for name in names))
        for dotted in lasting.settings(tree):
            place = _place(dotted.split("."), namespace)
            if place is not None and place != _LOADED:
                self._noted[place] = None

    def found(self, packages: Iterable[str]) -> dict[Place, object]:
        """Return what is not as it was installed, among what cells have set and in these top-level modules."""
        found = {place: value for place in self._noted if not _is_original(place, value := _held(place))}
        for package in packages:
            found |= self._strange(package)
        return found

    def _strange(self, package: str) -> dict[Place, object]:
        module = sys.modules.get(package)
        if module is None or package == "sys" or modules.origin(package) == "local":
            return {}  # what sys holds is the process's, and different all the time
        owners = _owners(module)
        # Members are the very objects as long as nobody exchanges one, and then there is nothing new to see.
        now = hash(tuple(hash(tuple(map(id, vars(owner).values()))) for owner in owners))
        looked = self._looked.get(package)
        if looked is None or looked[0] != now:
            looked = self._looked[package] = (now, dict(strange(owners)))
        return looked[1]


PATCHES = Patches()
"""The process's own: modules belong to the process."""


_DATA = (bool, int, float, complex, str, bytes, tuple, frozenset, list, dict, set, bytearray)


def data(module: ModuleType, words: Sequence[str]) -> tuple[Place, object] | None:
    """Return the plain data that ``module.a.b`` is, and where; None where it is anything else."""
    owner: object = module
    for word in words:
        if not isinstance(owner, ModuleType) or owner.__name__ == "sys" or modules.origin(owner.__name__) == "local":
            return None  # what sys holds is the process's: cells.state knows what of it counts
        value = vars(owner).get(word)
        if type(value) in _DATA and f"{owner.__name__}.{word}" not in lasting.RESTORED:
            return ((owner.__name__, word), value)
        owner = value
    return None


def data_read(tree: ast.AST, namespace: Mapping[str, object]) -> dict[Place, object]:
    """Return the plain data that a cell reads from installed modules, which it finds in its names or imports itself."""
    known = {name: value for name, value in namespace.items() if isinstance(value, ModuleType)}
    found: dict[Place, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {
                alias.asname or alias.name.partition(".")[0]: module
                for alias in node.names
                if (module := sys.modules.get(alias.name if alias.asname else alias.name.partition(".")[0]))
            }
        elif isinstance(node, ast.ImportFrom) and not node.level and (module := sys.modules.get(node.module or "")):
            found |= dict(filter(None, (data(module, [alias.name]) for alias in node.names)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            head, *words = lasting.dotted_name(node).split(".")
            if head in known and (one := data(known[head], words)) is not None:
                found[one[0]] = one[1]
    return found


_CHANGEABLE, _IMMUTABLE = 1 << 9, 1 << 8
"""Flags of classes: made at run time, and closed all the same; nobody can set an attribute of another one."""


def _owners(module: ModuleType) -> list[ModuleType | type]:
    classes = {c for value in list(vars(module).values()) if isinstance(value, type) for c in value.__mro__}
    return [module, *(c for c in classes if c.__flags__ & (_CHANGEABLE | _IMMUTABLE) == _CHANGEABLE)]


def strange(owners: Iterable[ModuleType | type]) -> Iterator[tuple[Place, object]]:
    """Yield the members of installed modules and classes that code of the user's own has made."""
    for owner in owners:
        name = owner.__name__ if isinstance(owner, ModuleType) else owner.__module__
        if modules.origin(name) == "local":
            continue
        for member, value in list(vars(owner).items()):
            if _is_strange(value):
                yield _at(owner, member), value


def _is_strange(value: object) -> bool:
    """Tell whether code of the user's own made a member, or is what a property or descriptor of somebody's calls."""
    if isinstance(value, FunctionType | type):
        return _is_users(value)
    if isinstance(value, ModuleType | BuiltinFunctionType):
        return False
    return any(_is_users(inner) for inner in _inner(value))


def _inner(value: object) -> Iterator[object]:
    yield type(value)
    if isinstance(value, property):
        yield from (value.fget, value.fset, value.fdel)
    elif isinstance(value, staticmethod | classmethod | MethodType):
        yield value.__func__
    elif isinstance(value, functools.partial):
        yield value.func
    else:
        # Past the class's own methods, which may raise anything (a pydantic model that is not complete does).
        with contextlib.suppress(AttributeError):
            held = object.__getattribute__(value, "__dict__")
            yield from list(held.values()) if type(held) is dict else ()


def _is_users(value: object) -> bool:
    if isinstance(value, FunctionType):
        module = value.__globals__.get("__name__")  # functools.wraps copies __module__
    elif isinstance(value, type):
        module = value.__module__
    else:
        return False
    return isinstance(module, str) and _is_local(module)


@functools.lru_cache(maxsize=4096)
def _is_local(module: str) -> bool:
    # Cython keeps the types of its functions in modules without a file.
    has_file = getattr(sys.modules.get(module), "__file__", None) is not None
    return module == "__main__" or (has_file and modules.origin(module) == "local")


def _at(owner: object, member: str) -> Place:
    if isinstance(owner, ModuleType):
        return owner.__name__, member
    assert isinstance(owner, type)  # noqa: S101 - modules and classes alone have members here
    return owner.__module__, f"{owner.__qualname__}.{member}"


def _place(words: list[str], namespace: Mapping[str, object]) -> Place | None:
    """Return where an attribute, ``a.b.c`` as words, really is; None where it belongs to nothing that is installed."""
    if not lasting.is_outside(words, namespace):
        return None
    owner: Any = namespace[words[0]]
    place = _name_of(owner)
    for word in words[1:-1]:
        owner = getattr(owner, word, None)
        place = _name_of(owner) or (place and (place[0], f"{place[1]}.{word}".lstrip(".")))
    ours = place is not None and modules.package_name(place[0]) == modules.package_name(__name__)
    return None if place is None or ours else (place[0], f"{place[1]}.{words[-1]}".lstrip("."))


def _name_of(owner: object) -> Place | None:
    if isinstance(owner, ModuleType):
        return owner.__name__, ""
    return (owner.__module__, owner.__qualname__) if isinstance(owner, type) else None


def _held(place: Place) -> object:
    module, way = place
    value: object = sys.modules.get(module)
    for word in way.split("."):
        held = vars(value) if isinstance(value, ModuleType | type) else None
        value = held.get(word, ABSENT) if held is not None else getattr(value, word, ABSENT)
    return value


def _is_original(place: Place, value: object) -> bool:
    """Tell whether a member is one that was installed, under its own name."""
    if value is ABSENT or isinstance(value, ModuleType):
        return value is not ABSENT
    name = asked(value, "__name__")
    return callable(value) and not _is_strange(value) and name == place[1].rpartition(".")[2]
