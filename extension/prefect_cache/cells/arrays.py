"""Shapes of NumPy's and SciPy's values: arrays by shape, dtype and bytes in C order, however they lie in memory.

Nothing is imported here: an array cannot exist before NumPy does.
"""

from __future__ import annotations

import itertools
import math
import sys
from typing import TYPE_CHECKING, Any

from prefect_cache.cells import named, plain
from prefect_cache.cells.pieces import Pieces
from prefect_cache.cells.walk import Shape, Walk
from prefect_cache.digests import Hasher, combine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from prefect_cache.cells.plain import Handler
    from prefect_cache.model import Digest

WRITEABLE = 0x400
"""The bit of ``flags.num`` (``NPY_ARRAY_WRITEABLE``): ``flags.writeable`` warns where NumPy 1 broadcast the array."""

TILE = 1 << 17
"""Bytes that are brought into C order at a time; they stay in the processor's cache."""

PLANE = 1 << 20
"""The same for matrices that are turned: a larger tile has longer rows, and so needs fewer calls for each."""

LONG_ROW = 1 << 16
"""Bytes from which a row has a digest of its own, so that columns that lie in rows are read once, not once per row."""


def numpy() -> Any:
    """Return NumPy, which is there where an array is."""
    return sys.modules["numpy"]


# ------------------------------------------------------------------------------------------ bytes


def array_digest(array: np.ndarray[Any, Any]) -> Digest:
    """Return the digest of an array's elements in C order; not for objects."""
    array = array.view(numpy().ndarray)
    if array.dtype.itemsize == 0 or array.size == 0:
        return combine("no bytes")
    if not _solid(array.dtype):
        return _loose_digest(array)
    if array.ndim > 1 and array.shape[-1] * array.dtype.itemsize >= LONG_ROW:
        return combine("rows", *row_digests(array))
    hasher = Hasher()
    for tile in _tiles(array):
        hasher.update(tile)
    return hasher.hexdigest()


def row_digests(array: np.ndarray[Any, Any]) -> list[Digest]:
    """Return the digests of an array's rows (along the last axis), in C order."""
    if array.flags.c_contiguous:
        rows = array.reshape(-1, array.shape[-1])
        return [Hasher(_flat(row)).hexdigest() for row in rows]
    planes = array.reshape((1, *array.shape)) if array.ndim == 1 else array
    return [d for at in itertools.product(*map(range, planes.shape[:-2])) for d in _plane_rows(planes[at])]


