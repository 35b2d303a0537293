"""A database that a library keeps for the whole process: DuckDB's own connection, which ``duckdb.sql`` asks.

Tables that a notebook makes there are neither in its namespace nor in a file, and no digest tells what they hold. So
a cell that reaches DuckDB is only known as long as that connection is as it was when the process began.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

from prefect_cache.errors import Unfingerprintable

if TYPE_CHECKING:
    from collections.abc import Collection

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
# Not where secrets lie, as long as that is the usual place: it is in the folder that was the home when the connection
# was made (DuckDB 1.4 to 2.0), so that a notebook which sets HOME later has changed nothing here.
_SETTINGS = """
    select name, value from duckdb_settings()
    where not (name = 'secret_directory' and contains(value, '.duckdb') and suffix(value, 'stored_secrets'))
"""


def held() -> tuple[str, ...]:
    """Return what DuckDB's own connection holds that a new one does not, in words; nothing where it is not loaded."""
    duckdb = sys.modules.get("duckdb")
    if duckdb is None or not hasattr(duckdb, "default_connection"):
        return ()
    try:
        names = [name for (name,) in duckdb.sql(_HELD).fetchall()]
        settings = set(duckdb.sql(_SETTINGS).fetchall()) - _usual(duckdb)
    except duckdb.Error as error:  # in a transaction that has failed, say
        return (f"something that it does not tell of ({error})",)
    return (*names, *(f"the setting {name}={value}" for name, value in sorted(settings)))


@functools.cache
def _usual(duckdb: Any) -> set[tuple[str, str]]:
    with duckdb.connect() as new:
        return set(new.sql(_SETTINGS).fetchall())


def check(packages: Collection[str]) -> None:
    """Raise :class:`Unfingerprintable` where one of these packages is DuckDB, and its own connection holds anything."""
    if "duckdb" in packages and (found := held()):
        raise Unfingerprintable(
            f"DuckDB's own connection holds {found[0]}, which has no digest",
            name="duckdb",
            remedy="make it inside the cell, in a connection that the cell opens",
        )


def changed(before: tuple[str, ...]) -> str:
    """Return what a run did to DuckDB's own connection, in words; mostly nothing."""
    now = held()
    if now == before:
        return ""
    new = next((what for what in now if what not in before), "no longer what it held")
    return f"DuckDB's own connection holds {new} since, which a hit could not do again"
