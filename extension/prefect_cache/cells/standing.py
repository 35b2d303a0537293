"""What libraries keep for the whole process, and no hit could make again.

* DuckDB's own connection, which ``duckdb.sql`` asks: tables that a notebook makes there are neither in its namespace
  nor in a file, and no digest tells what they hold. A cell that reaches DuckDB is known as long as that
  connection is as it was when the process began.
* The handlers and filters of loggers: they hold locks and streams. What they are is a part of each key.
* The figures that pyplot has open, into which ``plt.plot`` draws: a backend that shows figures below cells closes
  them at each cell's end, others do not. While one is open, nothing is known of cells that may draw.
* The magics that IPython knows: those of the notebook's own (``@register_line_magic``) count by what they call.

A cell that changes one of these is a bypass.
"""

from __future__ import annotations

import functools
import importlib.metadata
import itertools
import re
import sys
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, Protocol

from prefect_cache import modules
from prefect_cache.cells import ipython, state
from prefect_cache.cells.fingerprint import fingerprint
from prefect_cache.digests import combine
from prefect_cache.errors import Unfingerprintable
from prefect_cache.model import Part

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping


class _Keeper(Protocol):
    """One library."""

    def held(self) -> dict[str, Any]:
        """Return what it holds that a new process does not, by a name that people understand."""

    def parts(self, packages: Collection[str], texts: Collection[str]) -> Iterator[Part]:
        """Yield what of it decides, for a cell that reaches these packages by this code.

        Raises
        ------
        Unfingerprintable
            Where nobody can tell what it holds.
        """

    def changed(self, before: Mapping[str, Any], now: Mapping[str, Any], namespace: Mapping[str, object]) -> str:
        """Return what a run did to it that a hit could not do again, in words; mostly nothing."""


class _Connection:
    _HELD = """
        select 'the table ' || table_name from duckdb_tables() where not internal
        union all select 'the view ' || view_name from duckdb_views() where not internal
        union all select 'the function ' || function_name from duckdb_functions() where not internal
        union all select 'the sequence ' || sequence_name from duckdb_sequences()
        union all select 'the type ' || type_name from duckdb_types() where not internal
        union all select 'the database ' || database_name from duckdb_databases()
            where not internal and database_name <> current_database()
        order by all
    """
    # Not where secrets lie, as long as that is the usual place: it is in the folder that was the home when the
    # connection was made (DuckDB 1.4 to 2.0), so that a notebook which sets HOME later has changed nothing here.
    _SETTINGS = """
        select name, value from duckdb_settings()
        where not (name = 'secret_directory' and contains(value, '.duckdb') and suffix(value, 'stored_secrets'))
    """

    def held(self) -> dict[str, Any]:
        duckdb = sys.modules.get("duckdb")
        if duckdb is None or not hasattr(duckdb, "default_connection"):
            return {}
        try:
            names = [name for (name,) in duckdb.sql(self._HELD).fetchall()]
            settings = set(duckdb.sql(self._SETTINGS).fetchall()) - self._usual(duckdb)
        except duckdb.Error as error:  # in a transaction that has failed, say
            return {f"something that it does not tell of ({error})": None}
        return dict.fromkeys([*names, *(f"the setting {name}={value}" for name, value in sorted(settings))])

    @classmethod
    @functools.cache
    def _usual(cls, duckdb: Any) -> set[tuple[str, str]]:
        with duckdb.connect() as new:
            return set(new.sql(cls._SETTINGS).fetchall())

    def parts(self, packages: Collection[str], texts: Collection[str]) -> Iterator[Part]:  # noqa: ARG002
        if "duckdb" in packages and (found := self.held()):
            raise Unfingerprintable(
                f"DuckDB's own connection holds {next(iter(found))}, which has no digest",
                name="duckdb",
                remedy="make it inside the cell, in a connection that the cell opens",
            )
        yield from ()

    def changed(self, before: Mapping[str, Any], now: Mapping[str, Any], namespace: Mapping[str, object]) -> str:  # noqa: ARG002
        new = next((what for what in now if what not in before), "no longer what it held")
        return f"DuckDB's own connection holds {new} since, which a hit could not do again"


class _Handlers:
    """Handlers and filters of the root logger and of the user's own loggers."""

    def held(self) -> dict[str, Any]:
        logging = sys.modules.get("logging")
        if logging is None:
            return {}
        return {name: [_told(one) for one in held] for name, held in state.users_loggers(logging) if held}

    def parts(self, packages: Collection[str], texts: Collection[str]) -> Iterator[Part]:  # noqa: ARG002 - all may log
        for name, told in self.held().items():
            flat = itertools.chain.from_iterable((str(len(one)), *one) for one in told)
            yield Part("state", f"logging.handlers[{name}]", combine("handlers", *flat), f"{len(told)} of them")

    def changed(self, before: Mapping[str, Any], now: Mapping[str, Any], namespace: Mapping[str, object]) -> str:  # noqa: ARG002
        name = next(name for name in {**before, **now} if before.get(name) != now.get(name))
        logger = "the root logger" if name == "root" else f"the logger {name}"
        return f"it changes the handlers or filters of {logger}, or what they hold, which a hit could not do again"


