"""Windows onto other objects' memory come back as windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from prefect_cache.cells.memory import extents, opened, overlapping, window
from prefect_cache.errors import Unstorable

if TYPE_CHECKING:
    from collections.abc import Callable


def reopened(array: Any, owner: Any, onto: Any) -> Any:
    """Return the window that `array` is onto `owner`, opened onto another object."""
    ((one, other),) = overlapping(extents([owner, array]))
    return opened(window(array, one if one.owner is owner else other), onto)


ARRAY_WINDOWS: dict[str, Callable[[Any], Any]] = {
    "every second": lambda a: a[::2],
    "backwards": lambda a: a[10:2:-3],
    "transposed": lambda a: a.reshape(4, 5).T,
    "one element": lambda a: a[3:4],
    "other dtype": lambda a: a.view(np.int64),
    "columns": lambda a: a.reshape(4, 5)[:, 1:3],
}


@pytest.mark.parametrize("name", ARRAY_WINDOWS)
def test_a_window_onto_an_array(name: str) -> None:
    make, owner = ARRAY_WINDOWS[name], np.arange(20.0)
    onto = owner.copy()
    restored = reopened(make(owner), owner, onto)
    np.testing.assert_array_equal(restored, make(owner))
    onto[:] = 7
    np.testing.assert_array_equal(restored, make(onto))


FRAME = pd.DataFrame(
    {"a": [1.0, 2, 3], "s": list("xyz"), "b": [4.0, 5, 6], "t": pd.date_range("2020-01-01", periods=3, unit="us")}
)
FRAME_WINDOWS: dict[str, Callable[[Any], Any]] = {
    "a column": lambda f: f["b"].to_numpy(),
    "backwards": lambda f: f["b"].to_numpy()[::-1],
    "datetimes": lambda f: f["t"].to_numpy(),
    "a cell": lambda f: f["b"].to_numpy()[1:2],
}


@pytest.mark.parametrize("name", FRAME_WINDOWS)
def test_a_window_onto_a_frame(name: str) -> None:
    make, onto = FRAME_WINDOWS[name], FRAME.copy()
    restored = reopened(make(FRAME), FRAME, onto)
    np.testing.assert_array_equal(restored, make(FRAME))
    assert np.shares_memory(restored, make(onto))
    assert restored.flags.writeable == make(FRAME).flags.writeable


@pytest.mark.parametrize(
    "make",
    [
        lambda f: f.to_numpy(),
        lambda f: f.to_numpy()[1:, ::-1],
        lambda f: f.to_numpy()[0],
        lambda f: f.to_numpy()[:, 1],
        lambda f: f.to_numpy().T,
    ],
)
def test_a_window_onto_a_frame_of_one_type(make: Callable[[Any], Any]) -> None:
    frame = FRAME[["a", "b"]].copy()
    onto = frame.copy()
    restored = reopened(make(frame), frame, onto)
    np.testing.assert_array_equal(restored, make(frame))
    assert np.shares_memory(restored, onto.to_numpy())


def test_arrays_side_by_side_do_not_overlap() -> None:
    owner = np.arange(10)
    assert overlapping(extents([owner[:5], owner[5:], np.arange(3)])) == []


def test_halves_that_overlap_are_refused() -> None:
    owner = np.arange(10)
    one, other = owner[:6], owner[4:]
    pair = overlapping(extents([one, other]))[0]
    with pytest.raises(Unstorable, match="neither"):
        window(other, pair[0])
