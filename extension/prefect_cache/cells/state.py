"""What a cell changes of the process rather than of the namespace.

Each :class:`Aspect` is one kind of state that notebooks change: environment variables, the working
directory, ``sys.path``, warnings filters, options of pandas and scikit-learn, NumPy's way of printing, matplotlib's
rcParams, loggers, the locale, the context of decimal numbers, the local time zone, the global random
generators. A library that is not loaded has its default state, so that a fresh kernel and one that merely imported
pandas agree; nothing is imported to look.

Two uses: the state *before* a run is a part of the key where results or what is shown depend on it
(:func:`key_parts`), and what the run changed is done again on a hit (:class:`Watch`, :func:`apply`).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prefect_cache import modules
from prefect_cache.cells import randomness
from prefect_cache.cells.fingerprint import fingerprint
from prefect_cache.errors import Unfingerprintable
from prefect_cache.model import Part

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Change = dict[str, Any]
"""What to do again, as plain picklable values."""


class Aspect(Protocol):
    """One kind of process state."""

    name: str

    def take(self) -> Any:
        """Return the state now, comparable with ``==`` and independent of later changes."""

    def change(self, before: Any, after: Any) -> Change:
        """Return what leads from one state to the other; empty where they are equal."""

    def apply(self, change: Change) -> None:
        """Do a change again."""


class _Environ:
    name = "os.environ"

    def take(self) -> dict[str, str]:
        return dict(os.environ)

    def change(self, before: dict[str, str], after: dict[str, str]) -> Change:
        changed = {k: v for k, v in after.items() if before.get(k) != v}
        gone = [k for k in before if k not in after]
        return {"set": changed, "unset": gone} if changed or gone else {}

    def apply(self, change: Change) -> None:
        os.environ.update(change["set"])
        for name in change["unset"]:
            os.environ.pop(name, None)


class _WorkingDirectory:
    name = "cwd"

    def take(self) -> str:
        try:
            return str(Path.cwd())
        except FileNotFoundError:  # the folder was removed under the kernel
            return ""

    def change(self, before: str, after: str) -> Change:
        if before == after or not after:
            return {}
        relative = os.path.relpath(after, before) if before else after
        inside = not relative.startswith(os.pardir)
        return {"to": relative if inside else after}

    def apply(self, change: Change) -> None:
        os.chdir(change["to"])


class _ModulePath:
    name = "sys.path"

    def take(self) -> list[str]:
        return list(sys.path)

    def change(self, before: list[str], after: list[str]) -> Change:
        if before == after:
            return {}
        size = len(before)
        if after[len(after) - size :] == before:
            return {"front": after[: len(after) - size]}
        if after[:size] == before:
            return {"back": after[size:]}
        return {"all": after}

    def apply(self, change: Change) -> None:
        if "all" in change:
            sys.path[:] = change["all"]
        sys.path[:0] = change.get("front", [])
        sys.path.extend(change.get("back", []))


class _Filters:
    """``warnings.filters``, of which imports of large libraries set some of their own."""

    name = "warnings"

    def take(self) -> list[Any]:
        return list(warnings.filters)

    def change(self, before: list[Any], after: list[Any]) -> Change:
        if before == after:
            return {}
        new = [f for f in after if f not in before]
        if [f for f in after if f in before] == before and after[: len(new)] == new:
            return {"front": new}
        return {"all": after}

    def apply(self, change: Change) -> None:
        if "all" in change:
            warnings.filters[:] = change["all"]  # type: ignore[index]
        missing = [f for f in change.get("front", []) if f not in warnings.filters]
        warnings.filters[:0] = missing  # type: ignore[index]
        _filters_changed()


def _filters_changed() -> None:
    # The registry of warnings already shown is only looked at again after a change made by a call.
    with warnings.catch_warnings():
        warnings.simplefilter("default")


class _GlobalGenerator:
    """One of the global generators of :mod:`prefect_cache.cells.randomness`, where the notebook seeded it.

    One that nobody seeded is left alone on a hit: later draws stay as unforeseeable as they are without us.
    """

    def __init__(self, name: randomness.Name) -> None:
        self.name: Any = name

    def take(self) -> Any:
        return randomness.take(self.name), randomness.whole(self.name)

    def change(self, before: Any, after: Any) -> Change:
        changed = before[0] != after[0] and randomness.WATCH.seeded(self.name)
        return {"to": after[1]} if changed else {}

    def apply(self, change: Change) -> None:
        randomness.put_whole(self.name, change["to"])


class _Settings:
    """A library's named settings; not loaded, they are as it ships them."""

    def __init__(self, name: str, module: str) -> None:
        self.name = name
        self.module = module

    def values(self, module: Any) -> Iterator[tuple[str, Any]]:
        raise NotImplementedError

    def default(self, module: Any) -> Mapping[str, Any]:
        raise NotImplementedError

    def put(self, module: Any, values: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def take(self) -> dict[str, Any]:
        module = sys.modules.get(self.module)
        if module is None or getattr(getattr(module, "__spec__", None), "_initializing", False):
            return {}
        default = self.default(module)
        return {k: v for k, v in self.values(module) if k not in default or not _same(default[k], v)}

    def change(self, before: dict[str, Any], after: dict[str, Any]) -> Change:
        changed = {k: v for k, v in after.items() if k not in before or not _same(before[k], v)}
        reset = [k for k in before if k not in after]
        return {"set": changed, "reset": reset} if changed or reset else {}

    def apply(self, change: Change) -> None:
        module = importlib.import_module(self.module)
        default = self.default(module)
        self.put(module, {**{k: default[k] for k in change["reset"] if k in default}, **change["set"]})

    def counted(self) -> dict[str, Any]:
        """Return the settings, not at their defaults, on which what a cell does may depend."""
        return self.take()


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


class _PandasOptions(_Settings):
    def values(self, module: Any) -> Iterator[tuple[str, Any]]:
        def walk(options: Any, prefix: str) -> Iterator[tuple[str, Any]]:
            for name in dir(options):
                value = getattr(options, name)
                if type(value) is type(options):
                    yield from walk(value, f"{prefix}{name}.")
                else:
                    yield prefix + name, value

        with _no_warnings():
            yield from walk(module.options, "")

    def default(self, module: Any) -> Mapping[str, Any]:
        # pandas has no public way to ask for a default; where the table is not found, each value counts.
        table = getattr(module._config.config, "_registered_options", {})  # noqa: SLF001
        return {name: option.defval for name, option in table.items()}

    def put(self, module: Any, values: Mapping[str, Any]) -> None:
        with _no_warnings():
            for name, value in values.items():
                module.set_option(name, value)


class _NumpyPrinting(_Settings):
    def values(self, module: Any) -> Iterator[tuple[str, Any]]:
        yield from module.get_printoptions().items()
        yield from ((f"err.{k}", v) for k, v in module.geterr().items())
        yield "errcall", module.geterrcall()

    def default(self, module: Any) -> Mapping[str, Any]:  # noqa: ARG002 - the same for every version supported
        return _NUMPY_DEFAULTS

    def put(self, module: Any, values: Mapping[str, Any]) -> None:
        printing = {k: v for k, v in values.items() if not k.startswith("err")}
        if "errcall" in values:
            module.seterrcall(values["errcall"])
        if printing:
            module.set_printoptions(**{k: v for k, v in printing.items() if k != "override_repr"})
        module.seterr(**{k.removeprefix("err."): v for k, v in values.items() if k.startswith("err.")})


_NUMPY_DEFAULTS: Mapping[str, Any] = {
    "edgeitems": 3,
    "threshold": 1000,
    "floatmode": "maxprec",
    "precision": 8,
    "suppress": False,
    "linewidth": 75,
    "nanstr": "nan",
    "infstr": "inf",
    "sign": "-",
    "formatter": None,
    "legacy": False,
    "override_repr": None,
    "errcall": None,
    "err.divide": "warn",
    "err.over": "warn",
    "err.under": "ignore",
    "err.invalid": "warn",
}


class _RcParams(_Settings):
    def values(self, module: Any) -> Iterator[tuple[str, Any]]:
        # The backend is chosen by the front end, and reading it through the mapping would load one.
        yield from (
            (k, v) for k, v in dict.items(module.rcParams) if k not in {"backend", "interactive", "backend_fallback"}
        )

    def default(self, module: Any) -> Mapping[str, Any]:
        return dict(dict.items(module.rcParamsOrig))

    def put(self, module: Any, values: Mapping[str, Any]) -> None:
        with _no_warnings():
            module.rcParams.update(values)


class _Decimals(_Settings):
    """The context of decimal numbers in this thread, without the signals that were raised so far."""

    def values(self, module: Any) -> Iterator[tuple[str, Any]]:
        yield from self._of(module.getcontext())

    def default(self, module: Any) -> Mapping[str, Any]:
        return dict(self._of(module.DefaultContext))

    @staticmethod
    def _of(context: Any) -> Iterator[tuple[str, Any]]:
        yield from (
            (name, getattr(context, name)) for name in ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")
        )
        yield from ((f"trap.{signal.__name__}", on) for signal, on in context.traps.items())

    def put(self, module: Any, values: Mapping[str, Any]) -> None:
        context = module.getcontext()
        for name, value in values.items():
            if name.startswith("trap."):
                context.traps[getattr(module, name.removeprefix("trap."))] = value
            else:
                setattr(context, name, value)


class _Loggers(_Settings):
    """Levels and switches of loggers. Installed packages set their own ones on import: those are no part of keys."""

    def values(self, module: Any) -> Iterator[tuple[str, Any]]:
        yield "disable", module.root.manager.disable
        yield "root.level", module.root.level
        for name, logger in _loggers(module):
            yield from ((f"{name}.{what}", getattr(logger, what)) for what in ("level", "propagate", "disabled"))

    def counted(self) -> dict[str, Any]:
        users = {"disable", *(name for name, _ in users_loggers(sys.modules["logging"]))}
        return {name: value for name, value in self.take().items() if (name.rpartition(".")[0] or name) in users}

    def default(self, module: Any) -> Mapping[str, Any]:
        names = [name for name, _ in self.values(module)]
        usual = {"level": module.NOTSET, "propagate": True, "disabled": False, "disable": module.NOTSET}
        return {**{name: usual[name.rpartition(".")[2]] for name in names}, "root.level": module.WARNING}

    def put(self, module: Any, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if name == "disable":
                module.disable(value)
                continue
            owner, _, what = name.rpartition(".")
            logger = module.getLogger(None if owner == "root" else owner)
            if what == "level":
                logger.setLevel(value)  # which clears what loggers remember of levels
            else:
                setattr(logger, what, value)


def _loggers(module: Any) -> Iterator[tuple[str, Any]]:
    """Yield all loggers but those of the program that runs the notebook, and of Prefect, which sets its own up."""
    others = {_application(), "prefect"}
    yield from ((name, logger) for name, logger in _all_loggers(module) if name.partition(".")[0] not in others)


def _all_loggers(module: Any) -> Iterator[tuple[str, Any]]:
    found = list(module.root.manager.loggerDict.items())
    yield from ((name, logger) for name, logger in found if isinstance(logger, module.Logger))


def users_loggers(module: Any) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield the names of loggers that no installed package has set up, each with its handlers and filters.

    A package may set up others' loggers as well, by the handler that it gives to its own: Prefect the root logger, Dask
    that of Bokeh, which need not be installed. Such handlers are none of the user's.
    """
    found = [(name, logger, modules.origin(name.partition(".")[0])) for name, logger in _all_loggers(module)]
    packages = {id(handler) for _, logger, origin in found if origin == "installed" for handler in logger.handlers}

    def own(logger: Any) -> tuple[Any, ...]:
        return (*(handler for handler in logger.handlers if id(handler) not in packages), *logger.filters)

    yield "root", own(module.root)
    application = _application()
    for name, logger, origin in found:
        is_users = origin in {"local", "absent"} and name != application
        if is_users and packages.isdisjoint(map(id, logger.handlers)):
            yield name, own(logger)


def _application() -> str:
    """Return the name of the logger of the program that runs the notebook: ``IPKernelApp`` in a kernel."""
    config = sys.modules.get("traitlets.config.application")
    if config is None or not config.Application.initialized():
        return ""
    return str(getattr(config.Application.instance().log, "name", ""))


class _Zone(_Settings):
    """The local time zone as ``time.tzset`` found it."""

    def values(self, module: Any) -> Iterator[tuple[str, Any]]:
        yield "zone", (*module.tzname, module.timezone, module.altzone)

    def default(self, module: Any) -> Mapping[str, Any]:  # noqa: ARG002 - the same everywhere
        return {"zone": ("UTC", "UTC", 0, 0)}

    def put(self, module: Any, values: Mapping[str, Any]) -> None:  # noqa: ARG002 - the variable TZ is back already
        if hasattr(module, "tzset"):
            module.tzset()


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    # Deprecated settings warn whenever they are read; that is nobody's wish here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _Sklearn(_Settings):
    """scikit-learn's settings in this thread; those that the process began with are its own to keep."""

    def values(self, module: Any) -> Iterator[tuple[str, Any]]:
        yield from module.get_config().items()

    def default(self, module: Any) -> Mapping[str, Any]:
        # There is no public way; where the table is not found, each value counts.
        return getattr(sys.modules.get(f"{module.__name__}._config"), "_global_config", {})

    def put(self, module: Any, values: Mapping[str, Any]) -> None:
        module.set_config(**values)


class _Locale(_Settings):
    """How numbers and dates are written and texts sorted; the encoding of characters is the front end's."""

    def values(self, module: Any) -> Iterator[tuple[str, Any]]:
        for name in ("LC_NUMERIC", "LC_TIME", "LC_COLLATE", "LC_MONETARY"):
            yield name, module.setlocale(getattr(module, name), None)

    def default(self, module: Any) -> Mapping[str, Any]:  # noqa: ARG002 - the same for every process
        return dict.fromkeys(("LC_NUMERIC", "LC_TIME", "LC_COLLATE", "LC_MONETARY"), "C")

    def put(self, module: Any, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            module.setlocale(getattr(module, name), value)


ASPECTS: tuple[Aspect, ...] = (
    _Environ(),
    _WorkingDirectory(),
    _ModulePath(),
    _Filters(),
    _PandasOptions("pandas.options", "pandas"),
    _NumpyPrinting("numpy.printoptions", "numpy"),
    _RcParams("matplotlib.rcParams", "matplotlib"),
    _Decimals("decimal.context", "decimal"),
    _Loggers("logging", "logging"),
    _Sklearn("sklearn.config", "sklearn"),
    _Locale("locale", "locale"),
    _Zone("time", "time"),
    _GlobalGenerator("random"),
    _GlobalGenerator("numpy.random"),
    _GlobalGenerator("torch"),
)

_FIRST_FILTERS = tuple(warnings.filters)


def key_parts() -> tuple[Part, ...]:
    """Return a part for each setting that results or displays may depend on and that is not at its default.

    Raises
    ------
    Unfingerprintable
        Where a setting holds something that has no digest.
    """
    parts = []
    for aspect in ASPECTS:
        if isinstance(aspect, _Settings):
            parts += [_part(aspect.name, name, value) for name, value in sorted(aspect.counted().items())]
    filters = [f for f in warnings.filters if _is_general(f) and f not in _FIRST_FILTERS]
    if filters:
        parts.append(_part("warnings", "filters", [(f[0], str(f[2]), f[4]) for f in filters]))
    return tuple(parts)


def _is_general(rule: Any) -> bool:
    # What libraries set on import names a message, a module or a category of their own.
    return rule[1] is None and rule[3] is None and rule[2].__module__ == "builtins"


def _part(aspect: str, name: str, value: Any) -> Part:
    try:
        return Part("state", f"{aspect}[{name}]", fingerprint(value), repr(value)[:200])
    except Unfingerprintable as error:
        raise Unfingerprintable(f"the setting {aspect}[{name}] has no digest: {error}", name=name) from error


def settings() -> dict[str, dict[str, Any]]:
    """Return all settings that are not at their defaults, for a process elsewhere to take on."""
    return {aspect.name: aspect.take() for aspect in ASPECTS if isinstance(aspect, _Settings)}


@contextlib.contextmanager
def taken_on(wanted: Mapping[str, dict[str, Any]]) -> Iterator[None]:
    """Let this process have the settings of another for a while, then its own again."""
    aspects = [aspect for aspect in ASPECTS if isinstance(aspect, _Settings) and aspect.name in wanted]
    own = {aspect.name: aspect.take() for aspect in aspects}

    def put(to: Mapping[str, dict[str, Any]]) -> None:
        for aspect in aspects:
            if change := aspect.change(aspect.take(), to[aspect.name]):
                aspect.apply(change)

    put(wanted)
    try:
        yield
    finally:
        put(own)


class Watch:
    """Remembers the process's state, to tell later what changed."""

    def __init__(self) -> None:
        self._before = {a.name: a.take() for a in ASPECTS}

    def changes(self) -> dict[str, Change]:
        """Return what changed since, by aspect; empty where nothing did."""
        found = {a.name: a.change(self._before[a.name], a.take()) for a in ASPECTS}
        return {name: change for name, change in found.items() if change}


@contextlib.contextmanager
def found_as_after(changes: Mapping[str, Change]) -> Iterator[None]:
    """Let modules be found for a while as they will be when these changes have been done."""
    path, before = _ModulePath(), list(sys.path)
    if path.name in changes:
        path.apply(changes[path.name])
    try:
        yield
    finally:
        sys.path[:] = before


def apply(changes: Mapping[str, Change]) -> None:
    """Do again what a run changed."""
    for aspect in ASPECTS:
        if aspect.name in changes:
            aspect.apply(changes[aspect.name])
