"""The content of an object, put back into that very object."""

from __future__ import annotations

import array
import collections
import functools
import random
import types
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from prefect_cache.cells.inplace import State, copied, is_unforeseen, is_whole, look, put_state, state_of
from prefect_cache.errors import Unstorable


class Plain:
    """An instance with a dictionary."""

    def __init__(self) -> None:
        self.x = 1


class Slotted:
    """An instance with a slot."""

    __slots__ = ("x",)

    def __init__(self) -> None:
        self.x = 1


@dataclass(frozen=True)
class Frozen:
    """An instance that refuses to be set."""

    x: int = 1


class Registry(dict[str, int]):
    """A container with attributes of its own."""


def change_list(value: list[int]) -> None:
    value.append(4)


def change_dict(value: dict[str, int]) -> None:
    value.pop("a")
    value["z"] = 1


def change_registry(value: Registry) -> None:
    value["b"] = 2
    value.owner = "me"  # type: ignore[attr-defined]


def set_x(value: Any) -> None:
    object.__setattr__(value, "x", 2)


def make_function() -> Any:
    def function(a: int, b: int = 1, *, c: int = 2) -> tuple[int, ...]:
        return (a, b, c)

    return function


def change_function(value: Any) -> None:
    value.__defaults__ = (10,)
    value.__kwdefaults__ = {"c": 20}
    value.note = "changed"


def change_code(value: Any) -> None:
    value.__code__ = (lambda *_: "other").__code__


def change_partial(value: Any) -> None:
    value.__setstate__((int, ("8",), {}, {"note": "changed"}))


def lock(value: Any) -> None:
    value.flags.writeable = False


CASES = {
    "function": (make_function, change_function),
    "function with other code": (make_function, change_code),
    "partial": (lambda: functools.partial(int, "7"), change_partial),
    "read-only array": (lambda: np.arange(3.0), lock),
    "list": (lambda: [1, 2, 3], change_list),
    "dict": (lambda: {"a": 1, "b": 2}, change_dict),
    "ordered dict": (lambda: collections.OrderedDict(a=1, b=2), lambda v: v.move_to_end("a")),
    "defaultdict": (lambda: collections.defaultdict(list, a=[1]), lambda v: v["new"]),
    "counter": (lambda: collections.Counter("aab"), lambda v: v.update("c")),
    "dict subclass": (lambda: Registry(a=1), change_registry),
    "set": (lambda: {1, 2}, lambda v: v.add(3)),
    "bytearray": (lambda: bytearray(b"abc"), lambda v: v.extend(b"d")),
    "deque": (lambda: collections.deque([1, 2], maxlen=3), lambda v: v.appendleft(0)),
    "array.array": (lambda: array.array("d", [1.0]), lambda v: v.append(2.0)),
    "random.Random": (lambda: random.Random(1), lambda v: v.random()),
    "instance": (Plain, set_x),
    "slots": (Slotted, set_x),
    "frozen dataclass": (Frozen, set_x),
}


def content(value: Any) -> Any:
    """Return something to compare a value by."""
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, types.FunctionType):
        return value(0), vars(value)
    if isinstance(value, functools.partial):
        return value(), vars(value)
    if isinstance(value, np.ndarray):
        return value.tolist(), value.flags.writeable
    if isinstance(value, Registry):
        return dict(value), vars(value)
    if isinstance(value, Plain | Slotted | Frozen):
        return value.x
    return list(value.items()) if isinstance(value, dict) else value


@pytest.mark.parametrize("name", CASES)
def test_an_object_gets_the_content_that_another_had(name: str) -> None:
    make, change = CASES[name]
    one, other = make(), make()
    change(one)
    put_state(other, state_of(one))
    assert content(one) == content(other)


def test_an_array_is_changed_in_its_own_memory() -> None:
    changed, here = np.arange(6), np.arange(6)
    window = here[::2]
    changed[0] = 100
    put_state(here, state_of(changed))
    assert window[0] == 100


def test_a_locked_array_is_written_into_and_stays_locked() -> None:
    changed, here = np.arange(3), np.arange(3)
    changed[0] = 100
    lock(changed)
    lock(here)
    put_state(here, state_of(changed))
    assert (here[0], here.flags.writeable) == (100, False)


def test_a_writeable_window_of_a_locked_array_is_written_into() -> None:
    changed, here = np.arange(3), np.arange(3)
    window = here[:2]
    lock(here)
    changed[0] = 100
    put_state(window, state_of(changed[:2]))
    assert here[0] == 100


def test_attrs_keep_the_objects_that_they_hold() -> None:
    shared = [1, 2]
    changed, here = pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [1]})
    attrs = here.attrs
    changed.attrs["list"] = shared
    put_state(here, state_of(changed))
    assert here.attrs["list"] is shared
    assert here.attrs is attrs


def test_a_generator_stands_where_the_other_left_it() -> None:
    one, other = np.random.default_rng(1), np.random.default_rng(1)
    one.random(3)
    put_state(other, state_of(one))
    assert one.random() == other.random()


