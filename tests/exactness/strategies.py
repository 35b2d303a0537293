"""Hypothesis strategies: any dtype, any index, any kind of column, in any memory order."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

UNITS = ("s", "ms", "us", "ns")
ZONES = ("UTC", "Europe/Paris", "America/St_Johns", "Asia/Kathmandu", None)

text = st.text(st.characters(exclude_categories=()), max_size=12)
"""Any text, lone surrogates included."""

clean_text = st.text(st.characters(codec="utf-8"), max_size=12)

numbers = st.integers() | st.floats() | st.complex_numbers()

scalars = st.one_of(
    st.none(),
    st.booleans(),
    numbers,
    text,
    st.binary(max_size=8),
    st.decimals(allow_nan=False),
    st.dates(),
    st.datetimes(),
    st.timedeltas(),
    st.sampled_from([np.nan, pd.NA, pd.NaT, np.float32(1.5), np.int8(3), np.str_("s"), decimal.Decimal("1.10")]),
    st.datetimes().map(lambda moment: moment.replace(tzinfo=dt.UTC)),
)

cells = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(text, inner, max_size=3),
    max_leaves=4,
)

dtypes = st.one_of(
    npst.boolean_dtypes(),
    npst.integer_dtypes(endianness="?"),
    npst.unsigned_integer_dtypes(endianness="?"),
    npst.floating_dtypes(endianness="?"),
    npst.complex_number_dtypes(endianness="?"),
    npst.datetime64_dtypes(endianness="?"),
    npst.timedelta64_dtypes(endianness="?"),
    npst.byte_string_dtypes(),
    npst.unicode_string_dtypes(),
    npst.array_dtypes(),
)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Return an array of any dtype and shape, seen in any order of axes, any step, either direction."""
    shape = draw(npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9))
    array = draw(npst.arrays(draw(dtypes), shape))
    array = array.transpose(draw(st.permutations(range(array.ndim))))
    steps = tuple(slice(None, None, draw(st.sampled_from([1, 1, 1, 2, -1]))) for _ in range(array.ndim))
    view = array[steps] if array.ndim else array
    view.flags.writeable = draw(st.booleans())
    return view


@st.composite
def columns(draw: st.DrawFn, rows: int) -> Any:
    """Return a column of any kind."""
    kind = draw(st.sampled_from(sorted(_KINDS)))
    return draw(_KINDS[kind](rows))


def _listed(inner: st.SearchStrategy[Any], rows: int) -> st.SearchStrategy[list[Any]]:
    return st.lists(inner, min_size=rows, max_size=rows)


def _plain(rows: int) -> st.SearchStrategy[Any]:
    kinds = ["i1", "u2", "i4", "i8", "u8", "f4", "f8", "c16", "?"]
    return st.sampled_from(kinds).flatmap(lambda kind: npst.arrays(kind, rows))


def _moments(rows: int) -> st.SearchStrategy[Any]:
    ticks = npst.arrays("i8", rows, elements=st.integers(-(2**60), 2**60) | st.just(np.iinfo("i8").min))
    naive = st.tuples(ticks, st.sampled_from(UNITS)).map(lambda pair: pd.array(pair[0].view(f"M8[{pair[1]}]")))

    def zoned(pair: tuple[np.ndarray, str | None]) -> Any:
        return pd.DatetimeIndex(pair[0].view("M8[ns]"), tz=pair[1])

    return naive | st.tuples(ticks, st.sampled_from(ZONES)).map(zoned)


def _spans(rows: int) -> st.SearchStrategy[Any]:
    return st.tuples(npst.arrays("i8", rows), st.sampled_from(UNITS)).map(
        lambda pair: pd.array(pair[0].view(f"m8[{pair[1]}]"))
    )


def _masked(rows: int) -> st.SearchStrategy[Any]:
    def made(parts: tuple[np.ndarray, np.ndarray]) -> Any:
        values, mask = parts
        kinds = {"b": pd.arrays.BooleanArray, "f": pd.arrays.FloatingArray}
        return kinds.get(values.dtype.kind, pd.arrays.IntegerArray)(values, mask)

    kinds = st.sampled_from(["i1", "i8", "u4", "f4", "f8", "?"])
    return st.tuples(kinds.flatmap(lambda kind: npst.arrays(kind, rows)), npst.arrays("?", rows)).map(made)


