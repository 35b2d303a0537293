"""What is measured: frames of one kind and about so many megabytes."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Callable


def _rows(megabytes: float, width: int) -> int:
    return max(int(megabytes * 1e6 / width), 8)


def numeric(megabytes: float) -> pd.DataFrame:
    """Return a hundred columns of float64, each contiguous, as most of pandas' operations leave them."""
    rows = _rows(megabytes, 800)
    values = np.random.default_rng(0).random((100, rows))
    return pd.DataFrame(values.T, columns=[f"c{n}" for n in range(100)])


def text(megabytes: float) -> pd.DataFrame:
    """Return one column of pandas' own text."""
    rows = _rows(megabytes, 19)
    numbers = pc.cast(pa.array(np.arange(rows)), pa.large_string())
    made = pc.binary_join_element_wise(pa.scalar("item", pa.large_string()), numbers, pa.scalar(" ", pa.large_string()))
    return pd.DataFrame({"s": pd.array(pa.chunked_array([made]), dtype="str")})


def nullable(megabytes: float) -> pd.DataFrame:
    """Return ten columns of Int64, a tenth of them missing."""
    rows = _rows(megabytes, 90)
    rng = np.random.default_rng(0)
    columns = {f"c{n}": pd.arrays.IntegerArray(rng.integers(0, 99, rows), rng.random(rows) < 0.1) for n in range(10)}
    return pd.DataFrame(columns)


def moments(megabytes: float) -> pd.DataFrame:
    """Return ten columns of zoned datetimes."""
    rows = _rows(megabytes, 80)
    rng = np.random.default_rng(0)
    columns = {f"c{n}": pd.DatetimeIndex(rng.integers(0, 10**18, rows).view("M8[ns]"), tz="UTC") for n in range(10)}
    return pd.DataFrame(columns)


def categories(megabytes: float) -> pd.DataFrame:
    """Return ten columns of a thousand categories."""
    rows = _rows(megabytes, 20)
    rng = np.random.default_rng(0)
    names = [f"category {n}" for n in range(1000)]
    codes = (rng.integers(0, 1000, rows, dtype=np.int16) for _ in range(10))
    return pd.DataFrame({f"c{n}": pd.Categorical.from_codes(code, names) for n, code in enumerate(codes)})


def objects(megabytes: float) -> pd.DataFrame:
    """Return one object column of different texts, as older notebooks have them."""
    return pd.DataFrame({"o": pd.Series([f"item {n}" for n in range(_rows(megabytes, 60))], dtype=object)})


def mixed(megabytes: float) -> pd.DataFrame:
    """Return columns of every kind side by side."""
    widths = {numeric: 800, text: 19, nullable: 90, moments: 80, categories: 20}
    rows = _rows(megabytes, sum(widths.values()))
    parts = [make(rows * width / 1e6).head(rows) for make, width in widths.items()]
    return pd.concat([part.add_prefix(f"{n}") for n, part in enumerate(parts)], axis=1)


KINDS: dict[str, Callable[[float], pd.DataFrame]] = {
    "numeric": numeric,
    "text": text,
    "nullable": nullable,
    "moments": moments,
    "categories": categories,
    "objects": objects,
    "mixed": mixed,
}


@lru_cache(maxsize=1)
def value(kind: str, megabytes: float) -> Any:
    """Return a value, the last one kept: a gigabyte takes seconds to make."""
    return KINDS[kind](megabytes)


def bytes_of(frame: pd.DataFrame) -> int:
    """Return the bytes of a frame's buffers."""
    return int(frame.memory_usage(index=False, deep=True).sum())
