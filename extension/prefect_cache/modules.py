"""Where a module comes from: the interpreter, an installed package, or the user's own files.

What is installed counts by its distribution's version; what is the user's own counts by its code.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.metadata
import itertools
import site
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from types import ModuleType

    Origin = Literal["python", "installed", "local", "absent"]


INTERPRETERS_OWN: Final = frozenset(
    {
        *("__name__", "__package__", "__loader__", "__spec__", "__file__", "__cached__", "__path__"),
        *("__builtins__", "__builtin__", "__annotations__", "__warningregistry__", "__", "___"),
    }
)
"""Names that Python and IPython keep in a module's namespace for themselves."""


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


def is_importable(module: ModuleType) -> bool:
    """Tell whether another process gets this module by importing it: it is loaded under its name, and is found."""
    name = module.__name__
    is_loaded = sys.modules.get(name) is module and name != "__main__"
    # A package may make modules of its own when it is imported; what counts then is that the package is found.
    return is_loaded and find(package_name(name)) is not None


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

    ``importlib.metadata.packages_distributions`` parses the metadata of all that is installed, half a second for 240
    distributions; here only the folder that holds the module is looked at, the likely distribution first.
    """
    folder = _folder_of(top)
    found = sorted(folder.glob("*.dist-info"), key=lambda info: _unlike(info, top)) if folder is not None else []
    for info in found:
        if _provides(info, top):
            return _named(info)
    try:  # a legacy or editable installation
        return top, importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        return top, str(getattr(sys.modules.get(top), "__version__", ""))


def _folder_of(top: str) -> Path | None:
    """Return the folder on the path that holds a top-level module."""
    module = sys.modules.get(top)
    spec = None if module is not None else find(top)
    file = (
        _file_of(module)
        if module is not None
        else spec and (spec.origin or next(iter(spec.submodule_search_locations or ()), None))
    )
    if not file:
        return None
    path = Path(file)
    return next((parent.parent for parent in (path, *path.parents) if parent.stem.partition(".")[0] == top), None)


def _unlike(info: Path, top: str) -> bool:
    name = info.name.partition("-")[0].lower().replace(".", "_")
    return name != top.lower()


def _provides(info: Path, top: str) -> bool:
    """Tell whether a distribution installed a top-level module, by its list of files."""
    try:
        listed = (info / "RECORD").read_bytes()
    except OSError:
        return False
    starts = (f"{top}/", f"{top}.py,", f"{top}.cpython", f"{top}.abi3")
    return any(listed.startswith(s.encode()) or f"\n{s}".encode() in listed for s in starts)


def _named(info: Path) -> tuple[str, str]:
    """Return a distribution's name and version, without parsing its description."""
    with (info / "METADATA").open(encoding="utf-8", errors="replace") as lines:
        head = dict(line.rstrip().partition(": ")[::2] for line in itertools.islice(lines, 50))
    return head.get("Name", info.name.partition("-")[0]), head.get("Version", "")


def package_name(module: str) -> str:
    """Return the top-level module that a package's version is asked for by."""
    return module.partition(".")[0]
