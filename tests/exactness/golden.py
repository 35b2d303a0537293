"""Golden files: written once for each FORMAT, read for ever.

``python tests/exactness/golden.py`` writes those that are missing. A file that is there is never written
again: whoever changes the format raises FORMAT, and gives the new number a folder of its own.

A skeleton is pandas' own: each major version of pandas has its folder, and reads what its own wrote. (A key holds
the version of pandas, so a store never asks for more.)
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable

PANDAS = pd.__version__.split(".", maxsplit=1)[0]

ROWS = 300


def frame() -> pd.DataFrame:
    """Return a frame of the kinds that a notebook mostly holds."""
    numbers = np.arange(ROWS)
    frame = pd.DataFrame(
        {
            "i": numbers,
            "f": numbers / 8,
            "b": numbers % 3 == 0,
            "t": (numbers * 86_400_000_000_000).astype("M8[ns]"),
            "c": pd.Categorical.from_codes(numbers % 3 - 1, ["x", "y"], ordered=True),
            "n": pd.arrays.IntegerArray(numbers, numbers % 5 == 0),
            "o": pd.Series([("a", 1), None, {"k": [2.5]}] * (ROWS // 3), dtype=object),
            "s": pd.Series([f"text {n}" for n in numbers], dtype=object),
        }
    )
    frame.attrs["source"] = ("golden", 1)
    return frame


def series() -> pd.Series:
    """Return a Series over a MultiIndex."""
    index = pd.MultiIndex.from_product([range(100), ["a", "b", "c"]], names=["n", None])
    return pd.Series(np.linspace(-1, 1, ROWS), index=index, name=("v", 0))


def records() -> np.ndarray:
    """Return records."""
    return np.array([(n, n / 2, b"xyz") for n in range(ROWS)], dtype=[("a", "<i4"), ("b", "<f8"), ("c", "S3")])


def table() -> pa.Table:
    """Return an Arrow table."""
    lists = pa.array([list(range(n % 4)) for n in range(ROWS)], pa.list_(pa.int64()))
    texts = pa.array([None if n % 7 == 0 else f"{n}" for n in range(ROWS)], pa.string())
    return pa.table({"l": lists, "s": texts, "d": texts.dictionary_encode()}).replace_schema_metadata({"k": "v"})


VALUES: dict[str, Callable[[], Any]] = {
    "frame": frame,
    "series": series,
    "index": lambda: pd.date_range("2024", periods=ROWS, freq="D", tz=dt.UTC, name="day"),
    "array": lambda: np.arange(ROWS * 4, dtype="<i2").reshape(ROWS, 4),
    "column-order": lambda: np.asfortranarray(np.arange(ROWS * 4.0).reshape(ROWS, 4)),
    "records": records,
    "objects": lambda: np.array(["a", 1, None, (1, 2.5)] * 5, dtype=object),
    "table": table,
}


def folder(number: int) -> Path:
    """Return where a format's files stand."""
    return Path(__file__).with_name("golden") / str(number) / f"pandas-{PANDAS}"


def main() -> None:
    """Write what is missing."""
    from prefect_cache.codecs import codec_for
    from prefect_cache.model import FORMAT

    here = folder(FORMAT)
    here.mkdir(parents=True, exist_ok=True)
    for name, make in VALUES.items():
        value = make()
        codec = codec_for(value)
        path = here / f"{name}.{codec.name}"
        if not path.exists():
            codec.write(value, path)
            path.chmod(0o644)


if __name__ == "__main__":
    main()
