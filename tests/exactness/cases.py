# ruff: noqa: DTZ001, E501 - one line, one shape; moments without a zone are shapes too
"""The table: shapes of pandas, NumPy, Arrow and polars values, most of which Arrow's own way loses or refuses.

Each line makes one value. ``NEEDS_TRUST`` names those whose files cannot be read without trust, and nothing else.
"""

from __future__ import annotations

import datetime as dt
import decimal
import fractions
import ipaddress
import pathlib
import uuid
import zoneinfo
from collections import Counter, OrderedDict, deque
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable

LONG = 3001
"""Rows enough that each column is larger than what stays in the skeleton; odd, so that no packed size is even."""

PANDAS_3 = int(pd.__version__.split(".", maxsplit=1)[0]) >= 3


def objects(*cells: object) -> np.ndarray:
    """Return cells as they are, sequences included."""
    made = np.empty(len(cells), dtype=object)
    for number, cell in enumerate(cells):
        made[number] = cell
    return made


def column(*cells: object) -> pd.DataFrame:
    """Return a frame of one object column."""
    return pd.DataFrame({"o": pd.Series(objects(*cells), dtype=object)})


def indexed(index: pd.Index) -> pd.DataFrame:
    """Return a frame with this index."""
    return pd.DataFrame({"x": np.arange(len(index), dtype=float)}, index=index)


def named(labels: pd.Index | list[Any]) -> pd.DataFrame:
    """Return a frame with these column labels."""
    return pd.DataFrame(np.arange(2 * len(labels), dtype=float).reshape(2, -1), columns=labels)


def with_attributes(value: pd.DataFrame | pd.Series | None = None, **own: object) -> pd.DataFrame | pd.Series:
    """Return a frame or Series that somebody has given attributes of its own, which pandas' pickles forget."""
    value = pd.DataFrame({"a": [1, 2]}) if value is None else value
    for name, held in own.items():
        object.__setattr__(value, name, held)
    return value


def with_attrs(**attrs: object) -> pd.DataFrame:
    """Return a frame with attributes."""
    frame = pd.DataFrame({"a": [1, 2]})
    frame.attrs = attrs
    return frame


def locked(array: np.ndarray) -> np.ndarray:
    """Return an array that cannot be written to."""
    array.flags.writeable = False
    return array


def payload_nans() -> np.ndarray:
    """Return NaNs that differ in their bits, and both zeros."""
    bits = [0x7FF8000000000000, 0x7FF8000000000001, 0xFFF8000000000000, 0x7FF4DEADBEEF0001, 1 << 63, 0]
    return np.array(bits, dtype=np.uint64).view(np.float64)


class Point:
    """A user's own class."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and other.x == self.x

    def __repr__(self) -> str:
        return f"Point({self.x})"


class Tagged(pd.DataFrame):
    """A user's own frame class, with an attribute that travels."""

    _metadata = ["tag"]  # noqa: RUF012 - pandas joins it with its own list
    tag: str

    @property
    def _constructor(self) -> type[Tagged]:
        return Tagged


def tagged() -> Tagged:
    """Return a frame of a class derived from DataFrame."""
    frame = Tagged({"a": [1.0, 2.0]})
    frame.tag = "t"
    return frame


def unused_levels() -> pd.MultiIndex:
    """Return a MultiIndex some of whose level values occur nowhere."""
    return pd.MultiIndex.from_product([["a", "b", "c"], [1, 2]], names=["one", None])[2:4]


def missing_in_levels() -> pd.MultiIndex:
    """Return a MultiIndex with NaN in it."""
    return pd.MultiIndex.from_arrays([["a", None, "b"], [1.0, np.nan, 3.0]], names=["s", "f"])


def grown() -> pd.DataFrame:
    """Return a frame of many blocks, as a loop of assignments leaves it."""
    frame = pd.DataFrame({"a": np.arange(LONG)})
    for number in range(5):
        frame[f"c{number}"] = np.arange(LONG) * number * 1.5
    frame.insert(1, "s", "text")
    return frame


def wide(dtype: str, columns: int = 5) -> pd.DataFrame:
    """Return a frame of one block."""
    return pd.DataFrame({f"c{n}": (np.arange(LONG) * (n + 1) % 100).astype(dtype) for n in range(columns)})


def extension(dtype: str, *cells: object) -> pd.DataFrame:
    """Return a frame of one extension column, long and short at once."""
    short = pd.array(list(cells), dtype=dtype)
    return pd.DataFrame({"long": short.take(np.arange(LONG) % len(cells))})


def floating_with_both() -> pd.DataFrame:
    """Return a Float64 column that holds NaN as well as NA."""
    values = np.array([1.0, np.nan, 3.0, np.nan])
    return pd.DataFrame({"f": pd.arrays.FloatingArray(values, np.array([False, False, False, True]))})


def under_mask() -> pd.DataFrame:
    """Return an Int64 column with values under its mask."""
    return pd.DataFrame({"i": pd.arrays.IntegerArray(np.arange(LONG), np.arange(LONG) % 3 == 0)})


