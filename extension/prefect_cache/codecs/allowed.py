"""What a skeleton may name when its file is not trusted: constructors of data, and nothing else.

A name is allowed when calling it with any arguments, or setting any state on what it makes, can only make
a value. ``getattr``, ``eval``, methods (a name with a dot) and functions that open, import or call are not.
"""

from __future__ import annotations

import datetime as dt
import sys
from functools import cache
from importlib import import_module
from typing import Any

from prefect_cache.errors import Untrusted

_PLAIN: dict[str, str] = {
    "builtins": "bool bytearray bytes complex dict float frozenset int list object range set slice str tuple "
    "Ellipsis NotImplemented",
    "copyreg": "_reconstructor",
    "collections": "Counter OrderedDict deque",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "ipaddress": "IPv4Address IPv6Address IPv4Network IPv6Network",
    "pathlib": "Path PosixPath PurePosixPath PurePath PureWindowsPath",
    "pathlib._local": "Path PosixPath PurePosixPath PurePath PureWindowsPath",
    "uuid": "UUID SafeUUID",
    "zoneinfo": "ZoneInfo",
    "pytz": "_UTC _p",
    "pytz.tzinfo": "_DstTzInfo",
    "dateutil.tz.tz": "tzutc tzoffset tzlocal",
    "dateutil.relativedelta": "relativedelta",
    "polars.series.series": "Series",
    "numpy": "ndarray matrix recarray dtype bool_ bool datetime64 timedelta64",
    "numpy.rec": "recarray",
    "numpy.ma": "MaskedArray",
    "numpy.ma.core": "MaskedArray",
    "numpy._core.multiarray": "scalar",
    "numpy.core.multiarray": "scalar",
}

_PANDAS_FUNCTIONS = frozenset(
    """
    _new_Index _new_DatetimeIndex _new_TimedeltaIndex _new_PeriodIndex _new_IntervalIndex _unpickle_block
    __pyx_unpickle_NDArrayBacked __pyx_unpickle_IntervalMixin _unpickle_timestamp _timedelta_unpickle
    _nat_unpickle __nat_unpickle NA NaT NAType NaTType FrozenList Flags IntIndex BlockIndex
    __pyx_unpickle_BlockManager __pyx_unpickle_Block __pyx_unpickle_BlockPlacement BlockPlacement
    """.split()  # noqa: SIM905 - a page of names reads better
)

_ARROW = frozenset(
    """
    _reconstruct_record_batch _reconstruct_table _restore_array binary binary_view bool_ chunked_array date32
    date64 decimal128 decimal256 decimal32 decimal64 dictionary duration field fixed_shape_tensor float16
    float32 float64 int16 int32 int64 int8 json_ large_binary large_list large_list_view large_string list_
    list_view map_ month_day_nano_interval null opaque py_buffer run_end_encoded scalar schema sparse_union
    dense_union string string_view struct time32 time64 timestamp type_for_alias uint16 uint32 uint64 uint8
    union uuid bool8 KeyValueMetadata MonthDayNano
    """.split()  # noqa: SIM905 - a page of names reads better
)

_PANDAS_PLACES = ("pandas", "pandas.arrays", "pandas.core.", "pandas._libs.", "pandas.tseries.")


def find(module: str, name: str) -> Any:
    """Return what a skeleton names; raise Untrusted for what is not on the list."""
    if "." not in name and _may_be_named(module, name):
        found = getattr(import_module(module), name, None)
        if found is not None and _is_data(module, name, found):
            return found
    raise Untrusted(
        f"it names {module}.{name}, which is loaded only from files that are signed",
        remedy="trust the key that signed it, or run the cell",
    )


def _may_be_named(module: str, name: str) -> bool:
    if module in _PLAIN:
        return name in _PLAIN[module].split() or module == "numpy"
    if module == "pyarrow.lib":
        return True
    return module.startswith(_PANDAS_PLACES) and module.partition(".")[0] == "pandas"


def _is_data(module: str, name: str, found: object) -> bool:
    if module in _PLAIN and name in _PLAIN[module].split():
        return True
    if module == "numpy":
        return isinstance(found, type) and issubclass(found, sys.modules["numpy"].generic)
    if module == "pyarrow.lib":
        return name in _ARROW or (isinstance(found, type) and issubclass(found, _arrow_classes()))
    return name in _PANDAS_FUNCTIONS or (isinstance(found, type) and issubclass(found, _pandas_classes()))


@cache
def _pandas_classes() -> tuple[type, ...]:
    import pandas as pd

    # The classes inside of a frame are private: found by what they are instead of by name.
    frame, series = vars(pd.DataFrame())["_mgr"], vars(pd.Series([0.0]))["_mgr"]
    managers = {type(frame), type(series), type(series.blocks[0]).__mro__[-2]}
    scalars = (pd.Interval, pd.Period, pd.Timestamp, pd.Timedelta, pd.offsets.BaseOffset)
    return (
        *(pd.DataFrame, pd.Series, pd.Index, pd.api.extensions.ExtensionArray, pd.api.extensions.ExtensionDtype),
        *scalars,
        *managers,
    )


@cache
def _arrow_classes() -> tuple[type, ...]:
    import pyarrow as pa

    return (pa.Array, pa.ChunkedArray, pa.Table, pa.RecordBatch, pa.DataType, pa.Field, pa.Schema, pa.Buffer, pa.Scalar)


@cache
def _allowed(module: str, name: str) -> bool:
    try:
        find(module, name)
    except (Untrusted, ImportError):
        return False
    return True


def _is_pytz(thing: object) -> bool:
    """Tell whether this is a zone class of pytz: made when it is asked for, pickled by the zone's name."""
    return isinstance(thing, type) and issubclass(thing, dt.tzinfo) and thing.__module__.startswith("pytz")


def is_allowed(thing: object) -> bool:
    """Tell whether a class or function may be named without trust."""
    if thing in (type(...), type(NotImplemented)) or _is_pytz(thing):
        return True
    module = getattr(thing, "__module__", None) or "builtins"
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", "")
    return isinstance(module, str) and _allowed(module, name)
