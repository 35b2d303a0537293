"""Whether two values are the same, to the bit: types, dtypes, structure, names, attributes, object cells."""

from __future__ import annotations

import math
import struct
from collections import OrderedDict, deque
from functools import singledispatch
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa


class Differs(AssertionError):
    """Says where two values part."""


def same(one: object, two: object, where: str = "value") -> None:
    """Raise Differs unless the two are the same."""
    if type(one) is not type(two):
        raise Differs(f"{where}: {type(one).__name__} is not {type(two).__name__}")
    _same(one, two, where)


def check(*, holds: bool, where: str, one: object = "", two: object = "") -> None:
    """Raise Differs where something does not hold."""
    if not holds:
        raise Differs(f"{where}: {one!r} is not {two!r}"[:500])


@singledispatch
def _same(one: Any, two: Any, where: str) -> None:
    if hasattr(one, "__dict__") and type(one).__eq__ is object.__eq__:
        same(vars(one), vars(two), f"{where}.__dict__")
    else:
        check(holds=bool(one == two) or (one != one and two != two), where=where, one=one, two=two)  # noqa: PLR0124 - NaN
        check(holds=repr(one) == repr(two), where=f"repr({where})", one=one, two=two)


@_same.register
def _(one: float, two: float, where: str) -> None:
    check(holds=struct.pack("d", one) == struct.pack("d", two), where=where, one=one, two=two)


@_same.register
def _(one: complex, two: complex, where: str) -> None:
    same((one.real, one.imag), (two.real, two.imag), where)


@_same.register
def _(one: np.generic, two: np.generic, where: str) -> None:
    same(one.dtype, two.dtype, f"{where}.dtype")
    if isinstance(one, np.void) and one.dtype.hasobject:
        same(one.item(), two.item(), where)
    else:
        check(holds=_bits(np.asarray(one)) == _bits(np.asarray(two)), where=where, one=one, two=two)


@_same.register
def _(one: np.dtype, two: np.dtype, where: str) -> None:
    check(holds=one == two and one.isnative == two.isnative, where=where, one=one, two=two)
    check(holds=one.names == two.names and one.fields == two.fields, where=where, one=one, two=two)
    check(holds=dict(one.metadata or {}) == dict(two.metadata or {}), where=f"{where}.metadata", one=one, two=two)
    check(holds=one.isalignedstruct == two.isalignedstruct, where=f"{where}.isalignedstruct")


@_same.register(list)
@_same.register(tuple)
@_same.register(deque)
def _(one: Any, two: Any, where: str) -> None:
    check(holds=len(one) == len(two), where=f"len({where})", one=len(one), two=len(two))
    for number, (left, right) in enumerate(zip(one, two, strict=True)):
        same(left, right, f"{where}[{number}]")


@_same.register(dict)
@_same.register(OrderedDict)
def _(one: Any, two: Any, where: str) -> None:
    same(list(one), list(two), f"{where} keys")
    for key in one:
        same(one[key], two[key], f"{where}[{key!r}]")


@_same.register(set)
@_same.register(frozenset)
def _(one: Any, two: Any, where: str) -> None:
    check(holds=one == two, where=where, one=one, two=two)
    by_text = {repr(item): type(item) for item in two}
    check(holds={repr(item): type(item) for item in one} == by_text, where=where, one=one, two=two)


@_same.register
def _(one: np.ndarray, two: np.ndarray, where: str) -> None:
    same(one.dtype, two.dtype, f"{where}.dtype")
    same(one.shape, two.shape, f"{where}.shape")
    check(
        holds=one.flags.writeable == two.flags.writeable, where=f"{where}.flags.writeable", one=one.flags, two=two.flags
    )
    if isinstance(one, np.ma.MaskedArray):
        _masked(one, two, where)
    elif one.dtype.kind == "T" or (one.dtype.hasobject and one.dtype.names is None):
        for number, (left, right) in enumerate(zip(one.ravel().tolist(), two.ravel().tolist(), strict=True)):
            same(left, right, f"{where}.flat[{number}]")
    elif one.dtype.hasobject:
        same(one.tolist(), two.tolist(), where)
    else:
        check(holds=_bits(one) == _bits(two), where=where, one=one, two=two)
    if min(one.shape, default=0) > 1 and one.flags.forc and not one.dtype.hasobject:
        check(
            holds=one.flags.c_contiguous == two.flags.c_contiguous,
            where=f"{where} order",
            one=one.strides,
            two=two.strides,
        )


def _masked(one: Any, two: Any, where: str) -> None:
    check(
        holds=(one.mask is np.ma.nomask) == (two.mask is np.ma.nomask),
        where=f"{where}.mask",
        one=one.mask,
        two=two.mask,
    )
    same(np.asarray(one.mask), np.asarray(two.mask), f"{where}.mask")
    same(np.asarray(one.data), np.asarray(two.data), f"{where}.data")
    same(one.fill_value, two.fill_value, f"{where}.fill_value")
    same(one.hardmask, two.hardmask, f"{where}.hardmask")