def _told(held: Any) -> list[str]:
    """Return what tells a handler or filter from others; of what has no digest, only that it is there."""
    if isinstance(held, FunctionType):
        return [_digest_or_none(held)]
    stream = getattr(held, "stream", None)
    streams = [name for name in ("stdout", "stderr") if stream is not None and stream is getattr(sys, name)]
    known = {name: value for name, value in getattr(held, "__dict__", {}).items() if name not in {"lock", "stream"}}
    return [*streams, *(_digest_or_none(part) for part in (type(held), *itertools.chain(*known.items())))]


def _digest_or_none(value: object) -> str:
    try:
        return fingerprint(value)
    except Unfingerprintable:
        return ""


class _Figures:
    """The figures that pyplot has open."""

    def held(self) -> dict[str, Any]:
        helpers = sys.modules.get("matplotlib._pylab_helpers")
        managers = {} if helpers is None else dict(helpers.Gcf.figs)
        return {f"figure {number}": id(manager.canvas.figure) for number, manager in managers.items()}

    def parts(self, packages: Collection[str], texts: Collection[str]) -> Iterator[Part]:
        if (found := self.held()) and _may_draw(packages, texts):
            raise Unfingerprintable(
                f"pyplot has {next(iter(found))} open, a drawing, into which the cell may draw",
                name="pyplot",
                remedy="close it with plt.close()",
            )
        yield from ()

    def changed(self, before: Mapping[str, Any], now: Mapping[str, Any], namespace: Mapping[str, object]) -> str:
        for name in before:
            if name not in now:
                return f"it closes pyplot's {name}, which a hit could not do again"
        # matplotlib opens a figure again that was open when it was pickled; where open figures are shown
        # below each cell, that would be once too often.
        kept = set() if _are_shown_again() else {id(value) for value in namespace.values()}
        left = next((name for name in now if name not in before and now[name] not in kept), None)
        return "" if left is None else f"it leaves pyplot's {left} open, which a hit could not do again"


def _are_shown_again() -> bool:
    config = sys.modules.get("matplotlib_inline.config")
    return (
        config is not None and config.InlineBackend.initialized() and not config.InlineBackend.instance().close_figures
    )


_DRAWING: Final = re.compile(r"plot|hist|draw|Display")
"""What code says that draws by a package which can do without matplotlib: ``df.plot()``, ``plot_tree(model)``."""


def _may_draw(packages: Collection[str], texts: Collection[str]) -> bool:
    needing = (package == "matplotlib" or _needs_matplotlib(package) for package in packages)
    return any(needing) or any(map(_DRAWING.search, texts))


@functools.cache
def _needs_matplotlib(package: str) -> bool:
    try:
        needed = importlib.metadata.requires(modules.distribution(package)[0]) or []
    except importlib.metadata.PackageNotFoundError:
        return False
    return any(re.match(r"matplotlib\b", one) and "extra" not in one for one in needed)


class _Magics:
    """The magics that IPython did not come with."""

    def held(self) -> dict[str, Any]:
        return {magic: id(found) for magic, found in ipython.magics().items()}

    def parts(self, packages: Collection[str], texts: Collection[str]) -> Iterator[Part]:  # noqa: ARG002
        yield from ()  # those that a cell runs are inputs of it, see cells.ipython

    def changed(self, before: Mapping[str, Any], now: Mapping[str, Any], namespace: Mapping[str, object]) -> str:  # noqa: ARG002
        name = next(name for name in {**now, **before} if before.get(name) != now.get(name))
        return f"it defines or removes the magic {name}, which a hit could not do again"


_KEEPERS: tuple[_Keeper, ...] = (_Connection(), _Handlers(), _Figures(), _Magics())


def held() -> list[dict[str, Any]]:
    """Return what libraries hold now, for :func:`changed` to compare with."""
    return [keeper.held() for keeper in _KEEPERS]


def parts(packages: Collection[str], texts: Collection[str]) -> Iterator[Part]:
    """Yield what of it decides, for a cell that reaches these packages by this code.

    Raises
    ------
    Unfingerprintable
        Where nobody can tell what a library holds.
    """
    for keeper in _KEEPERS:
        yield from keeper.parts(packages, texts)


def changed(before: list[dict[str, Any]], namespace: Mapping[str, object]) -> str:
    """Return what a run did to what libraries hold that a hit could not do again, in words; mostly nothing."""
    for keeper, was in zip(_KEEPERS, before, strict=True):
        now = keeper.held()
        if now != was and (reason := keeper.changed(was, now, namespace)):
            return reason
    return ""
