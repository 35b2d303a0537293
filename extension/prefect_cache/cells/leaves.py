"""Immutable values without parts, and runs of them, as digests.

A *leaf* is a value of exactly one of the types named here; a subclass is never a leaf. A *run*
is a sequence whose leaves are hashed together, type by type, at the speed of C loops: a
list of ten million ints, or an object column, costs one pass and no digest per element.
"""

from __future__ import annotations

import datetime as dt
import decimal
import fractions
import marshal
import sys
import uuid
from array import array
from itertools import chain, compress
from typing import TYPE_CHECKING, Any, cast

from prefect_cache.digests import Hasher, combine, digest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prefect_cache.model import Digest

BATCH = 1 << 14
"""Elements of a run that are joined at a time: small enough for the joined text to stay in cache."""

SHORT = 64
"""Elements up to which a run is written out as a whole rather than type by type."""

COMPOUND = 255
"""The code of an element that is no leaf; it has a digest of its own."""


def _texts(items: Sequence[str]) -> Digest:
    """Return the digest of some strings; their lengths keep ``("a", "bc")`` and ``("ab", "c")`` apart."""
    hasher = Hasher()
    for start in range(0, len(items), BATCH):
        part = items[start : start + BATCH]
        hasher.update(array("q", map(len, part)))
        hasher.update("".join(part).encode("utf-8", "surrogatepass"))
    return hasher.hexdigest()


def _bytes(items: Sequence[bytes]) -> Digest:
    hasher = Hasher()
    for start in range(0, len(items), BATCH):
        part = items[start : start + BATCH]
        hasher.update(array("q", map(len, part)))
        hasher.update(b"".join(part))
    return hasher.hexdigest()


def _ints(items: Sequence[int]) -> Digest:
    try:
        return Hasher(array("q", items)).hexdigest()
    except OverflowError:
        # hex() is linear where str() is quadratic, and limited to 4300 digits.
        return combine("big", _texts(list(map(hex, items))))


def _floats(items: Sequence[float]) -> Digest:
    return Hasher(array("d", items)).hexdigest()


def _complexes(items: Sequence[complex]) -> Digest:
    return Hasher(array("d", chain.from_iterable((c.real, c.imag) for c in items))).hexdigest()


def _bools(items: Sequence[bool]) -> Digest:
    return Hasher(bytes(items)).hexdigest()


def _nothing(_items: Sequence[object]) -> Digest:
    return ""


def _tokens(token: Callable[[Any], str]) -> Callable[[Sequence[Any]], Digest]:
    return lambda items: _texts(list(map(token, items)))


def _fold(moment: dt.datetime | dt.time) -> str:
    return f"{moment.isoformat()}{'f' * moment.fold}"


def _scalar(value: Any) -> str:
    return f"{value.dtype.str}{value.tobytes().hex()}"


# The codes stand in digests: to change one is to raise FORMAT.
_RUNS: dict[int, Callable[[Sequence[Any]], Digest]] = {
    1: _nothing,  # None
    2: _bools,
    3: _ints,
    4: _floats,
    5: _complexes,
    6: _texts,
    7: _bytes,
    8: _nothing,  # Ellipsis
    9: _nothing,  # NotImplemented
    10: _tokens(str),  # Decimal: its text keeps the exponent, signed zeros and NaN payloads
    11: _tokens(dt.date.isoformat),
    12: _tokens(lambda t: f"{t.days},{t.seconds},{t.microseconds}"),
    13: _tokens(lambda u: u.hex),
    14: _tokens(str),  # Fraction
    15: _tokens(_fold),  # naive datetime
    16: _tokens(_fold),  # naive time
    20: _nothing,  # pandas.NA
    21: _nothing,  # pandas.NaT
    22: _tokens(_scalar),  # NumPy scalars of a fixed layout
}
_EXACT: dict[type, int] = {
    type(None): 1,
    bool: 2,
    int: 3,
    float: 4,
    complex: 5,
    str: 6,
    bytes: 7,
    type(Ellipsis): 8,
    type(NotImplemented): 9,
    decimal.Decimal: 10,
    dt.date: 11,
    dt.timedelta: 12,
    uuid.UUID: 13,
    fractions.Fraction: 14,
    dt.datetime: 15,
    dt.time: 16,
}
BASIC = 9
"""Codes below this one are of types that :mod:`marshal` writes; it says type and length of each."""
WRITTEN = 2
"""The version of marshal's format: the last one in which equal values are always the same bytes."""
TEXT = 6
"""The code of a text."""
_ZONED = (15, 16)
"""Codes that hold only without a time zone; with one the value is a compound."""
_NAMED = {("pandas._libs.missing", "NAType"): 20, ("pandas.api.typing", "NAType"): 20}
_NAMED |= {("pandas._libs.tslibs.nattype", "NaTType"): 21, ("pandas.api.typing", "NaTType"): 21}


