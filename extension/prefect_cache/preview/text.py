"""Cells of an Arrow array as text that loses nothing a reader would miss.

Integers stay exact (a browser's numbers end at 2**53), times keep their nanoseconds, a
missing value is None and never the word "null". Every function takes a short slice of a mapped
column and copies no more than what it shows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Sequence

CELL = 200
"""Characters of a cell that a page shows."""

DIGITS = 10
"""Significant digits of a float on a page."""

NESTED = 20
"""Elements of a list or map that a cell shows."""

_UNITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}


def texts(array: pa.Array, limit: int = CELL) -> list[str | None]:
    """Return one text for each value of a short array, None where it is missing."""
    kind = array.type
    if pa.types.is_null(kind):
        return [None] * len(array)
    if isinstance(array, pa.ExtensionArray):
        return texts(array.storage, limit)
    if pa.types.is_dictionary(kind):
        return texts(array.dictionary_decode(), limit)
    if _is_text(kind):
        return _strings(array, limit)
    if is_bytes(kind):
        return [None if v is None else shorten(repr(v), limit) for v in _sliced(array, limit).to_pylist()]
    return _plain(array, limit)


def _plain(array: pa.Array, limit: int) -> list[str | None]:
    kind = array.type
    if pa.types.is_boolean(kind):
        return [None if v is None else str(v) for v in array.to_pylist()]
    if pa.types.is_floating(kind):
        exact = limit > CELL
        return [None if v is None else _float(v, exact=exact) for v in array.cast(pa.string()).to_pylist()]
    if pa.types.is_timestamp(kind):
        return _times(array.cast(pa.string()).to_pylist())
    if pa.types.is_duration(kind):
        unit = _UNITS[kind.unit]
        return [None if v is None else duration(v, unit) for v in array.cast(pa.int64()).to_pylist()]
    if pa.types.is_nested(kind) or pa.types.is_interval(kind):
        return [_nested(scalar, limit) for scalar in array]
    return [None if v is None else shorten(v, limit) for v in array.cast(pa.string()).to_pylist()]


def shorten(text: str, limit: int) -> str:
    """Return a text of at most `limit` characters, with an ellipsis where it was longer."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def duration(value: int, digits: int) -> str:
    """Return a count of seconds / 10**digits as ``1 d 02:03:04.5``."""
    sign, value = ("-", -value) if value < 0 else ("", value)
    seconds, fraction = divmod(value, 10**digits)
    days, seconds = divmod(seconds, 86400)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    tail = f"{fraction:0{digits}}".rstrip("0") if fraction else ""
    return f"{sign}{days} d {clock}{'.' if tail else ''}{tail}" if days else f"{sign}{clock}{'.' if tail else ''}{tail}"


def dtype_text(kind: pa.DataType) -> str:
    """Return an Arrow type as a person writes it."""
    if pa.types.is_dictionary(kind):
        return f"category[{dtype_text(kind.value_type)}]"
    return {"large_string": "string", "large_binary": "binary", "double": "float64", "float": "float32"}.get(
        str(kind), str(kind)
    )


def is_numeric(kind: pa.DataType) -> bool:
    """Tell whether values of this type read best aligned at their right ends."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_bytes(kind: pa.DataType) -> bool:
    """Tell whether values of this type are bytes."""
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _sliced(array: pa.Array, limit: int) -> pa.Array:
    """Return the beginnings of binary values, one byte longer than what is shown."""
    return pc.binary_slice(array.cast(pa.large_binary()), 0, limit + 1)


def _strings(array: pa.Array, limit: int) -> list[str | None]:
    # Four bytes hold any character; cutting bytes (not characters) never scans a value of a gigabyte.
    head = _sliced(array, 4 * limit).to_pylist()
    return [None if v is None else shorten(v.decode("utf-8", "replace"), limit) for v in head]


def _float(text: str, *, exact: bool) -> str:
    """Return Arrow's shortest exact text with the point that tells a float from an integer.

    On a page it is rounded to ten digits, with which columns can be read; one cell by itself is exact.
    """
    if text == "nan":
        return "NaN"
    if not exact and len(text) > DIGITS + 2:
        text = f"{float(text):.{DIGITS}g}"
    return text if any(c in text for c in ".en") else text + ".0"


def _times(found: Sequence[str | None]) -> list[str | None]:
    """Drop the trailing zeros (and midnight) that a whole page of times shares."""
    split = [None if t is None else _split_time(t) for t in found]
    seen = [s for s in split if s is not None]
    digits = max((len(s[2].rstrip("0")) for s in seen), default=0)
    digits = -(-digits // 3) * 3
    midnight = all(s[1] == "00:00:00" and not s[3] for s in seen) and not digits
    return [None if s is None else s[0] if midnight else _join_time(s, digits) for s in split]


def _split_time(text: str) -> tuple[str, str, str, str]:
    """Return date, clock, fraction and zone of ``2024-07-01 14:00:00.000005+0200``."""
    date, _, rest = text.partition(" ")
    clock, tail = rest[:8], rest[8:]
    fraction, zone = tail, ""
    for mark in "+-Z":
        if mark in tail:
            at = tail.index(mark)
            fraction, zone = tail[:at], tail[at:]
    return date, clock, fraction.lstrip("."), zone


def _join_time(parts: tuple[str, str, str, str], digits: int) -> str:
    date, clock, fraction, zone = parts
    return f"{date} {clock}{'.' + fraction[:digits].ljust(digits, '0') if digits else ''}{zone}"


def _nested(scalar: pa.Scalar, limit: int) -> str | None:
    return shorten(_element(scalar, limit), limit) if scalar.is_valid else None


def _element(scalar: pa.Scalar, limit: int) -> str:
    """Return a value inside another one: text in quotes, the rest as in a cell."""
    if not scalar.is_valid:
        return "null"
    if isinstance(scalar, pa.MapScalar):
        pairs = [f"{_element(p['key'], limit)}: {_element(p['value'], limit)}" for p in scalar.values[:NESTED]]
        return _brackets("{}", pairs, len(scalar.values))
    if isinstance(scalar, pa.StructScalar):
        return _brackets("{}", [f"{name}: {_element(scalar[name], limit)}" for name in scalar], len(scalar))
    if isinstance(scalar, pa.ListScalar):
        return _brackets("[]", [_element(v, limit) for v in scalar.values[:NESTED]], len(scalar.values))
    if _is_text(scalar.type):
        return repr(shorten(scalar.as_py(), limit))
    if pa.types.is_interval(scalar.type) or pa.types.is_union(scalar.type):
        return str(scalar.as_py())
    return texts(pa.array([scalar.as_py()], scalar.type), limit)[0] or "null"


def _brackets(pair: str, items: list[str], total: int) -> str:
    more = f", … {total:,} items" if total > len(items) else ""
    return f"{pair[0]}{', '.join(items)}{more}{pair[1]}"
