"""Where a module comes from: the interpreter, an installed package, or the user's own files.

What is installed counts by its distribution's version; what is the user's own counts by its code.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.metadata
import importlib.util
import site
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from types import ModuleType

    Origin = Literal["python", "installed", "local", "absent"]


def origin(name: str) -> Origin:
    """Tell where a module comes from; a loaded one by its file, another one by where it would be found."""
    if name == "__main__":
        return "local"
    if package_name(name) == package_name(__name__):
        return "installed"  # also where this package runs from its sources
    module = sys.modules.get(name)
    if module is not None:
        return origin_of_file(name, _file_of(module))
    spec = find(name)
    if spec is None:
        return "absent"
    return origin_of_file(
        name, spec.origin if spec.has_location else next(iter(spec.submodule_search_locations or ()), None)
    )


def _file_of(module: ModuleType) -> str | None:
    file = getattr(module, "__file__", None)
    return str(file) if file else next(iter(getattr(module, "__path__", ())), None)


@functools.lru_cache(maxsize=4096)
def origin_of_file(name: str, file: str | None) -> Origin:
    """Tell where a module of this name and file comes from."""
    top = name.partition(".")[0]
    if top == __name__.partition(".")[0]:
        return "installed"  # also where we are installed for development: we are no code of the user's
    if file is None:
        return "python" if top in sys.stdlib_module_names or top in sys.builtin_module_names else "local"
    path = Path(file)
    if any(part in ("site-packages", "dist-packages") for part in path.parts):
        return "installed"
    if any(path.is_relative_to(root) for root in _installed_roots()):
        return "installed"
    if any(path.is_relative_to(root) for root in _python_roots()):
        return "python"
    return "local"


@functools.cache
def _python_roots() -> tuple[Path, ...]:
    return tuple(
        {Path(p).resolve() for p in _paths("stdlib", "platstdlib")} | {Path(p) for p in _paths("stdlib", "platstdlib")}
    )


@functools.cache
def _installed_roots() -> tuple[Path, ...]:
    roots = [*_paths("purelib", "platlib"), *site.getsitepackages(), site.getusersitepackages()]
    return tuple(dict.fromkeys(Path(p) for p in roots))


def _paths(*names: str) -> list[str]:
    paths = sysconfig.get_paths()
    return [paths[name] for name in names if name in paths]


def find(name: str) -> importlib.machinery.ModuleSpec | None:
    """Return a module's spec, or None; neither it nor its parents are imported."""
    path: list[str] | None = None
    spec: importlib.machinery.ModuleSpec | None = None
    done = ""
    for part in name.split("."):
        done = f"{done}.{part}" if done else part
        spec = _find_one(done, path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or ())
    return spec


def _find_one(name: str, path: list[str] | None) -> importlib.machinery.ModuleSpec | None:
    for finder in sys.meta_path:
        look = getattr(finder, "find_spec", None)
        try:
            spec = look(name, path) if look else None
        except (ImportError, AttributeError, ValueError, OSError):
            continue  # a finder that needs the parent imported has nothing to say here
        if isinstance(spec, importlib.machinery.ModuleSpec):
            return spec
    return None


@functools.cache
def distribution(top: str) -> tuple[str, str]:
    """Return the name and version of the distribution that a top-level module belongs to.

    ``importlib.metadata.packages_distributions`` reads the metadata of all that is installed, half a
    second for 240 distributions; mostly the distribution is called as the module is, and its list of files tells.
    """
    try:
        found = importlib.metadata.distribution(top)
    except importlib.metadata.PackageNotFoundError:
        found = None
    if found is None or not _provides(found, top):
        names = importlib.metadata.packages_distributions().get(top, ())
        found = importlib.metadata.distribution(names[0]) if names else None
    if found is None:
        return top, str(getattr(sys.modules.get(top), "__version__", ""))
    return found.metadata["Name"], found.version


def _provides(found: importlib.metadata.Distribution, top: str) -> bool:
    listed = found.read_text("RECORD") or found.read_text("top_level.txt") or top
    return any(f"\n{listed}".find(f"\n{top}{end}") >= 0 for end in ("/", ".", "\n", ","))


def package_name(module: str) -> str:
    """Return the top-level module that a package's version is asked for by."""
    return module.partition(".")[0]
