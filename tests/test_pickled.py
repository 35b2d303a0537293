"""Functions, classes and closures of a notebook come back into the notebook."""

from __future__ import annotations

import builtins
import dataclasses
import inspect
import io
import linecache
import textwrap
import threading
from typing import Any

import pytest

from prefect_cache.codecs.pickled import PickledCodec, compiled_as, dump, load
from prefect_cache.errors import Damaged, Unstorable, Untrusted


def notebook(source: str = "", **names: object) -> dict[str, Any]:
    """Return a namespace like a notebook's in which `source` has run."""
    namespace: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins, **names}
    exec(compile(textwrap.dedent(source), "<cell>", "exec"), namespace)
    return namespace


def moved(value: object, old: dict[str, Any], new: dict[str, Any]) -> Any:
    """Return `value`, pickled in one notebook and read in another."""
    file = io.BytesIO()
    dump(value, file, namespace=old)
    file.seek(0)
    return load(file, namespace=new)


def test_a_function_reads_the_globals_of_the_notebook_that_restores_it() -> None:
    old = notebook("limit = 1\ndef above(x): return x > limit")
    new = notebook(limit=10)
    assert moved(old["above"], old, new)(5) is False


def test_a_function_sets_the_globals_of_the_notebook_that_restores_it() -> None:
    old = notebook("def note():\n    global seen\n    seen = True")
    new = notebook()
    moved(old["note"], old, new)()
    assert new["seen"] is True


def test_closures_that_share_a_variable_go_on_sharing_it() -> None:
    old = notebook("""
        def counter():
            n = 0
            def up():
                nonlocal n
                n += 1
            def get():
                return n
            return up, get
        up, get = counter()
        up()
    """)
    up, get = moved((old["up"], old["get"]), old, notebook())
    up()
    assert get() == 2


def test_a_function_in_its_own_closure_calls_itself() -> None:
    old = notebook("""
        def outer():
            def factorial(k):
                return 1 if k < 2 else k * factorial(k - 1)
            return factorial
        factorial = outer()
    """)
    assert moved(old["factorial"], old, notebook())(5) == 120


def test_defaults_annotations_and_attributes_of_a_function_come_back() -> None:
    old = notebook("def f(a: int, b='x', *, c=[1]) -> str:\n    'Doc.'\nf.calls = 3")
    restored = moved(old["f"], old, notebook())
    assert inspect.signature(restored) == inspect.signature(old["f"])
    assert (restored.__doc__, restored.calls, restored.__module__) == ("Doc.", 3, "__main__")


CLASSES = """
import abc, dataclasses, enum, typing

class Base:
    __slots__ = ("a",)
    def __init__(self, a): self.a = a
    def who(self): return __class__.__name__, self.a

class Child(Base):
    def who(self): return ("child", *super().who())

class Colour(enum.Enum):
    RED = 1
    GREEN = 2
    def doubled(self): return self.value * 2

@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    tags: list = dataclasses.field(default_factory=list)

class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self): ...

class Square(Shape):
    def area(self): return 4

class Row(typing.NamedTuple):
    a: int
    b: str = "x"

things = [Base(1), Child(2), Colour.RED, Point(1), Square(), Row(1)]
"""


@pytest.fixture(scope="module")
def classes() -> dict[str, Any]:
    """Return what a notebook holds after classes moved into it."""
    old = notebook(CLASSES)
    names = ["Base", "Child", "Colour", "Point", "Shape", "Square", "Row", "things"]
    return moved({name: old[name] for name in names}, old, notebook())


def test_instances_are_instances_of_the_restored_classes(classes: dict[str, Any]) -> None:
    assert all(type(thing) is classes[type(thing).__name__] for thing in classes["things"])


def test_super_and_class_cells_know_the_restored_class(classes: dict[str, Any]) -> None:
    assert classes["things"][1].who() == ("child", "Base", 2)


def test_slots_stay_slots(classes: dict[str, Any]) -> None:
    assert not hasattr(classes["things"][0], "__dict__")