def arrow_typed(kind: pa.DataType, *cells: object) -> pd.DataFrame:
    """Return a frame with a column of an ArrowDtype."""
    values = pa.array([cells[n % len(cells)] for n in range(1000)], type=kind)
    return pd.DataFrame({"a": pd.array(values.to_pylist(), dtype=pd.ArrowDtype(kind))})


def strided() -> np.ndarray:
    """Return every other element of every other row."""
    return np.arange(200 * 100, dtype=np.int32).reshape(200, 100)[::2, ::-2]


def self_holding() -> np.ndarray:
    """Return an array of objects one cell of which holds the array's own list."""
    cells = objects([], 1, None)
    cells[0].append(cells[0])
    return objects(1, 2, cells.tolist()[1:])


def masked_array() -> np.ma.MaskedArray:
    """Return a masked array with values under its mask."""
    return np.ma.MaskedArray(np.arange(LONG, dtype=float), mask=np.arange(LONG) % 7 == 0, fill_value=-1.0)


def chunked(*chunks: list[Any], kind: pa.DataType | None = None) -> pa.ChunkedArray:
    """Return chunks as a column."""
    return pa.chunked_array(chunks, type=kind)


def sliced_table() -> pa.Table:
    """Return rows out of the middle of a table."""
    rows = range(LONG)
    columns = {
        "i": list(rows),
        "s": [None if n % 5 == 0 else str(n) for n in rows],
        "b": [n % 3 == 0 for n in rows],
        "l": [list(range(n % 4)) for n in rows],
        "d": pa.array([str(n % 3) for n in rows]).dictionary_encode(),
    }
    return pa.table(columns).slice(13, 2000)


