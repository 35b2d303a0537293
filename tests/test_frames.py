"""Values as columns that other tools read, and how little of memory that takes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_cache.codecs.body import Body, memory_order
from prefect_cache.codecs.ipc import Extent
from prefect_cache.frames import Canon, column_names, table_of

if TYPE_CHECKING:
    from pathlib import Path


@given(st.lists(st.one_of(st.text(), st.integers(), st.none(), st.tuples(st.text(), st.integers()))))
def test_column_names_are_text_and_unique(labels: list[Any]) -> None:
    """Whatever the labels are; those that are fine stay as they are."""
    names = column_names(labels)
    assert len(set(names)) == len(labels)
    assert all(name.encode() is not None for name in names)
    texts = [label for label in labels if isinstance(label, str)]
    if len(texts) == len(labels) == len(set(labels)) and all(text.isascii() for text in texts):
        assert names == texts


def test_a_canonical_slice_does_not_drag_its_parent_along() -> None:
    """Ten rows of a million take the memory of ten."""
    parent = pa.array([f"text {n}" for n in range(100_000)])
    array = Canon().array(parent.slice(50_000, 10))
    assert array.equals(parent.slice(50_000, 10))
    assert sum(buffer.size for buffer in array.buffers() if buffer) < 500
    assert array.offset == 0


def test_a_canonical_form_is_made_once() -> None:
    """Both faces of a file find the same memory."""
    canon = Canon()
    column = pa.chunked_array([[1, 2], [3]])
    assert canon.array(column) is canon.array(column)
    assert canon.array(canon.array(column)) is canon.array(column)


def test_columns_are_the_blocks_own_memory() -> None:
    """A file holds a numeric frame once, whatever order its columns have."""
    frame = pd.DataFrame({f"c{n}": np.arange(1000.0) * n for n in range(4)}).copy()[["c2", "c0", "c3"]].copy()
    (block,) = frame._mgr.blocks
    body = Body()
    number = body.add(block.values, columns=True)
    for place, column in enumerate(table_of(frame, Canon()).fields):
        found = body.find(column.leaf.buffers[1])  # type: ignore[arg-type]
        row = block.mgr_locs.as_array.tolist().index(place)
        assert found == Extent(body.regions[number].extent.offset + row * 8000, 8000)


def test_memory_elsewhere_is_not_found() -> None:
    """Neither beside a region, nor what straddles its end, nor what steps another way."""
    memory = np.arange(1000.0)
    body = Body()
    body.add(memory[100:200])
    assert body.find(memory[100:150]) == Extent(0, 400)
    assert body.find(memory[150:200]) == Extent(400, 400)
    assert body.find(memory[:100]) is None
    assert body.find(memory[150:250]) is None
    assert body.find(memory[100:200:2]) is None
    assert body.find(np.arange(10.0)) is None


@given(st.permutations(range(4)))
def test_memory_order_finds_the_axes(order: list[int]) -> None:
    """An array seen through any order of axes is dense in its memory's order."""
    array = np.zeros((2, 3, 4, 5)).transpose(order)
    assert array.transpose(memory_order(array)).flags.c_contiguous


@pytest.mark.parametrize("layout", ["columns", "rows"])
def test_saving_takes_little_memory(layout: str, tmp_path: Path) -> None:
    """No second copy of the frame: less than 5 percent of it."""
    program = """
        import pathlib, resource, sys
        import numpy as np, pandas as pd
        from prefect_cache.codecs import codec_for

        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

        rows = 400_000
        small = pd.DataFrame(np.ones((10, 10)))
        codec_for(small).write(small, pathlib.Path(sys.argv[1]) / "small")  # loads what there is to load
        shape = (100, rows) if sys.argv[2] == "columns" else (rows, 100)
        values = np.ones(shape)
        frame = pd.DataFrame(values.T if sys.argv[2] == "columns" else values)
        before = peak()
        codec_for(frame).write(frame, pathlib.Path(sys.argv[1]) / "large")
        assert peak() - before < 0.05 * values.nbytes, (peak() - before, values.nbytes)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(tmp_path), layout], check=True)


def test_meta_says_what_a_preview_needs() -> None:
    """The shape with the index apart, the dtypes as pandas calls them."""
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]}, index=pd.Index([5, 6], name="k"))
    meta = table_of(frame, Canon()).meta
    assert (meta["rows"], meta["shape"], meta["total_columns"]) == (2, [2, 2], 2)
    assert [field.name for field in table_of(frame, Canon()).fields] == ["a", "b", "__index_level_0__"]


def test_cells_without_an_end_are_not_shown_to_arrow() -> None:
    """It follows containers as deep as they go, and a list that holds itself ends the process."""
    held: list[Any] = [1]
    held.append(held)
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep, deep]
    for cell in (held, {"a": held}, np.array([held, None], dtype=object), deep):
        table = table_of(pd.DataFrame({"x": [cell, None]}, dtype=object), Canon())
        assert "nested too deeply" in str(table.fields)
    flat = table_of(pd.DataFrame({"x": [[[1]], [[2, 3]]]}), Canon())
    assert "nested too deeply" not in str(flat.fields)
