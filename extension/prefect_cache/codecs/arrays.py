"""NumPy arrays as mapped Arrow files: the same file as a frame's, restored without pyarrow or pandas."""

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


class ArrayCodec:
    """Arrays of any dtype, in one Arrow IPC file each."""

    name = "array"
    suffix = ".arrow"

    def accepts(self, value: object) -> bool:
        """Tell whether this is an array, matrix, record array or masked array."""
        numpy = sys.modules.get("numpy")
        return numpy is not None and type(value) in (numpy.ndarray, numpy.matrix, numpy.recarray, numpy.ma.MaskedArray)

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
        """Return the array, see :func:`prefect_cache.codecs.mapped.read`."""
        from prefect_cache.codecs import mapped

        return mapped.read(path, meta, trusted=trusted, namespace=namespace, resolve=resolve)