OWN_WAYS = """
import threading

class Leaves:
    def __init__(self): self.kept, self.left = [1], "as it is"
    def __getstate__(self): return {"kept": self.kept}
    def __setstate__(self, state): self.__dict__.update(state, left="made anew")

class Counts:
    made = 0
    def __init__(self): Counts.made += 1; self.number = Counts.made
    def __reduce__(self): return (Counts, ())

class Slots:
    __slots__ = ("a", "b")
    def __getstate__(self): return (self.a,)
    def __setstate__(self, state): self.a, self.b = state[0], None

class Locked:
    def __init__(self): self.x, self.lock = 1, threading.Lock()
    def __getstate__(self): return {"x": self.x}
    def __setstate__(self, state): self.__init__(); self.x = state["x"]

class Only:
    def __reduce__(self): return "ONLY"

leaves, counts, slots, locked, ONLY = Leaves(), [Counts(), Counts()], Slots(), Locked(), Only()
leaves.itself, slots.a, slots.b, locked.x = leaves, counts[0], 2, 5
"""


def test_instances_come_back_as_they_were_whatever_their_class_does_about_pickles() -> None:
    old = notebook(OWN_WAYS)
    found = moved({name: old[name] for name in ("leaves", "counts", "slots", "Counts")}, old, notebook())
    assert vars(found["leaves"]) == {"kept": [1], "left": "as it is", "itself": found["leaves"]}
    assert [one.number for one in found["counts"]] == [1, 2]
    assert found["Counts"].made == 2
    assert (found["slots"].a is found["counts"][0], found["slots"].b) == (True, 2)


def test_what_nothing_can_keep_is_left_to_the_class_that_leaves_it_out() -> None:
    old = notebook(OWN_WAYS)
    locked = moved(old["locked"], old, notebook("import threading"))
    assert (locked.x, locked.lock.locked()) == (5, False)


def test_enum_members_stay_single(classes: dict[str, Any]) -> None:
    assert classes["things"][2] is classes["Colour"].RED
    assert classes["Colour"].GREEN.doubled() == 4


def test_dataclasses_stay_dataclasses(classes: dict[str, Any]) -> None:
    point = classes["things"][3]
    assert dataclasses.replace(point, x=5).x == 5
    assert classes["Point"].__dataclass_fields__["x"].default is dataclasses.MISSING


def test_abstract_classes_stay_abstract(classes: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="abstract"):
        classes["Shape"]()


def test_a_restored_class_is_a_new_class_as_if_the_cell_had_run() -> None:
    old = notebook("class A: pass\nolder = A()")
    assert not isinstance(old["older"], moved(old["A"], old, notebook()))


def test_the_source_of_a_restored_function_is_found_where_the_cell_stands_now() -> None:
    old = notebook("def f():\n    return 1\n")
    now = "# a comment more\n\ndef f():\n    return 1\n"
    linecache.cache["<now>"] = (len(now), None, now.splitlines(keepends=True), "<now>")
    file = io.BytesIO()
    dump(old["f"], file, namespace=old)
    file.seek(0)
    with compiled_as(lambda: [compile(now, "<now>", "exec")]):
        restored: Any = load(file, namespace=notebook())
    assert restored.__code__.co_firstlineno == 3
    assert inspect.getsource(restored) == "def f():\n    return 1\n"


@pytest.mark.parametrize("mode", ["r", "w", "rb", "wb", "r+b", "a"])
def test_a_closed_file_comes_back_closed(tmp_path: Any, mode: str) -> None:
    path = tmp_path / "x"
    path.write_text("text")
    with path.open(mode) as file:
        pass
    restored = moved(file, {}, {})
    assert (type(restored), restored.closed, restored.name, restored.mode) == (
        type(file),
        True,
        str(path),
        file.mode,
    )


def test_what_cannot_be_pickled_is_named() -> None:
    with pytest.raises(Unstorable, match="lock"):
        dump({"a": threading.Lock()}, io.BytesIO())


def test_a_pickle_without_a_trusted_signature_is_not_opened(tmp_path: Any) -> None:
    path = tmp_path / "x.pickle"
    PickledCodec().write({"a": 1}, path)
    with pytest.raises(Untrusted, match="signature"):
        PickledCodec().read(path, {}, trusted=False)
    assert PickledCodec().read(path, {}, trusted=True) == {"a": 1}


def test_a_broken_pickle_is_damaged_whatever_its_reader_raises() -> None:
    with pytest.raises(Damaged):
        load(io.BytesIO(b"\x80\x05garbage"))