def _bits(array: np.ndarray) -> bytes:
    dense = np.ascontiguousarray(array).reshape(-1)
    if dense.dtype.kind in "fc" and dense.itemsize in (16, 32) and dense.dtype.kind + str(dense.itemsize) != "c16":
        # A long double has 80 bits that count and 48 that say nothing.
        return b"".join(repr(item).encode() for item in dense.tolist()) + repr([str(item) for item in dense]).encode()
    return dense.view(np.uint8).tobytes() if dense.itemsize else b""


# ---------------------------------------------------------------- pandas


def _labels(one: Any, two: Any, where: str) -> None:
    same(dict(one.attrs), dict(two.attrs), f"{where}.attrs")
    given = [{k: v for k, v in vars(x).items() if k[0] != "_" and not hasattr(type(x), k)} for x in (one, two)]
    same(*given, f"{where}'s own attributes")
    same(one.flags.allows_duplicate_labels, two.flags.allows_duplicate_labels, f"{where}.flags")
    for name in one._metadata:
        if name not in {"_name", "name"}:
            same(getattr(one, name, None), getattr(two, name, None), f"{where}.{name}")


@_same.register
def _(one: pd.DataFrame, two: pd.DataFrame, where: str) -> None:
    _labels(one, two, where)
    same(one.index, two.index, f"{where}.index")
    same(one.columns, two.columns, f"{where}.columns")
    left, right = _blocks(one), _blocks(two)
    check(holds=len(left) == len(right), where=f"{where} blocks", one=len(left), two=len(right))
    for number, (mine, yours) in enumerate(zip(left, right, strict=True)):
        same(mine.mgr_locs.as_array.tolist(), yours.mgr_locs.as_array.tolist(), f"{where} placement of block {number}")
        _block_values(mine.values, yours.values, f"{where} block {number}")


def _blocks(frame: pd.DataFrame) -> list[Any]:
    return list(frame._mgr.blocks)


def _block_values(one: Any, two: Any, where: str) -> None:
    if isinstance(one, np.ndarray):
        # A row-major block may come back column-major: pandas shows it nowhere.
        same(one.dtype, two.dtype, where)
        one, two = np.ascontiguousarray(one), np.ascontiguousarray(two)
    same(one, two, where)


@_same.register
def _(one: pd.Series, two: pd.Series, where: str) -> None:
    _labels(one, two, where)
    same(one.name, two.name, f"{where}.name")
    same(one.index, two.index, f"{where}.index")
    same(one.array, two.array, f"{where}.array")


@_same.register
def _(one: pd.Index, two: pd.Index, where: str) -> None:
    same(list(one.names), list(two.names), f"{where}.names")
    same(getattr(one, "freq", None), getattr(two, "freq", None), f"{where}.freq")
    same(one.array, two.array, f"{where}.array")


@_same.register
def _(one: pd.RangeIndex, two: pd.RangeIndex, where: str) -> None:
    same((one.start, one.stop, one.step, one.name), (two.start, two.stop, two.step, two.name), where)


@_same.register
def _(one: pd.MultiIndex, two: pd.MultiIndex, where: str) -> None:
    same(list(one.names), list(two.names), f"{where}.names")
    for number in range(one.nlevels):
        same(one.levels[number], two.levels[number], f"{where}.levels[{number}]")
        mine, yours = np.asarray(one.codes[number]), np.asarray(two.codes[number])
        same(mine.dtype, yours.dtype, f"{where}.codes[{number}]")
        same(mine.tolist(), yours.tolist(), f"{where}.codes[{number}]")
    same(one.sortorder, two.sortorder, f"{where}.sortorder")


@_same.register
def _(one: pd.api.extensions.ExtensionArray, two: pd.api.extensions.ExtensionArray, where: str) -> None:
    same(one.dtype, two.dtype, f"{where}.dtype")
    check(holds=repr(one.dtype) == repr(two.dtype), where=f"{where}.dtype", one=one.dtype, two=two.dtype)
    _array(one, two, where)


@singledispatch
def _array(one: Any, two: Any, where: str) -> None:
    same(list(one), list(two), where)


@_array.register
def _(one: pd.arrays.NumpyExtensionArray, two: pd.arrays.NumpyExtensionArray, where: str) -> None:
    same(_free(one), _free(two), where)


def _free(array: Any) -> np.ndarray:
    """Return an array's values without its writeable flag, which pandas sets as it likes."""
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


@_array.register
def _(one: pd.Categorical, two: pd.Categorical, where: str) -> None:
    same(_free(one.codes), _free(two.codes), f"{where}.codes")
    same(one.categories, two.categories, f"{where}.categories")
    same(one.ordered, two.ordered, f"{where}.ordered")


@_array.register(pd.arrays.DatetimeArray)
@_array.register(pd.arrays.TimedeltaArray)
@_array.register(pd.arrays.PeriodArray)
def _(one: Any, two: Any, where: str) -> None:
    same(_free(one.asi8), _free(two.asi8), where)
    same(getattr(one, "freq", None), getattr(two, "freq", None), f"{where}.freq")
    same(type(getattr(one, "tz", None)), type(getattr(two, "tz", None)), f"{where}.tz")
    check(holds=str(getattr(one, "tz", None)) == str(getattr(two, "tz", None)), where=f"{where}.tz")


