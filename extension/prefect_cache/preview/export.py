"""A stored frame as a Parquet or CSV file, block by block, never a whole column in memory."""

from __future__ import annotations

import itertools
import json
import os
import re
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from prefect_cache.preview.text import is_bytes, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from prefect_cache.preview.frame import Preview


def export(preview: Preview, folder: Path, name: str, kind: str, stop: Callable[[], bool]) -> Path | None:
    """Write a frame to a new file in a folder and return its path; None where `stop` said so.

    The file is named after the output, never replaces another one, and appears when it is whole.
    """
    stem = re.sub(r"[^\w.-]+", "_", name).strip("._") or "table"
    part = folder / f".{stem}-{os.getpid()}.part"
    try:
        if not WRITERS[kind](preview, part, stop):
            return None
        return _placed(part, folder, stem, kind)
    finally:
        part.unlink(missing_ok=True)


def _placed(part: Path, folder: Path, stem: str, kind: str) -> Path:
    for number in itertools.count():
        path = folder / f"{stem}{f'-{number}' if number else ''}.{kind}"
        try:
            path.touch(mode=0o600, exist_ok=False)
        except FileExistsError:
            continue
        return part.replace(path)
    raise AssertionError


def _parquet(preview: Preview, path: Path, stop: Callable[[], bool]) -> bool:
    writer: pa.parquet.ParquetWriter | None = None
    try:
        for table in _tables(preview, flat=False):
            if stop():
                return False
            if writer is None:
                writer = pa.parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
    return True


def _csv(preview: Preview, path: Path, stop: Callable[[], bool]) -> bool:
    writer: pa.csv.CSVWriter | None = None
    try:
        for table in _tables(preview, flat=True):
            if stop():
                return False
            if writer is None:
                writer = pa.csv.CSVWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
    return True


WRITERS: Mapping[str, Callable[[Preview, Path, Callable[[], bool]], bool]] = {"parquet": _parquet, "csv": _csv}
"""The formats, by the ending of a file."""


def _tables(preview: Preview, *, flat: bool) -> Iterator[pa.Table]:
    names = _distinct([c.name for c in preview.columns])
    for arrays in preview.blocks():
        columns = [_flat(a) if flat else a for a in arrays]
        yield pa.table(dict(zip(names, columns, strict=True)))


def _flat(array: pa.Array) -> pa.Array:
    """Return values that a CSV file can hold: text for what is nested, encoded or bytes."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _flat(array.dictionary_decode())
    if pa.types.is_nested(kind):
        found = [json.dumps(v, default=str) if v is not None else None for v in array.to_pylist()]
        return pa.array(found, pa.large_string())
    if pa.types.is_interval(kind) or pa.types.is_duration(kind) or is_bytes(kind):
        return pa.array(texts(array, 2**31), pa.large_string())
    return array


def _distinct(names: list[str]) -> list[str]:
    """Return the names, repeated ones numbered: a Parquet file must not have two columns of one name."""
    seen: set[str] = set()
    found: list[str] = []
    for name in names:
        chosen = next(n for n in itertools.chain([name], (f"{name}_{i}" for i in itertools.count(1))) if n not in seen)
        seen.add(chosen)
        found.append(chosen)
    return found
