"""Frames, Series, indexes, tables and columns as mapped Arrow files."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from pathlib import Path

    from prefect_cache.codecs import Written
    from prefect_cache.codecs.body import Progress
    from prefect_cache.codecs.parts import Shelf
    from prefect_cache.codecs.pickled import Refer, Resolve
    from prefect_cache.model import Json

_TYPES = {
    "pandas": ("DataFrame", "Series", "Index"),
    "pyarrow": ("Table", "RecordBatch", "Array", "ChunkedArray"),
    "polars": ("DataFrame", "Series"),
}


class ArrowCodec:
    """Values of pandas, pyarrow and polars, in one Arrow IPC file each."""

    name = "arrow"
    suffix = ".arrow"

    def accepts(self, value: object) -> bool:
        """Tell whether this is a frame, Series, Index, table or column, or of a class derived from one."""
        for library, names in _TYPES.items():
            module = sys.modules.get(library)
            kinds = tuple(getattr(module, name) for name in names if hasattr(module, name))
            if kinds and isinstance(value, kinds):
                return True
        return False

    def write(
        self,
        value: object,
        path: Path,
        *,
        namespace: Mapping[str, object] | None = None,
        refer: Refer | None = None,
        shelf: Shelf | None = None,
        progress: Progress | None = None,
    ) -> Written:
        """Make the file, see :func:`prefect_cache.codecs.mapped.write`."""
        from prefect_cache.codecs import mapped

        return mapped.write(value, path, namespace=namespace, refer=refer, shelf=shelf, progress=progress)

    def read(
        self,
        path: Path,
        meta: Mapping[str, Json],
        *,
        trusted: bool,
        namespace: MutableMapping[str, object] | None = None,
        resolve: Resolve | None = None,
    ) -> object:
        """Return the value, see :func:`prefect_cache.codecs.mapped.read`."""
        from prefect_cache.codecs import mapped

        return mapped.read(path, meta, trusted=trusted, namespace=namespace, resolve=resolve)
