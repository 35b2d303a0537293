"""Which files are nobody's data: Python's own, installed packages', caches, ours.

Those are in the key by version, or are written and read by the tools around the notebook
at times of their own.
"""

from __future__ import annotations

import importlib.util
import os
import site
import sys
import sysconfig
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

_getcwd = os.getcwd
_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_SYSTEM = (
    *("/proc/", "/sys/", "/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/", "/lib/", "/usr/lib/"),
    *("/etc/fonts/", "/usr/share/fonts/"),
    # Devices one by one: /dev/shm is a folder like any other, and data is put there to be near.
    *("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/pts/", "/dev/fd/"),
    *("/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/ptmx"),
)
_SCRATCH = os.sep + "dask-scratch-space"
"""Where Dask's scheduler and workers keep locks; their threads make and remove them while a cell runs beside them."""

_COMPILED = os.sep + "__pycache__" + os.sep


def working_folder() -> str:
    """Return the working folder, though ``os.getcwd`` may be replaced just now."""
    return _getcwd()


@cache
def standard_library() -> tuple[str, ...]:
    """Return the folders of the standard library."""
    paths = sysconfig.get_paths()
    return _folders([paths["stdlib"], paths["platstdlib"], os.path.dirname(os.__file__)])


@cache
def packages() -> tuple[str, ...]:
    """Return the folders that hold installed packages."""
    paths = sysconfig.get_paths()
    return _folders([paths["purelib"], paths["platlib"], *site.getsitepackages(), site.getusersitepackages()])


def ignored(store_root: str | None) -> tuple[str, ...]:
    """Return the beginnings of all paths that no cell's result depends on."""
    home = os.path.expanduser("~")
    variables = {
        "PREFECT_HOME": f"{home}/.prefect",
        "IPYTHONDIR": f"{home}/.ipython",
        "JUPYTER_DATA_DIR": f"{home}/.local/share/jupyter",
        "JUPYTER_CONFIG_DIR": f"{home}/.jupyter",
        "JUPYTER_RUNTIME_DIR": f"{home}/.local/share/jupyter",
        "MPLCONFIGDIR": f"{home}/.config/matplotlib",
    }
    cache_home = os.environ.get("XDG_CACHE_HOME", f"{home}/.cache")
    config_home = os.environ.get("XDG_CONFIG_HOME", f"{home}/.config")
    own = [os.environ.get(variable, default) for variable, default in variables.items()]
    own += [
        f"{cache_home}/matplotlib",
        f"{cache_home}/fontconfig",
        f"{config_home}/matplotlib",
        f"{config_home}/prefect_cache",
    ]
    own += [store_root] if store_root else []
    return (*standard_library(), *packages(), *_folders(own), *_SYSTEM, _OWN)


def _folders(paths: list[str]) -> tuple[str, ...]:
    spellings = {spelling for path in paths for spelling in (os.path.abspath(path), os.path.realpath(path))}
    return tuple(sorted(path.rstrip(os.sep) + os.sep for path in spellings))


def source_of(path: str) -> str:
    """Return the source of a compiled module, and any other path as it is."""
    if _COMPILED in path and path.endswith(".pyc"):
        try:
            return importlib.util.source_from_cache(path)
        except ValueError:
            return path
    return path


def is_passing(path: str) -> bool:
    """Tell whether a path is nothing but a trace of running: compiled code, a cell's made-up file, a worker's locks."""
    return (
        _COMPILED in path + os.sep or _SCRATCH in path or "/ipykernel_" in path or path.endswith((">", ".pyc", ".pyo"))
    )


def absolute(path: str, folder: str | None = None) -> str:
    """Return a path from the root, without resolving links."""
    joined = os.path.join(folder or _getcwd(), path)
    return os.path.normpath(joined) if os.pardir not in joined else os.path.realpath(joined)


def asker(depth: int) -> tuple[str, list[str]]:
    """Return which function of a package asks, nothing for the user's own code, and through which ones of Python's.

    `depth` is that of the frame that called the function in question.
    """
    frame: FrameType | None = sys._getframe(depth + 1)  # noqa: SLF001 - no other way to a caller
    through: list[str] = []
    # In a virtual environment, its packages lie in a folder of the standard library's.
    while frame is not None and _is_of_library(frame.f_code.co_filename):
        through.append(frame.f_code.co_name)
        frame = frame.f_back
    if frame is None or frame.f_code.co_filename.startswith((*packages(), _OWN)):
        return f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}" if frame is not None else "?", through
    return "", through


def _is_of_library(file: str) -> bool:
    return file.startswith(_library()) and not file.startswith(packages())


@cache
def _library() -> tuple[str, ...]:
    inside = tuple(folder for folder in packages() if folder.startswith(standard_library()))
    folders = tuple(folder for folder in standard_library() if folder not in inside)
    return (*folders, "<frozen ")
