"""Bytes, seconds and moments as people say them; the one place, so that every command says them alike."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from prefect_cache.errors import UsageProblem

_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")
_SPANS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def size_text(size: float) -> str:
    """Return bytes as ``646 MB`` or ``1.2 GB``."""
    for unit in _SIZES:
        if size < 999.5 or unit == _SIZES[-1]:  # noqa: PLR2004 - 999.6 would be shown as 1000
            digits = 1 if unit != "B" and size < 9.95 else 0  # noqa: PLR2004 - one digit before the point
            return f"{size:.{digits}f} {unit}"
        size /= 1000
    raise AssertionError


def seconds_text(seconds: float) -> str:
    """Return a time span as ``8 ms``, ``3.2 s``, ``4 min 10 s`` or ``2 h 5 min``."""
    if seconds < 0.9995:  # noqa: PLR2004 - below a second
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:  # noqa: PLR2004 - below a minute
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"  # noqa: PLR2004 - one digit before the point
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:  # noqa: PLR2004 - below an hour
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:  # noqa: PLR2004 - below two days
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d"


def age_text(then: float, now: float) -> str:
    """Return how long ago a moment was as ``now``, ``3 min``, ``2 h``, ``5 d``, or its date."""
    age = max(0.0, now - then)
    for limit, step, unit in ((60, 1, "s"), (3600, 60, "min"), (2 * 86400, 3600, "h"), (60 * 86400, 86400, "d")):
        if age < limit:
            return f"{int(age // step)} {unit}" if unit != "s" else "now"
    return date_text(then)


def date_text(then: float) -> str:
    """Return a moment's day as ``12 Nov 2026``, in local time."""
    moment = datetime.fromtimestamp(then, UTC).astimezone()
    return f"{moment.day} {moment:%b %Y}"


def moment_text(then: float) -> str:
    """Return a moment as ``12 Nov 2026, 14:03``, in local time."""
    moment = datetime.fromtimestamp(then, UTC).astimezone()
    return f"{moment.day} {moment:%b %Y, %H:%M}"


def parse_size(text: str) -> float:
    """Return the bytes of ``1.5GB``, ``200 MB`` or ``1024``."""
    match = re.fullmatch(r"\s*([\d.]+)\s*([kmgtp]?)(i?)b?\s*", text.lower())
    if match is None or match[1].count(".") > 1 or match[1] == ".":
        msg = f"{text!r} is no size; write 500MB or 1.5GB"
        raise UsageProblem(msg)
    power = "_kmgtp".find(match[2] or "_")
    return float(match[1]) * float(1024 if match[3] else 1000) ** power


def parse_span(text: str) -> float:
    """Return the seconds of ``12h``, ``7d`` or ``90s``."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw])\s*", text.lower())
    if match is None:
        msg = f"{text!r} is no time span; write 90s, 30m, 12h, 7d or 2w"
        raise UsageProblem(msg)
    return float(match[1]) * _SPANS[match[2]]