CASES: dict[str, Callable[[], object]] = {
    # ---- numeric frames: dtypes and blocks
    **{f"frame {kind}": (lambda kind=kind: wide(kind)) for kind in (
        "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
        "float16", "float32", "float64", "complex64", "complex128", "longdouble", "clongdouble", "bool", ">f8", ">i4",
    )},
    "frame of all": lambda: pd.concat([wide(k, 2).add_prefix(k) for k in ("int64", "float64", "int32", "bool")], axis=1),
    "frame of many blocks": grown,
    "frame of interleaved dtypes": lambda: pd.DataFrame({f"{n}": np.arange(LONG).astype("f8" if n % 2 else "i8") for n in range(9)}),
    "frame row-major": lambda: pd.DataFrame(np.arange(LONG * 7, dtype=float).reshape(LONG, 7)),
    "frame row-major int32": lambda: pd.DataFrame(np.arange(LONG * 7, dtype=np.int32).reshape(LONG, 7)),
    "frame of a column": lambda: pd.DataFrame({"a": np.arange(LONG)}),
    "frame sliced": lambda: wide("float64")[1000:2000:3],
    "frame of columns sliced": lambda: wide("float64", 8).iloc[:, 1:7:2],
    "frame reversed": lambda: wide("int16").iloc[::-1],
    "frame transposed": lambda: wide("float64").head(40).T,
    "frame empty": pd.DataFrame,
    "frame of no rows": lambda: pd.DataFrame({"a": pd.Series([], dtype="int64"), "s": pd.Series([], dtype=object)}),
    "frame of no columns": lambda: pd.DataFrame(index=range(5)),
    "frame of no columns, named index": lambda: pd.DataFrame(index=pd.Index(["x", "y"], name="k")),
    "frame of a cell": lambda: pd.DataFrame({"a": [1]}),
    "frame NaN bits": lambda: pd.DataFrame({"f": np.tile(payload_nans(), 500)}),
    "frame wide": lambda: pd.DataFrame(np.arange(3000.0).reshape(3, 1000)),
    "frame flags": lambda: pd.DataFrame({"a": [1]}).set_flags(allows_duplicate_labels=False),
    # ---- attributes
    "attributes": lambda: with_attributes(name="orders", nested={"k": [1]}, large=np.arange(1000)),
    "attributes of a Series": lambda: with_attributes(pd.Series([1.0, 2.0], name="s"), unit="m", index_of=("a", 1)),
    "attrs plain": lambda: with_attrs(source="x.csv", version=3),
    "attrs tuple": lambda: with_attrs(shape=(1, 2), nested={"t": (3, [4])}),
    "attrs int keys": lambda: with_attrs(map={1: "a", None: "b"}),
    "attrs array": lambda: with_attrs(array=np.arange(1000), small=np.arange(3)),
    "attrs datetime": lambda: with_attrs(at=dt.datetime(2024, 1, 1, tzinfo=dt.UTC), day=dt.date(2024, 2, 29)),
    "attrs frame": lambda: with_attrs(inner=pd.DataFrame({"b": ["x"]})),
    # ---- column labels
    "columns range": lambda: named(pd.RangeIndex(3)),
    "columns ints": lambda: named([3, 1, 2]),
    "columns floats": lambda: named([0.5, 1.5, np.nan]),
    "columns bools": lambda: named([True, False]),
    "columns duplicate": lambda: named(["a", "a", "b", "a"]),
    "columns tuples": lambda: named(pd.Index([("a", 1), ("b", 2)], tupleize_cols=False)),
    "columns mixed": lambda: named(pd.Index(["a", 1, None, 2.5], dtype=object)),
    "columns object text": lambda: named(pd.Index(["a", "b"], dtype=object)),
    "columns string": lambda: named(pd.Index(["a", "b"], dtype="string")),
    "columns named": lambda: named(pd.Index(["a", "b"], name="fields")),
    "columns dates": lambda: named(pd.date_range("2024", periods=3)),
    "columns periods": lambda: named(pd.period_range("2024", periods=3, freq="Q")),
    "columns intervals": lambda: named(pd.interval_range(0, 3)),
    "columns categories": lambda: named(pd.CategoricalIndex(["b", "a"], categories=["a", "b", "c"], ordered=True)),
    "columns levels": lambda: named(pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)], names=["l", None])),
    "columns empty text": lambda: named(["", " ", "__index_level_0__"]),
    "columns surrogate": lambda: named(pd.Index(["\ud800", "b"], dtype=object)),
    # ---- indexes
    "index range": lambda: indexed(pd.RangeIndex(5, 50, 5, name="r")),
    "index range negative": lambda: indexed(pd.RangeIndex(10, 0, -3)),
    "index int64": lambda: indexed(pd.Index(np.arange(LONG)[::-1])),
    "index int8": lambda: indexed(pd.Index([3, 1], dtype="int8")),
    "index uint64": lambda: indexed(pd.Index([2**63, 1], dtype="uint64")),
    "index float": lambda: indexed(pd.Index([0.1, np.nan, -0.0])),
    "index bool": lambda: indexed(pd.Index([True, False])),
    "index complex": lambda: indexed(pd.Index([1j, 2.0])),
    "index Int64": lambda: indexed(pd.Index([1, None, 3], dtype="Int64")),
    "index text": lambda: indexed(pd.Index([f"row {n}" for n in range(LONG)], name="key")),
    "index object text": lambda: indexed(pd.Index([f"row {n}" for n in range(LONG)], dtype=object)),
    "index object mixed": lambda: indexed(pd.Index(["a", 1, None, (1, 2), b"x"], dtype=object)),
    "index string": lambda: indexed(pd.Index(["a", None], dtype="string")),
    "index string python": lambda: indexed(pd.Index(["a", None], dtype="string[python]")),
    "index named by int": lambda: indexed(pd.Index([1, 2], name=0)),
    "index named by tuple": lambda: indexed(pd.Index([1, 2], name=("a", 1))),
    "index dates": lambda: indexed(pd.DatetimeIndex(["2024-01-01", None, "1969-12-31"])),
    "index dates with freq": lambda: indexed(pd.date_range("2024", periods=LONG, freq="h")),
    "index dates business": lambda: indexed(pd.date_range("2024", periods=20, freq="BME")),
    "index dates custom": lambda: indexed(pd.date_range("2024", periods=9, freq=pd.offsets.CustomBusinessDay(weekmask="Mon Wed"))),
    "index dates zone": lambda: indexed(pd.date_range("2024", periods=48, freq="h", tz="Europe/Paris")),
    "index dates fold": lambda: indexed(pd.date_range("2024-10-26", periods=48, freq="h", tz="Europe/Paris")),
    "index spans": lambda: indexed(pd.timedelta_range("1h", periods=LONG, freq="37s")),
    "index periods": lambda: indexed(pd.period_range("2024", periods=LONG, freq="D")),
    "index intervals": lambda: indexed(pd.interval_range(0.0, 10.0, closed="both")),
    "index intervals of dates": lambda: indexed(pd.interval_range(pd.Timestamp("2024"), periods=4, freq="W")),
    "index categories": lambda: indexed(pd.CategoricalIndex(["b", None, "a"], categories=["a", "b", "c"])),
    "index levels": lambda: indexed(pd.MultiIndex.from_product([range(60), list("abcdefghij"), [True, False]])),
    "index levels unused": lambda: indexed(unused_levels()),
    "index levels missing": lambda: indexed(missing_in_levels()),
    "index levels sorted": lambda: indexed(pd.MultiIndex.from_product([[1, 2], ["x", "y"]]).sortlevel()[0]),
    "index levels of dates": lambda: indexed(pd.MultiIndex.from_product([pd.date_range("2024", periods=3, tz="UTC"), ["x"]])),
    "index levels empty": lambda: indexed(pd.MultiIndex.from_arrays([[], []], names=["a", "b"])),
    "index levels duplicate names": lambda: indexed(pd.MultiIndex.from_tuples([(1, 2)], names=["n", "n"])),
    "index arrow": lambda: indexed(pd.Index([1, None], dtype="int64[pyarrow]")),
    # ---- moments
    **{f"dates {unit}": (lambda unit=unit: pd.DataFrame({"t": (np.arange(LONG) * 86400).astype(f"M8[{unit}]"), "u": np.array([*range(LONG - 1), "NaT"], dtype=f"M8[{unit}]")})) for unit in ("s", "ms", "us", "ns")},
    **{f"spans {unit}": (lambda unit=unit: pd.DataFrame({"t": np.array([*range(LONG - 1), "NaT"], dtype=f"m8[{unit}]")})) for unit in ("s", "ms", "us", "ns")},
    "dates far": lambda: pd.DataFrame({"t": np.array(["0001-01-01", "9999-12-31", "NaT"], dtype="M8[s]")}),
    "zone named": lambda: pd.DataFrame({"t": pd.date_range("2024", periods=LONG, tz="America/New_York")}),
    "zone utc": lambda: pd.DataFrame({"t": pd.date_range("2024", periods=3, tz=dt.UTC)}),
    "zone text utc": lambda: pd.DataFrame({"t": pd.date_range("2024", periods=3, tz="UTC")}),
    "zone zoneinfo": lambda: pd.DataFrame({"t": pd.date_range("2024", periods=3, tz=zoneinfo.ZoneInfo("Asia/Kathmandu"))}),
    "zone fixed": lambda: pd.DataFrame({"t": pd.date_range("2024", periods=3, tz=dt.timezone(dt.timedelta(hours=5, minutes=30)))}),
    "zone fixed named": lambda: pd.DataFrame({"t": pd.date_range("2024", periods=3, tz=dt.timezone(dt.timedelta(hours=-3), "XYZ"))}),
    "zone dateutil": lambda: pd.DataFrame({"t": pd.date_range("2024", periods=3, tz="dateutil/Europe/London")}),
    "zone seconds": lambda: pd.DataFrame({"t": pd.date_range("2024", periods=3, tz="Asia/Tokyo", unit="s")}),
    "zone two": lambda: pd.DataFrame({"a": pd.date_range("2024", periods=500, tz="UTC"), "b": pd.date_range("2024", periods=500, tz="Asia/Tokyo"), "c": pd.date_range("2024", periods=500, tz="UTC")}),
    "periods": lambda: pd.DataFrame({"p": pd.period_range("2000", periods=LONG, freq="D"), "m": pd.period_range("2000", periods=LONG, freq="M")}),
    "periods missing": lambda: pd.DataFrame({"p": pd.array(["2024-01", None], dtype="period[M]")}),
    "intervals": lambda: pd.DataFrame({"i": pd.arrays.IntervalArray.from_breaks(np.arange(LONG + 1.0))}),
    "intervals missing": lambda: pd.DataFrame({"i": pd.arrays.IntervalArray.from_tuples([(0.0, 1.0), None], closed="left")}),
    # ---- masked
    **{f"masked {kind}": (lambda kind=kind: extension(kind, 1, None, 0)) for kind in ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt64", "Float32", "Float64", "boolean")},
    "masked both": floating_with_both,
    "masked garbage": under_mask,
    # ---- text
    "str": lambda: pd.DataFrame({"s": pd.Series([f"ä{n}" for n in range(LONG)], dtype="str")}),
    "str missing": lambda: pd.DataFrame({"s": pd.Series(["a", np.nan, ""] * 1000, dtype="str")}),
    "str all missing": lambda: pd.DataFrame({"s": pd.Series([np.nan] * 3, dtype="str")}),
    "str sliced": lambda: pd.DataFrame({"s": pd.Series([f"ä{n}" for n in range(LONG)], dtype="str")})[7:-5],
    "str concatenated": lambda: pd.concat([pd.DataFrame({"s": pd.Series([f"{n}", None], dtype="str")}) for n in range(9)]),
    "string": lambda: pd.DataFrame({"s": pd.Series(["a", None, "ß"] * 1000, dtype="string")}),
    "string python": lambda: pd.DataFrame({"s": pd.Series(["a", None, "ß"] * 1000, dtype="string[python]")}),
    "string pyarrow": lambda: pd.DataFrame({"s": pd.Series(["a", None, "ß"] * 1000, dtype="string[pyarrow]")}),
    # ---- categories
    "categories": lambda: pd.DataFrame({"c": pd.Categorical.from_codes(np.arange(LONG) % 3, ["x", "y", "z"])}),
    "categories missing": lambda: pd.DataFrame({"c": pd.Categorical.from_codes(np.arange(LONG) % 4 - 1, ["x", "y", "z"])}),
    "categories ordered": lambda: pd.DataFrame({"c": pd.Categorical(["lo", "hi"], categories=["lo", "mid", "hi"], ordered=True)}),
    "categories unused": lambda: pd.DataFrame({"c": pd.Categorical(["a"], categories=["b", "a", "zz"])}),
    "categories none": lambda: pd.DataFrame({"c": pd.Categorical([None, None])}),
    "categories of no rows": lambda: pd.DataFrame({"c": pd.Categorical([], categories=["a", "b"])}),
    "categories many": lambda: pd.DataFrame({"c": pd.Categorical([f"k{n}" for n in range(LONG)])}),
    "categories ints": lambda: pd.DataFrame({"c": pd.Categorical([3, 1, 2, 1])}),
    "categories floats": lambda: pd.DataFrame({"c": pd.Categorical([0.5, -0.0, 1e300])}),
    "categories bools": lambda: pd.DataFrame({"c": pd.Categorical([True, False])}),
    "categories mixed": lambda: pd.DataFrame({"c": pd.Categorical(objects("a", 1, 2.5, "a"))}),
    "categories object text": lambda: pd.DataFrame({"c": pd.Categorical(pd.Series(["a", "b"], dtype=object))}),
    "categories dates": lambda: pd.DataFrame({"c": pd.Categorical(pd.date_range("2024", periods=3, tz="UTC"))}),
    "categories dates freq": lambda: pd.DataFrame({"c": pd.Categorical.from_codes([0, 2, 1], pd.date_range("2024", periods=3, freq="D"))}),
    "categories intervals": lambda: pd.DataFrame({"c": pd.cut(np.arange(100), 7)}),
    "categories periods": lambda: pd.DataFrame({"c": pd.Categorical(pd.period_range("2024", periods=2, freq="M"))}),
    "categories tuples": lambda: pd.DataFrame({"c": pd.Categorical(objects((1, 2), (1, 2), (3, 4)))}),
    # ---- sparse
    "sparse": lambda: pd.DataFrame({"s": pd.arrays.SparseArray([0.0] * LONG + [1.5])}),
    "sparse ints": lambda: pd.DataFrame({"s": pd.arrays.SparseArray([7, 7, 1], fill_value=7)}),
    "sparse bools": lambda: pd.DataFrame({"s": pd.arrays.SparseArray([True, False, True], fill_value=False)}),
    "sparse blocks": lambda: pd.DataFrame({"s": pd.arrays.SparseArray([0, 1, 1, 0], kind="block")}),
    # ---- ArrowDtype
    "arrow int64": lambda: arrow_typed(pa.int64(), 1, None, 3),
    "arrow bool": lambda: arrow_typed(pa.bool_(), True, None, False),
    "arrow string": lambda: arrow_typed(pa.string(), "a", None, "ß"),
    "arrow large_string": lambda: arrow_typed(pa.large_string(), "a", None),
    "arrow binary": lambda: arrow_typed(pa.binary(), b"a", None),
    "arrow decimal": lambda: arrow_typed(pa.decimal128(9, 2), decimal.Decimal("1.50"), None),
    "arrow list": lambda: arrow_typed(pa.list_(pa.int32()), [1, 2], None, []),
    "arrow struct": lambda: arrow_typed(pa.struct({"a": pa.int64(), "b": pa.string()}), {"a": 1, "b": "x"}, None),
    "arrow map": lambda: arrow_typed(pa.map_(pa.string(), pa.int64()), [("a", 1)], None),
    "arrow dictionary": lambda: pd.DataFrame({"a": pd.Series(pd.arrays.ArrowExtensionArray(pa.array(["a", None, "b"] * 900).dictionary_encode()))}),
    "arrow date32": lambda: arrow_typed(pa.date32(), dt.date(2024, 1, 1), None),
    "arrow time64": lambda: arrow_typed(pa.time64("us"), dt.time(1, 2, 3), None),
    "arrow timestamp": lambda: arrow_typed(pa.timestamp("us", "UTC"), dt.datetime(2024, 1, 1, tzinfo=dt.UTC), None),
    "arrow duration": lambda: arrow_typed(pa.duration("ms"), dt.timedelta(seconds=5), None),
    "arrow null": lambda: arrow_typed(pa.null(), None),
    # ---- object columns
    "objects text": lambda: column(*(f"text {n}" for n in range(LONG))),
    "objects text and None": lambda: column(*("a", None, "b") * 1000),
    "objects text and NaN": lambda: column(*("a", np.nan, "b") * 1000),
    "objects text and every missing": lambda: column(*("a", np.nan, None, pd.NA, pd.NaT, "") * 500),
    "objects text repeated": lambda: column(*["the very same"] * LONG),
    "objects two columns": lambda: pd.DataFrame({"a": pd.Series(["x", "y"] * 900, dtype=object), "b": pd.Series([1, "y"] * 900, dtype=object)}),
    "objects None": lambda: column(None, None),
    "objects missing": lambda: column(None, np.nan, pd.NA, pd.NaT),
    "objects NaN of other bits": lambda: column("a", *payload_nans().tolist()),
    "objects surrogate": lambda: column("\ud800", "ok"),
    "objects NUL": lambda: column("a\0b", "", "\0"),
    "objects ints": lambda: column(1, 2, 3),
    "objects big ints": lambda: column(2**70, -(2**65), 0),
    "objects bools": lambda: column(True, False, None),
    "objects True and 1": lambda: column(True, 1, 1.0, "1", np.True_, np.int64(1)),
    "objects floats": lambda: column(0.1, -0.0, float("inf")),
    "objects mixed": lambda: column(1, "a", 2.5, b"x", None, (1,)),
    "objects bytes": lambda: column(b"a", b"", bytearray(b"b")),
    "objects text class": lambda: column(np.str_("a"), "b"),
    "objects dates": lambda: column(dt.date(2024, 1, 1), dt.datetime(2024, 1, 1), dt.time(1, 2)),
    "objects zoned": lambda: column(dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Paris"))),
    "objects timestamps": lambda: column(pd.Timestamp("2024", tz="Europe/Paris"), pd.Timestamp(1), pd.Timedelta("1s")),
    "objects periods": lambda: column(pd.Period("2024-01", "M"), pd.Period("2024-01-01", "D")),
    "objects intervals": lambda: column(pd.Interval(0, 1), pd.Interval(0.5, 1.5, closed="both")),
    "objects offsets": lambda: column(pd.offsets.MonthEnd(2), pd.DateOffset(months=1)),
    "objects decimals": lambda: column(decimal.Decimal("1.10"), decimal.Decimal("NaN"), None),
    "objects fractions": lambda: column(fractions.Fraction(1, 3)),
    "objects complex": lambda: column(1j, complex("nan")),
    "objects lists": lambda: column([1, 2], [], [[3]]),
    "objects lists of one length": lambda: column([1, 2], [3, 4]),
    "objects tuples": lambda: column((1, 2), (3, 4)),
    "objects dicts": lambda: column({"a": 1}, {"b": {"c": 2}}, {}),
    "objects sets": lambda: column({1, 2}, frozenset({"a"}), set()),
    "objects arrays": lambda: column(np.arange(1000), np.arange(3), np.array(5), np.zeros((2, 3), order="F")),
    "objects arrays of objects": lambda: column(objects("a", None), objects([1], {2: 3})),
    "objects NumPy scalars": lambda: column(np.float32(0.1), np.int8(3), np.datetime64("2024"), np.bool_(1), np.str_("s"), np.bytes_(b"b")),
    "objects frames": lambda: column(pd.DataFrame({"a": [1]}), pd.Series([1.0], name="s"), pd.Index(["i"])),
    "objects Arrow": lambda: column(pa.array([1, None]), pa.scalar(3).as_py()),
    "objects paths": lambda: column(pathlib.PurePosixPath("/a/b"), pathlib.PurePosixPath("c")),
    "objects uuids": lambda: column(uuid.UUID(int=5)),
    "objects addresses": lambda: column(ipaddress.ip_address("10.0.0.1"), ipaddress.ip_network("10.0.0.0/8")),
    "objects collections": lambda: column(Counter("aab"), OrderedDict(b=1, a=2), deque([1, 2])),
    "objects ranges": lambda: column(range(5), slice(1, 2), Ellipsis),
    "objects self-holding": self_holding,
    "objects instances": lambda: column(Point(1), Point(2)),
    "objects functions": lambda: column(len, Point),
    "frame class": tagged,
    # ---- Series and indexes by themselves
    "series": lambda: pd.Series(np.arange(LONG, dtype=float), name="x"),
    "series named by tuple": lambda: pd.Series([1], name=("a", 1)),
    "series unnamed": lambda: pd.Series(["a", None], dtype="str"),
    "series of no rows": lambda: pd.Series([], dtype="M8[ns]"),
    "series indexed": lambda: pd.Series([1.0, 2.0], index=pd.Index(["a", "b"], name="k"), name="v"),
    "series object": lambda: pd.Series(objects([1], "a"), dtype=object),
    "series sliced": lambda: pd.Series(np.arange(LONG))[10:2500:2],
    "index alone": lambda: pd.Index(np.arange(LONG)[::-1], name="i"),
    "index alone text": lambda: pd.Index([f"{n}" for n in range(LONG)]),
    "index alone range": lambda: pd.RangeIndex(0, 10**12, 7),
    "index alone levels": lambda: pd.MultiIndex.from_product([range(100), list("abc")], names=["a", "b"]),
    "index alone dates": lambda: pd.date_range("2024", periods=LONG, freq="15min", tz="UTC", name="t"),
    "index alone categories": lambda: pd.CategoricalIndex(["a", "b", None]),
    "index alone intervals": lambda: pd.interval_range(0, 500),
    # ---- arrays
    **{f"array {kind}": (lambda kind=kind: np.arange(LONG).astype(kind)) for kind in ("i1", "u2", "i4", "f2", "f4", "f8", "g", "c8", "c16", "G", "?", ">f8", ">i2", "S7", "U5", "V9", "O")},
    **{f"array {kind}": (lambda kind=kind: np.array([*range(LONG - 1), "NaT"], dtype=kind)) for kind in ("M8[D]", "M8[us]", "M8[Y]", "M8[25s]", "m8[ns]", "m8[h]", ">M8[s]")},
    "array of no dimension": lambda: np.array(3.5),
    "array of nothing": lambda: np.empty((0, 5), dtype="i4"),
    "array of two": lambda: np.arange(3000.0).reshape(30, 100),
    "array of three": lambda: np.arange(3000, dtype="i2").reshape(3, 10, 100),
    "array in column order": lambda: np.asfortranarray(np.arange(3000.0).reshape(100, 30)),
    "array in mixed order": lambda: np.arange(6000.0).reshape(10, 20, 30).transpose(1, 0, 2),
    "array strided": strided,
    "array reversed": lambda: np.arange(LONG)[::-1],
    "array broadcast": lambda: np.broadcast_to(np.arange(30.0), (100, 30)),
    "array read-only": lambda: locked(np.arange(LONG)),
    "array read-only objects": lambda: locked(objects("a", [1], None)),
    "array NaN bits": lambda: np.tile(payload_nans(), 500),
    "array records": lambda: np.array([(1, 2.5, b"x")] * 500, dtype=[("a", "i4"), ("b", "f8"), ("c", "S3")]),
    "array records nested": lambda: np.zeros(300, dtype=[("p", [("x", "f4"), ("y", "f4")]), ("v", "i2", (3,))]),
    "array records aligned": lambda: np.zeros(300, dtype=np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    "array records titled": lambda: np.zeros(300, dtype=np.dtype({"names": ["a"], "formats": ["i4"], "offsets": [4], "titles": ["A title"], "itemsize": 12})),
    "array records of objects": lambda: np.array([(1, "a"), (2, None)], dtype=[("n", "i4"), ("o", "O")]),
    "array dtype metadata": lambda: np.zeros(500, dtype=np.dtype("f8", metadata={"unit": "m"})),
    "array objects": lambda: objects(*(f"{n}" for n in range(LONG))),
    "array objects of two": lambda: objects(*range(6)).reshape(2, 3),
    "array objects in column order": lambda: np.asfortranarray(objects("a", 1, None, [2], "e", 6).reshape(2, 3)),
    "array text": lambda: np.array(["ä", "bcd", ""] * 500),
    "recarray": lambda: np.rec.array([(1, 2.0)] * 500, dtype=[("a", "i4"), ("b", "f8")]),
    "matrix": lambda: np.arange(600.0).reshape(20, 30).view(np.matrix),
    "masked array": masked_array,
    "masked array without a mask": lambda: np.ma.MaskedArray(np.arange(LONG)),
    "masked array hard": lambda: np.ma.MaskedArray([1, 2, 3], mask=[0, 1, 0], hard_mask=True),
    # ---- Arrow
    "table": lambda: pa.table({"a": list(range(LONG)), "s": [f"{n}" for n in range(LONG)]}),
    "table sliced": sliced_table,
    "table chunked": lambda: pa.concat_tables([pa.table({"a": [n, None], "s": ["x", f"{n}"]}) for n in range(400)]),
    "table of no rows": lambda: pa.table({"a": pa.array([], pa.int64()), "l": pa.array([], pa.list_(pa.string()))}),
    "table of no columns": lambda: pa.table({}),
    "table metadata": lambda: pa.table({"a": [1]}).replace_schema_metadata({"k": "v", b"\xff": b"\x00"}),
    "table fields": lambda: pa.table([pa.array([1])], schema=pa.schema([pa.field("a", pa.int64(), nullable=False, metadata={"u": "m"})])),
    "table duplicate names": lambda: pa.Table.from_arrays([pa.array([1]), pa.array(["x"])], names=["a", "a"]),
    "record batch": lambda: pa.record_batch({"a": list(range(LONG)), "l": [[n, None] for n in range(LONG)]}),
    **{f"arrow array {kind}": (lambda kind=kind, cells=cells: pa.array([*cells, None] * 700, type=kind)) for kind, cells in (
        (pa.int8(), [1]), (pa.uint64(), [2**63]), (pa.float16(), [np.float16(1.5)]), (pa.float64(), [float("nan")]), (pa.bool_(), [True, False]),
        (pa.string(), ["a", ""]), (pa.large_string(), ["ß"]), (pa.binary(), [b"\xff"]), (pa.binary(3), [b"abc"]),
        (pa.decimal128(5, 2), [decimal.Decimal("1.23")]), (pa.decimal256(50, 2), [decimal.Decimal("1.23")]),
        (pa.date32(), [dt.date(2024, 1, 1)]), (pa.date64(), [dt.date(2024, 1, 1)]), (pa.time32("s"), [dt.time(1)]), (pa.time64("ns"), [dt.time(1)]),
        (pa.timestamp("ns"), [1]), (pa.timestamp("ms", "Europe/Paris"), [1]), (pa.duration("us"), [1]), (pa.month_day_nano_interval(), [(1, 2, 3)]),
        (pa.list_(pa.int64()), [[1, None], []]), (pa.large_list(pa.string()), [["a"]]), (pa.list_(pa.float32(), 2), [[1.0, 2.0]]),
        (pa.struct({"a": pa.int64(), "b": pa.list_(pa.string())}), [{"a": 1, "b": ["x"]}]), (pa.map_(pa.string(), pa.int8()), [[("k", 1)]]),
        (pa.list_(pa.struct({"x": pa.list_(pa.int8())})), [[{"x": [1]}]]),
    )},
    "arrow array null": lambda: pa.nulls(50),
    "arrow array dictionary": lambda: pa.array(["a", None, "b"] * 800).dictionary_encode(),
    "arrow array dictionary nested": lambda: pa.StructArray.from_arrays([pa.array(["a", "b"]).dictionary_encode(), pa.array([1, 2])], names=["d", "i"]),
    "arrow array dense union": lambda: pa.UnionArray.from_dense(pa.array([0, 1, 0], pa.int8()), pa.array([0, 0, 1], pa.int32()), [pa.array([1, 2]), pa.array(["x"])]),
    "arrow array sparse union": lambda: pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["x", "y"])]),
    "arrow array run-end encoded": lambda: pa.RunEndEncodedArray.from_arrays([500, 1000], ["a", "b"]),
    "arrow array string view": lambda: pa.array(["short", "a text that is longer than twelve", None] * 300, pa.string_view()),
    "arrow array tensor": lambda: pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(600.0).reshape(100, 2, 3)),
    "arrow array sliced": lambda: pa.array([None if n % 7 == 0 else f"{n}" for n in range(LONG)])[11:2000],
    "arrow array sliced bools": lambda: pa.array([n % 3 == 0 for n in range(LONG)])[11:2000],
    "arrow array sliced lists": lambda: pa.array([[n] * (n % 5) for n in range(LONG)])[11:2000],
    "arrow chunks": lambda: chunked([1, 2], [], [None, 4]),
    "arrow chunks of text": lambda: chunked([f"{n}" for n in range(1000)], [None], kind=pa.string()),
    "arrow chunks of nothing": lambda: pa.chunked_array([], type=pa.int64()),
    # ---- polars
    "polars": lambda: pl.DataFrame({"i": range(LONG), "f": np.arange(LONG) / 7, "s": [f"{n}" for n in range(LONG)], "b": [n % 2 == 0 for n in range(LONG)]}),
    "polars missing": lambda: pl.DataFrame({"i": [1, None], "s": [None, "x"], "f": [float("nan"), None]}),
    "polars moments": lambda: pl.DataFrame({"d": [dt.date(2024, 1, 1), None], "t": [dt.datetime(2024, 1, 1), None], "z": pl.Series([dt.datetime(2024, 1, 1)] * 2).dt.replace_time_zone("Europe/Paris"), "p": [dt.timedelta(1), None], "c": [dt.time(1), None]}),
    "polars nested": lambda: pl.DataFrame({"l": [[1, 2], None, []], "s": [{"a": 1, "b": "x"}] * 3}),
    "polars array": lambda: pl.DataFrame({"a": pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int16, 2))}),
    "polars categories": lambda: pl.DataFrame({"c": pl.Series(["a", None, "b"], dtype=pl.Categorical)}),
    "polars enum": lambda: pl.DataFrame({"e": pl.Series(["lo", "hi", None], dtype=pl.Enum(["lo", "mid", "hi"]))}),
    "polars decimal": lambda: pl.DataFrame({"d": pl.Series([decimal.Decimal("1.50"), None], dtype=pl.Decimal(10, 2))}),
    "polars binary": lambda: pl.DataFrame({"b": [b"\xff", None]}),
    "polars null": lambda: pl.DataFrame({"n": [None, None]}),
    "polars wide": lambda: pl.DataFrame({"w": pl.Series([2**100, None], dtype=pl.Int128)}),
    "polars sorted": lambda: pl.DataFrame({"a": pl.Series(range(LONG)).set_sorted(), "d": pl.Series(range(3000, -1, -1)).set_sorted(descending=True)}),
    "polars chunked": lambda: pl.concat([pl.DataFrame({"a": [n], "s": [str(n)]}) for n in range(300)], rechunk=False),
    "polars sliced": lambda: pl.DataFrame({"a": range(LONG), "s": [str(n) for n in range(LONG)]})[100:2000:3],
    "polars of no rows": lambda: pl.DataFrame(schema={"a": pl.Int8, "s": pl.String, "l": pl.List(pl.Date)}),
    "polars of no columns": pl.DataFrame,
    "polars objects": lambda: pl.DataFrame({"o": pl.Series([Point(1), None], dtype=pl.Object)}),
    "polars series": lambda: pl.Series("x", [f"{n}" for n in range(LONG)]),
    "polars series unnamed": lambda: pl.Series([1.5, None]),
}  # fmt: skip

if not hasattr(pl, "Int128"):
    del CASES["polars wide"]

if not PANDAS_3:
    # pandas 2 cannot make these with the dateutil of today.
    del CASES["zone dateutil"]

NEEDS_TRUST = {
    "objects instances",
    "objects functions",
    "frame class",
    "polars objects",
    "zone dateutil",
}
"""What holds classes or functions of the user's own, or a zone that is read from a file."""
