"""Values that nobody thought of come back the same to the bit, and other tools read their files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
from hypothesis import HealthCheck, given, settings

from exactness.compare import same
from exactness.strategies import arrays, frames
from prefect_cache.codecs import codec_for

if TYPE_CHECKING:
    import pandas as pd

patient = settings(deadline=None, max_examples=120, suppress_health_check=list(HealthCheck))


def check(value: Any) -> None:
    """Write, read, compare, with trust and without; then let others read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "value.arrow"
        codec = codec_for(value)
        meta = codec.write(value, path).meta
        same(value, codec.read(path, meta, trusted=True))
        assert not meta.get("needs_trust")
        same(value, codec.read(path, meta, trusted=False))
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        table.validate(full=True)
        if table.num_columns:
            assert pl.read_ipc(path).height == table.num_rows


@patient
@given(arrays())
def test_any_array(value: Any) -> None:
    """Any dtype, shape, order, step, locked or not."""
    check(value)


@patient
@given(frames())
def test_any_frame(value: pd.DataFrame) -> None:
    """Any columns, labels, index, slice, attributes."""
    check(value)