class _Codes(dict[type, int]):
    """Type -> code; a type met for the first time is looked at once."""

    def __missing__(self, kind: type) -> int:
        code = _NAMED.get((kind.__module__, kind.__qualname__), COMPOUND)
        if kind.__module__ == "numpy" and _fixed_scalar(kind):
            code = 22
        if code != COMPOUND or kind.__module__ == "builtins":
            self[kind] = code  # classes of notebooks come and go and are not kept alive here
        return code


def _fixed_scalar(kind: type) -> bool:
    numpy = sys.modules["numpy"]
    loose = (numpy.void, numpy.object_, numpy.longdouble, numpy.clongdouble)
    return (
        issubclass(kind, numpy.generic) and not issubclass(kind, loose) and kind is getattr(numpy, kind.__name__, kind)
    )


_CODES = _Codes(_EXACT)


def code(value: object) -> int:
    """Return the code of a value's exact type, :data:`COMPOUND` for what is no leaf."""
    found = _CODES[type(value)]
    return COMPOUND if found in _ZONED and value.tzinfo is not None else found  # type: ignore[attr-defined]


def leaf_digest(value: object, kind: int) -> Digest:
    """Return the digest of one leaf whose code is `kind`."""
    if kind < BASIC:
        return digest(b"v" + marshal.dumps(cast("Any", value), WRITTEN))
    return combine("leaf", kind, _RUNS[kind]((value,)))


def codes(items: Sequence[object]) -> bytes:
    """Return the code of each element; a single byte where all are the same."""
    kinds = set(map(_CODES.__getitem__, set(map(type, items))))
    if not kinds.isdisjoint(_ZONED):
        every = bytes(map(code, items))
        return every[:1] if len(set(every)) == 1 else every
    if len(kinds) == 1:
        return bytes(kinds)
    return bytes(map(_CODES.__getitem__, map(type, items)))


def run_digest(items: Sequence[object], kinds: bytes) -> Digest:
    """Return the digest of a run: of its length, its types in order, and all its leaves."""
    if len(items) <= SHORT and (not kinds or max(kinds) < BASIC):
        return digest(b"r" + marshal.dumps(tuple(cast("Any", items)), WRITTEN))
    if len(kinds) == 1:
        kind = kinds[0]
        return combine("run", len(items), kind, "" if kind == COMPOUND else _RUNS[kind](items))
    used = sorted(set(kinds) - {COMPOUND})
    parts = (_RUNS[kind](list(compress(items, _mask(kinds, kind)))) for kind in used)
    return combine("run", len(items), Hasher(kinds).hexdigest(), bytes(used), *parts)


def _mask(kinds: bytes, kind: int) -> bytes:
    table = bytearray(256)
    table[kind] = 1
    return kinds.translate(table)


def compounds(items: Sequence[object], kinds: bytes) -> Sequence[int]:
    """Return the positions of the elements that are no leaves."""
    if len(kinds) == 1:
        return range(len(items)) if kinds[0] == COMPOUND else ()
    if COMPOUND not in kinds:
        return ()
    return list(compress(range(len(items)), _mask(kinds, COMPOUND)))
