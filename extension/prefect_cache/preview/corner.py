"""The first rows and columns of an array, for a glance."""

from __future__ import annotations

import numbers

import numpy as np

SHOWN = 8
"""Rows and columns that are shown."""


def corner(array: object) -> list[list[str]]:
    """Return the first rows and columns of an array of any number of dimensions, as text."""
    if not isinstance(array, np.ndarray) or not array.ndim:
        return [[str(array)[:200]]]
    while array.ndim > 2:  # noqa: PLR2004 - rows and columns: the first plane of the others
        array = array[0] if len(array) else array.reshape(0, 0)
    table = array.reshape(-1, 1) if array.ndim == 1 else array
    return [[_number(v) for v in line[:SHOWN]] for line in table[:SHOWN]]


def _number(value: object) -> str:
    """Return an array's element in few digits."""
    return (
        f"{value:.6g}"
        if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral)
        else str(value)[:40]
    )