def test_a_frame_written_into_is_written_into_again_so_that_windows_see_it() -> None:
    changed, here = (pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}) for _ in range(2))
    window = here["b"].to_numpy()
    before = look(changed)
    changed.iloc[0, 1] = 30.0
    put_state(here, state_of(changed, before))
    pd.testing.assert_frame_equal(changed, here)
    assert window[0] == 30.0


@pytest.mark.parametrize("dtype", ["Int64", "boolean", "datetime64[ns, UTC]", "category", "str", "object", "complex"])
@pytest.mark.parametrize("is_shared", [False, True])
def test_blocks_of_any_kind_are_written_into_again(dtype: str, *, is_shared: bool) -> None:
    values = [True, False, True] if dtype == "boolean" else [1, 2, 3]
    changed, here = (pd.DataFrame({"a": pd.Series(values).astype(dtype)}) for _ in range(2))
    others = [frame.reset_index() for frame in (changed, here)] if is_shared else []
    before = look(changed)
    changed.iloc[0, 0] = changed.iloc[1, 0]
    state = state_of(changed, before)
    if not is_unforeseen(here, state):
        put_state(here, state)
        pd.testing.assert_frame_equal(changed, here)
    assert len(others) == 2 * is_shared


def test_a_frame_with_a_new_column_gets_it_and_keeps_its_identity() -> None:
    changed, here = (pd.DataFrame({"a": [1, 2]}) for _ in range(2))
    before = look(changed)
    changed["c"] = ["x", "y"]
    changed.attrs["unit"] = "m"
    put_state(here, state_of(changed, before))
    pd.testing.assert_frame_equal(changed, here)
    assert here.attrs == {"unit": "m"}


@pytest.mark.skipif(int(pd.__version__.split(".")[0]) < 3, reason="before pandas 3 such a Series sees the change")
def test_a_series_taken_from_a_frame_before_does_not_see_the_change() -> None:
    changed, here = (pd.DataFrame({"a": [1.0, 2.0]}) for _ in range(2))
    before = look(changed)
    taken = here["a"]
    changed.iloc[0, 0] = 10.0
    put_state(here, state_of(changed, before))
    assert taken.tolist() == [1.0, 2.0]


def test_a_renamed_index_is_renamed_in_place() -> None:
    changed, here = pd.Index([1, 2]), pd.Index([1, 2])
    changed.name = "id"
    put_state(here, state_of(changed))
    assert here.name == "id"


def test_class_attributes_are_set_again() -> None:
    class One:
        count = 0

    class Other:
        count = 0

    One.count = 5
    put_state(Other, state_of(One))
    assert Other.count == 5


def test_a_copied_state_does_not_see_later_changes() -> None:
    value = np.zeros(3)
    kept = copied(state_of(value))
    value[:] = 1
    put_state(value, kept)
    assert value.tolist() == [0, 0, 0]


def test_what_cannot_be_put_back_is_refused() -> None:
    with pytest.raises(Unstorable, match="memoryview"):
        state_of(memoryview(bytearray(3)))


def test_the_content_of_a_class_made_in_c_is_not_guessed() -> None:
    wrapper = functools.lru_cache(lambda: 1)
    wrapper.note = "changed"  # type: ignore[attr-defined]
    with pytest.raises(Unstorable, match="_lru_cache_wrapper"):
        state_of(wrapper)


@pytest.mark.skipif(int(pd.__version__.split(".")[0]) < 3, reason="before pandas 3 nothing is copied on writing")
def test_what_was_written_past_pandas_is_written_past_it_again() -> None:
    changed, here = (pd.DataFrame({"a": [1.0, 2.0]}) for _ in range(2))
    others = changed.reset_index(), here.reset_index()
    before = look(changed)
    changed.a.array[0] = 10.0
    put_state(here, state_of(changed, before))
    assert others[0]["a"].tolist() == others[1]["a"].tolist() == [10.0, 2.0]


@pytest.mark.skipif(int(pd.__version__.split(".")[0]) < 3, reason="before pandas 3 nothing is copied on writing")
def test_a_change_of_memory_that_is_shared_only_now_is_not_guessed() -> None:
    changed, here = (pd.DataFrame({"a": [1.0, 2.0]}) for _ in range(2))
    before = look(changed)
    changed.iloc[0, 0] = 10.0
    assert not is_unforeseen(here, state_of(changed, before))
    other = here.reset_index()
    assert is_unforeseen(here, state_of(changed, before))
    assert len(other) == 2


def test_a_state_that_another_version_stored_with_less_is_not_whole() -> None:
    less = object.__new__(State)
    object.__setattr__(less, "kind", "list")
    assert not is_whole(less)
    assert is_whole(state_of([1]))
    assert is_whole(state_of(State))
    assert not is_whole(replace(state_of(State), content=({}, ())))