def _plane_rows(plane: np.ndarray[Any, Any]) -> list[Digest]:
    """Return the digests of a matrix's rows, reading its memory about once."""
    if plane.strides[-1] == plane.dtype.itemsize:
        return [Hasher(_flat(row)).hexdigest() for row in plane]
    hashers = [Hasher() for _ in plane]
    width = max(PLANE // (plane.dtype.itemsize * max(len(plane), 1)), 16)
    buffer = numpy().empty((len(plane), width), plane.dtype)
    for start in range(0, plane.shape[1], width):
        tile = plane[:, start : start + width]
        filled = buffer[:, : tile.shape[1]]
        filled[...] = tile
        for hasher, row in zip(hashers, filled, strict=True):
            hasher.update(_flat(row))
    return [h.hexdigest() for h in hashers]


def _flat(array: np.ndarray[Any, Any]) -> Any:
    """Return the bytes of a contiguous array, none copied."""
    return array.reshape(-1).view(numpy().uint8)


def _tiles(array: np.ndarray[Any, Any]) -> Iterator[Any]:
    """Yield an array's bytes in C order, copied in tiles where they lie in another one."""
    if array.flags.c_contiguous:
        yield _flat(array)
        return
    size = array.dtype.itemsize * math.prod(array.shape[1:])
    if size > TILE and array.ndim > 1:
        for row in array:
            yield from _tiles(row)
        return
    count = max(TILE // size, 1)
    buffer = numpy().empty((min(count, len(array)), *array.shape[1:]), array.dtype)
    for start in range(0, len(array), count):
        tile = array[start : start + count]
        filled = buffer[: len(tile)]
        filled[...] = tile
        yield _flat(filled)


_X87_MANTISSA, _X87_BYTES = 63, 10
"""Bits of the mantissa of x86's long double, and the bytes that it uses of the 12 or 16 that it takes."""


def _solid(dtype: np.dtype[Any]) -> bool:
    """Tell whether each bit of an element counts: no padding between fields, none in a long double."""
    if dtype.subdtype is not None:
        return _solid(dtype.subdtype[0])
    if dtype.fields is not None:
        fields = [field[0] for field in dtype.fields.values()]
        return sum(f.itemsize for f in fields) == dtype.itemsize and all(map(_solid, fields))
    return dtype.char not in "gG"


def _loose_digest(array: np.ndarray[Any, Any]) -> Digest:
    """Return the digest of elements that have padding: field by field, or the ten bytes that a long double has."""
    dtype = array.dtype
    if dtype.fields is not None:
        return combine("fields", *(array_digest(array[name]) for name in dtype.names or ()))
    flat = numpy().ascontiguousarray(array).reshape(-1)
    width = dtype.itemsize // (2 if dtype.kind == "c" else 1)
    real = numpy().finfo(dtype).nmant == _X87_MANTISSA
    return array_digest(flat.view(numpy().uint8).reshape(-1, width)[:, : _X87_BYTES if real else width].copy())


def dtype_text(dtype: np.dtype[Any]) -> str:
    """Return a dtype as text that tells it from every other one."""
    if dtype.subdtype is not None:
        return f"({dtype_text(dtype.subdtype[0])}){dtype.subdtype[1]}"
    if dtype.fields is not None:
        inner = [(name, dtype_text(f[0]), f[1], f[2:]) for name, f in sorted(dtype.fields.items())]
        return f"{dtype.names}{inner}{dtype.itemsize}{dtype.isalignedstruct}{dtype.type.__name__}"
    if dtype.kind == "T":
        return repr(dtype)
    return f"{dtype.str}{dict(dtype.metadata) if dtype.metadata else ''}"


# ------------------------------------------------------------------------------------------ arrays


def _array(value: np.ndarray[Any, Any], walk: Walk) -> Shape:
    walk.met.array(value)
    pieces = Pieces(dtype_text(value.dtype), repr(value.shape))
    put_elements(pieces, value)
    _put_lock(pieces, value)
    text = str(value.dtype)
    return pieces.shape(
        "ndarray", mutable=True, detail=lambda _: {"type": "ndarray", "shape": str(value.shape), "dtype": text}
    )


def _put_lock(pieces: Pieces, array: np.ndarray[Any, Any]) -> None:
    """Append that an array is read-only: code that writes to it raises an exception."""
    if not array.flags.num & WRITEABLE:
        pieces.own("read-only")


def put_elements(pieces: Pieces, array: np.ndarray[Any, Any]) -> None:
    """Append an array's elements; each object that is no leaf becomes a part."""
    if array.dtype.hasobject or array.dtype.kind == "T":
        flat = array.view(numpy().ndarray).reshape(-1).tolist()
        pieces.run(flat, lambda i: ("index", i))
    else:
        pieces.own(array_digest(array))


def _subclass(value: np.ndarray[Any, Any], walk: Walk) -> Shape:
    """Return the shape of an instance of an array's subclass: its class and attributes count as well."""
    walk.met.array(value)
    base = value.view(numpy().ndarray)
    pieces = Pieces(named.kind_name(type(value)), dtype_text(value.dtype), repr(value.shape))
    put_elements(pieces, base)
    _put_lock(pieces, value)
    held = dict(getattr(value, "__dict__", {}))
    if isinstance(value, numpy().memmap):
        held = {"mode": value.mode}  # its file and offset are where it is, not what it is
    if isinstance(value, numpy().ma.MaskedArray):
        pieces.part(("made", "mask"), value.mask)
        held = {"fill_value": value.fill_value, "hardmask": value.hardmask}
    pieces.attributes(held)
    pieces.part(("class", ""), type(value))
    return pieces.shape("array subclass", mutable=True)


def _scalar(value: Any, _walk: Walk) -> Shape:
    """Return the shape of a scalar that is no leaf: structured, or with padding."""
    array = numpy().asarray(value)
    pieces = Pieces(named.kind_name(type(value)), dtype_text(array.dtype))
    put_elements(pieces, array)
    return pieces.shape("numpy scalar", mutable=value.dtype.kind == "V")


def _dtype(value: np.dtype[Any], _walk: Walk) -> Shape:
    return Shape(combine("dtype", dtype_text(value)))


def _generator(value: Any, _walk: Walk) -> Shape:
    pieces = Pieces(named.kind_name(type(value)))
    pieces.part(("attr", "bit_generator"), value.bit_generator)
    return pieces.shape("generator", mutable=True)


def _bit_generator(value: Any, _walk: Walk) -> Shape:
    pieces = Pieces(named.kind_name(type(value)))
    pieces.part(("made", "state"), value.state)
    pieces.part(("attr", "seed_seq"), getattr(value, "seed_seq", None))
    return pieces.shape("bit generator", mutable=True)


def _random_state(value: Any, _walk: Walk) -> Shape:
    pieces = Pieces(named.kind_name(type(value)))
    pieces.part(("made", "state"), value.get_state(legacy=False))
    return pieces.shape("random state", mutable=True)


def _seed_sequence(value: Any, _walk: Walk) -> Shape:
    pieces = Pieces(named.kind_name(type(value)))
    pieces.part(("made", "state"), value.state)
    return pieces.shape("seed sequence", mutable=True)


def _ufunc(value: Any, walk: Walk) -> Shape:
    name: str = value.__name__
    for module in ("numpy", "scipy.special"):
        if getattr(sys.modules.get(module), name, None) is value:
            walk.met.package(module)
            return Shape(combine("ufunc", module, name))
    raise plain.opaque(
        value, "made from a function that it does not show", "Use numpy.vectorize, or make it inside the cell."
    )


def _named(value: Any, walk: Walk) -> Shape:
    walk.met.package(value.__module__)
    return Shape(combine("numpy function", value.__module__, value.__qualname__))


def numpy_handler(cls: type) -> Handler | None:
    """Return what knows a class of NumPy's, or derived from one."""
    np = numpy()
    table: list[tuple[type, Handler]] = [
        (np.ndarray, _array if cls is np.ndarray else _subclass),
        (np.generic, _scalar),
        (np.dtype, _dtype),
        (np.ufunc, _ufunc),
    ]
    random: Any = sys.modules.get("numpy.random")
    if random is not None:
        table += [
            (random.Generator, _generator),
            (random.BitGenerator, _bit_generator),
            (random.RandomState, _random_state),
            (random.SeedSequence, _seed_sequence),
        ]
    if cls.__name__ == "_ArrayFunctionDispatcher":
        return _named
    return next((handler for base, handler in table if issubclass(cls, base)), None)


# ------------------------------------------------------------------------------------------ sparse matrices

_SPARSE_PARTS = {
    "csr": ("data", "indices", "indptr"),
    "csc": ("data", "indices", "indptr"),
    "bsr": ("data", "indices", "indptr"),
    "coo": ("data", "coords"),
    "dia": ("data", "offsets"),
    "lil": ("data", "rows"),
    "dok": ("_dict",),
}


def scipy_handler(cls: type) -> Handler | None:
    """Return what knows a sparse matrix or array; what else SciPy has is an instance like any other."""
    sparse = sys.modules.get("scipy.sparse")
    if sparse is None or not (issubclass(cls, sparse.spmatrix) or issubclass(cls, sparse.sparray)):
        return None
    return _sparse


def _sparse(value: Any, _walk: Walk) -> Shape:
    # Not its whole __dict__: SciPy remembers there, once asked, whether indices are sorted.
    pieces = Pieces(named.kind_name(type(value)), repr(value.shape), str(value.dtype))
    for name in _SPARSE_PARTS[value.format]:
        pieces.part(("attr", name), getattr(value, name))
    return pieces.shape(
        "sparse", mutable=True, detail=lambda _: {"type": type(value).__name__, "shape": str(value.shape)}
    )


# ------------------------------------------------------------------------------------------ memory


def overlapping(arrays: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Return the pairs of different arrays that lie in the same memory."""
    spans = sorted((*_bounds(a), i) for i, a in enumerate({id(a): a for a in arrays if a.size}.values()))
    unique = list({id(a): a for a in arrays if a.size}.values())
    found: list[tuple[Any, Any]] = []
    active: list[tuple[int, int]] = []
    for low, high, number in spans:
        active = [(end, other) for end, other in active if end > low]
        found += [(unique[other], unique[number]) for _, other in active if _share(unique[other], unique[number])]
        active.append((high, number))
    return found


def _bounds(array: Any) -> tuple[int, int]:
    low = high = array.__array_interface__["data"][0]
    for length, stride in zip(array.shape, array.strides, strict=True):
        low += min(0, stride * (length - 1))
        high += max(0, stride * (length - 1))
    return low, high + array.dtype.itemsize


def _share(a: Any, b: Any) -> bool:
    try:
        return bool(numpy().shares_memory(a, b, max_work=10_000))
    except numpy().exceptions.TooHardError:
        return True