def _texts(rows: int) -> st.SearchStrategy[Any]:
    kinds = st.sampled_from(["str", "string", "string[python]"])
    return st.tuples(_listed(st.none() | clean_text, rows), kinds).map(lambda pair: pd.array(pair[0], dtype=pair[1]))


def _categories(rows: int) -> st.SearchStrategy[Any]:
    values = st.lists(clean_text, unique=True, max_size=5) | st.lists(st.integers(-99, 99), unique=True, max_size=5)

    def coded(categories: list[Any]) -> st.SearchStrategy[Any]:
        codes = npst.arrays("i8", rows, elements=st.integers(-1, len(categories) - 1))
        made = st.tuples(codes, st.booleans())
        return made.map(lambda pair: pd.Categorical.from_codes(pair[0], categories, ordered=pair[1]))

    return values.flatmap(coded)


def _periods(rows: int) -> st.SearchStrategy[Any]:
    ordinals = npst.arrays("i8", rows, elements=st.integers(-500, 9000))
    freqs = st.sampled_from(["D", "M", "Y", "h"])
    return st.tuples(ordinals, freqs).map(lambda pair: pd.PeriodIndex.from_ordinals(pair[0], freq=pair[1]))


def _objects(rows: int) -> st.SearchStrategy[Any]:
    def made(items: list[Any]) -> Any:
        array = np.empty(rows, dtype=object)
        for number, item in enumerate(items):
            array[number] = item
        return pd.Series(array, dtype=object).array

    texts = st.sampled_from([None, np.nan, pd.NA, "a", "ß", ""])
    return (_listed(cells, rows) | _listed(text, rows) | _listed(texts, rows)).map(made)


_KINDS: dict[str, Any] = {
    "categories": _categories,
    "masked": _masked,
    "moments": _moments,
    "objects": _objects,
    "periods": _periods,
    "plain": _plain,
    "spans": _spans,
    "texts": _texts,
}


@st.composite
def indexes(draw: st.DrawFn, rows: int) -> pd.Index:
    """Return an index of any kind."""
    if draw(st.booleans()):
        start, step = draw(st.integers(-9, 9)), draw(st.sampled_from([-3, 1, 2]))
        return pd.RangeIndex(start, start + rows * step, step, name=draw(names))
    if draw(st.booleans()):
        levels = [draw(_plain(rows) | _texts(rows) | _categories(rows)) for _ in range(2)]
        return pd.MultiIndex.from_arrays(levels, names=[draw(names), draw(names)])
    part = draw(columns(rows))
    return pd.Index(part, dtype=part.dtype, name=draw(names))


names = st.one_of(st.none(), clean_text, st.integers(-9, 9), st.tuples(clean_text, st.integers(0, 9)))


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    """Return a frame of columns of any kind, joined in any order, perhaps sliced."""
    rows = draw(st.sampled_from([0, 1, 2, 7, 300]))
    parts = [draw(columns(rows)) for _ in range(draw(st.integers(0, 4)))]
    drawn = [pd.Series(part, dtype=part.dtype) for part in parts]  # pandas would look for text, and not all is
    repeated = [drawn[n] for n in draw(st.lists(st.integers(0, len(drawn) - 1), max_size=4))] if drawn else []
    frame = pd.concat([*drawn, *repeated], axis=1) if drawn else pd.DataFrame(index=range(rows))
    frame.columns = (
        draw(st.permutations(range(frame.shape[1]))) if draw(st.booleans()) else [draw(names) for _ in frame]
    )
    frame.index = draw(indexes(rows))
    if draw(st.booleans()):
        frame = frame.iloc[draw(st.integers(0, 3)) :: draw(st.sampled_from([1, 2, -1]))]
    frame.attrs = draw(st.dictionaries(clean_text, scalars, max_size=2))
    return frame
