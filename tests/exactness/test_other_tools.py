"""Any Arrow tool reads the files: pyarrow, polars and DuckDB find equal values in each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from exactness.cases import CASES
from prefect_cache.codecs import codec_for

if TYPE_CHECKING:
    from pathlib import Path

POLARS_ROWS = 2**32
"""More rows than these only a build of its own of polars holds."""


POLARS_MAPS = int(pl.__version__.split(".")[0]) > 1
"""Whether polars knows maps."""


def opened(path: Path) -> pa.Table:
    """Return a file as pyarrow reads it, memory-mapped."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def written(name: str, folder: Path) -> tuple[Any, Path]:
    """Write a case; return it and its file."""
    value = CASES[name]()
    path = folder / "value.arrow"
    codec_for(value).write(value, path)
    return value, path


@pytest.mark.parametrize("name", CASES)
def test_every_file_is_valid_for_every_tool(name: str, tmp_path: Path) -> None:
    """Pyarrow validates it in full; polars and DuckDB read as many rows, and the same cells."""
    _, path = written(name, tmp_path)
    table = opened(path)
    table.validate(full=True)
    maps = any(map(pa.types.is_map, table.schema.types))
    if table.num_columns and table.num_rows < POLARS_ROWS and (POLARS_MAPS or not maps):
        frame = pl.read_ipc(path)
        assert (frame.height, frame.columns) == (table.num_rows, table.column_names)
    if table.num_columns:
        names = [f"c{number}" for number in range(table.num_columns)]  # DuckDB has no empty names
        with duckdb.connect() as connection:
            connection.register("stored", table.rename_columns(names))
            counts = ", ".join(f"count({name})" for name in names)
            (row,) = connection.sql(f"select count(*), {counts} from stored").fetchall()
        assert list(row) == [table.num_rows, *(table.num_rows - c.null_count for c in table.columns)]


SIMPLE = (
    "frame int8", "frame uint64", "frame float32", "frame float64", "frame bool", "frame of many blocks",
    "frame row-major", "frame row-major int32", "frame of interleaved dtypes", "frame sliced", "frame reversed",
    "frame of columns sliced", "frame >f8", "dates ns", "dates us", "spans ms", "zone named", "masked Int64",
    "masked boolean", "masked garbage", "str", "str missing", "str sliced", "str concatenated", "string python",
    "categories", "categories missing", "objects text", "objects text and every missing", "objects ints",
    "arrow string", "arrow decimal", "index text", "index dates zone", "index levels",
)  # fmt: skip


@pytest.mark.parametrize("name", SIMPLE)
def test_columns_hold_the_frames_values(name: str, tmp_path: Path) -> None:
    """Cell by cell, in pyarrow and in polars."""
    value, path = written(name, tmp_path)
    table, frame = opened(path), pl.read_ipc(path)
    for column in value.columns:
        expected = [plain(cell) for cell in value[column]]
        assert [plain(cell) for cell in table.column(str(column)).to_pylist()] == expected
        assert [plain(cell) for cell in frame[str(column)].to_list()] == expected
    if not isinstance(value.index, pd.RangeIndex):
        for level in range(value.index.nlevels):
            expected = [plain(cell) for cell in value.index.get_level_values(level)]
            assert [plain(cell) for cell in table.column(f"__index_level_{level}__").to_pylist()] == expected


def plain(cell: Any) -> Any:
    """Return a cell as any of the tools would give it."""
    if cell is None or (np.isscalar(cell) and pd.isna(cell)) or cell is pd.NA or cell is pd.NaT:
        return None
    if isinstance(cell, pd.Timedelta):
        return cell.to_pytimedelta()
    if isinstance(cell, pd.Timestamp):
        return cell.floor("us").to_pydatetime()
    return cell.item() if isinstance(cell, np.generic) else cell


def test_pandas_reads_them_as_feather(tmp_path: Path) -> None:
    """An uncompressed Arrow IPC file is a Feather file."""
    value, path = written("frame of interleaved dtypes", tmp_path)
    pd.testing.assert_frame_equal(value, pd.read_feather(path), check_dtype=False)


def test_names_are_unique_and_readable(tmp_path: Path) -> None:
    """What Arrow's tools cannot take as a name is spelled so that they can."""
    expected = {
        "columns duplicate": ["a", "a#2", "b", "a#3"],
        "columns tuples": ["('a', 1)", "('b', 2)"],
        "columns mixed": ["a", "1", "None", "2.5"],
        "columns levels": ["('a', 1)", "('a', 2)", "('b', 1)"],
        "columns surrogate": ["\\ud800", "b"],
    }
    for number, (name, names) in enumerate(expected.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert opened(written(name, folder)[1]).column_names == names


def test_columns_without_a_form_are_null_with_a_note(tmp_path: Path) -> None:
    """And the manifest says so too."""
    value = CASES["objects instances"]()
    path = tmp_path / "value.arrow"
    meta = codec_for(value).write(value, path).meta
    field = opened(path).schema.field("o")
    assert field.type == pa.null()
    assert field.metadata[b"prefect_cache.note"] == b"no Arrow form: objects"
    assert meta["columns"] == [{"name": "o", "dtype": "object", "note": "no Arrow form: objects"}]