@_array.register
def _(one: pd.arrays.IntervalArray, two: pd.arrays.IntervalArray, where: str) -> None:
    same(one.left, two.left, f"{where}.left")
    same(one.right, two.right, f"{where}.right")
    same(one.closed, two.closed, f"{where}.closed")


@_array.register
def _(one: pd.arrays.SparseArray, two: pd.arrays.SparseArray, where: str) -> None:
    same(one.fill_value, two.fill_value, f"{where}.fill_value")
    same(_free(one.sp_values), _free(two.sp_values), f"{where}.sp_values")
    same(type(one.sp_index), type(two.sp_index), f"{where}.sp_index")
    check(holds=one.sp_index.equals(two.sp_index), where=f"{where}.sp_index")


@_array.register
def _(one: pd.arrays.StringArray, two: pd.arrays.StringArray, where: str) -> None:
    same(np.asarray(one, dtype=object).tolist(), np.asarray(two, dtype=object).tolist(), where)


@_array.register
def _(one: pd.arrays.ArrowExtensionArray, two: pd.arrays.ArrowExtensionArray, where: str) -> None:
    same(pa.chunked_array(one._pa_array), pa.chunked_array(two._pa_array), where)


@_array.register(pd.arrays.IntegerArray)
@_array.register(pd.arrays.FloatingArray)
@_array.register(pd.arrays.BooleanArray)
def _(one: Any, two: Any, where: str) -> None:
    same(_free(one._mask), _free(two._mask), f"{where} mask")
    same(_free(one._data), _free(two._data), f"{where} data")


@_same.register
def _(one: pd.Interval, two: pd.Interval, where: str) -> None:
    same((one.left, one.right, one.closed), (two.left, two.right, two.closed), where)


@_same.register
def _(one: pd.Timestamp, two: pd.Timestamp, where: str) -> None:
    same((one.value, one.unit, str(one.tz), one.fold), (two.value, two.unit, str(two.tz), two.fold), where)
    same(type(one.tz), type(two.tz), f"{where}.tz")


@_same.register(type(pd.NA))
@_same.register(type(pd.NaT))
def _(one: object, two: object, where: str) -> None:
    check(holds=one is two, where=where, one=one, two=two)


# ---------------------------------------------------------------- Arrow, polars


@_same.register(pa.Table)
@_same.register(pa.RecordBatch)
def _(one: Any, two: Any, where: str) -> None:
    check(
        holds=one.schema.equals(two.schema, check_metadata=True),
        where=f"{where}.schema",
        one=one.schema,
        two=two.schema,
    )
    same(one.num_rows, two.num_rows, f"{where}.num_rows")
    for number in range(one.num_columns):
        same(one.column(number), two.column(number), f"{where}.column({number})")


@_same.register(pa.Array)
@_same.register(pa.ChunkedArray)
def _(one: Any, two: Any, where: str) -> None:
    same(one.type, two.type, f"{where}.type")
    same(len(one), len(two), f"len({where})")
    same(one.null_count, two.null_count, f"{where}.null_count")
    two.validate(full=True)
    if _holds_floats(one.type):
        same([_spelled(item) for item in one.to_pylist()], [_spelled(item) for item in two.to_pylist()], where)
    else:
        check(holds=one.equals(two), where=where, one=one, two=two)


def _holds_floats(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or any(_holds_floats(kind.field(i).type) for i in range(kind.num_fields))


def _spelled(item: object) -> object:
    """NaN is not equal to itself; its text is."""
    if isinstance(item, float) and math.isnan(item):
        return "nan"
    return repr(item)


@_same.register
def _(one: pa.DataType, two: pa.DataType, where: str) -> None:
    check(holds=one.equals(two), where=where, one=one, two=two)


@_same.register
def _(one: pl.DataFrame, two: pl.DataFrame, where: str) -> None:
    same(dict(one.schema), dict(two.schema), f"{where}.schema")
    for name in one.columns:
        same(one[name], two[name], f"{where}[{name!r}]")


@_same.register
def _(one: pl.Series, two: pl.Series, where: str) -> None:
    same((one.name, str(one.dtype), one.len()), (two.name, str(two.dtype), two.len()), where)
    if one.dtype == pl.Object:
        same(one.to_list(), two.to_list(), where)
        return
    if one.dtype.is_float():
        same(one.to_numpy(), two.to_numpy(), where)
    check(
        holds=one.equals(two, check_dtypes=True, check_names=True, null_equal=True) or one.dtype.is_float(),
        where=where,
        one=one,
        two=two,
    )
    for flag in ("SORTED_ASC", "SORTED_DESC"):
        same(one.flags.get(flag), two.flags.get(flag), f"{where}.flags[{flag}]")


@_same.register(pl.DataType)
@_same.register(type(pl.DataType))
def _(one: Any, two: Any, where: str) -> None:
    check(holds=one == two, where=where, one=one, two=two)
