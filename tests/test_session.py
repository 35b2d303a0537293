"""After a hit the notebook is as if the cell had run; where that cannot be known, the cell runs."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from hearts import Notebook
from prefect_cache.model import Bypass, Hit, Miss, Problem

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return where a store will be."""
    return tmp_path / "store"


def again(root: Path, setup: str, cell: str) -> Notebook:
    """Run `cell` after `setup` in one notebook, and restore it in another, which is returned."""
    first = Notebook(root)
    first.run(setup)
    assert isinstance(first.cached(cell), Miss)
    second = Notebook(root)
    second.run(setup)
    outcome = second.cached(cell)
    assert isinstance(outcome, Hit), outcome
    return second


def test_values_come_back(root: Path) -> None:
    notebook = again(root, "n = 3", "squares = [i * i for i in range(n)]\ntotal = sum(squares)\nname = 'x' * n")
    assert (notebook["squares"], notebook["total"], notebook["name"]) == ([0, 1, 4], 5, "xxx")


def test_frames_come_back_writable(root: Path) -> None:
    notebook = again(
        root,
        "import pandas as pd",
        "df = pd.DataFrame({'a': [1.5, 2.5], 's': ['x', None]}, index=pd.Index([3, 4], name='id'))",
    )
    df = notebook["df"]
    expected = pd.DataFrame({"a": [1.5, 2.5], "s": ["x", None]}, index=pd.Index([3, 4], name="id"))
    pd.testing.assert_frame_equal(df, expected)
    df.loc[3, "a"] = 100.0
    assert df.loc[3, "a"] == 100.0


def test_writing_to_a_restored_frame_does_not_reach_the_store(root: Path) -> None:
    cell = "df = pd.DataFrame({'a': range(1000)})"
    again(root, "import pandas as pd", cell)["df"].loc[0, "a"] = -1
    third = Notebook(root)
    third.run("import pandas as pd")
    assert isinstance(third.cached(cell), Hit)
    assert third["df"].loc[0, "a"] == 0


def test_an_input_of_another_value_misses(root: Path) -> None:
    first = Notebook(root, n=3)
    first.cached("m = n + 1")
    second = Notebook(root, n=3.0)
    assert isinstance(second.cached("m = n + 1"), Miss)


def test_a_column_renamed_misses(root: Path) -> None:
    cell = "first = list(df.columns)[0]"
    one = Notebook(root, df=pd.DataFrame({"a": [1]}))
    one.cached(cell)
    other = Notebook(root, df=pd.DataFrame({"b": [1]}))
    assert isinstance(other.cached(cell), Miss)
    assert other["first"] == "b"


def test_a_frame_changed_in_place_is_changed_in_place_again(root: Path) -> None:
    notebook = again(root, "import pandas as pd\ndf = pd.DataFrame({'a': [1, 2]})\nother = df", "df['b'] = df['a'] * 2")
    assert notebook["other"] is notebook["df"]
    assert notebook["other"]["b"].tolist() == [2, 4]


def test_a_list_inside_an_input_is_changed_in_place(root: Path) -> None:
    notebook = again(root, "inner = [1]\ncfg = {'a': inner}", "cfg['a'].append(2)")
    assert notebook["inner"] == [1, 2]
    assert notebook["cfg"]["a"] is notebook["inner"]


def test_two_names_for_one_object_stay_one(root: Path) -> None:
    notebook = again(root, "", "a = [1]\nb = a\nc = {'a': a}")
    assert notebook["a"] is notebook["b"] is notebook["c"]["a"]


def test_an_output_that_is_an_input_stays_that_object(root: Path) -> None:
    notebook = again(root, "import pandas as pd\ndf = pd.DataFrame({'a': [1]})", "same = df\nfound = [df]")
    assert notebook["same"] is notebook["df"]
    assert notebook["found"][0] is notebook["df"]


def test_a_window_onto_an_array_stays_one(root: Path) -> None:
    notebook = again(root, "import numpy as np\na = np.arange(10)", "b = a[::2]\nc = np.zeros(4)\nd = c[1:]")
    notebook["a"][0] = 100
    notebook["d"][:] = 5
    assert notebook["b"][0] == 100
    assert notebook["c"].tolist() == [0, 5, 5, 5]


def test_functions_live_in_the_notebook(root: Path) -> None:
    notebook = again(root, "", "def scaled(x):\n    return x * factor")
    notebook.run("factor = 10")
    assert notebook["scaled"](2) == 20


def test_an_edited_helper_misses(root: Path) -> None:
    cell = "y = outer(1)"
    first = Notebook(root)
    first.run("def inner(x): return x + 1\ndef outer(x): return inner(x)")
    first.cached(cell)
    second = Notebook(root)
    second.run("def inner(x): return x + 2\ndef outer(x): return inner(x)")
    assert isinstance(second.cached(cell), Miss)
    assert second["y"] == 3


def test_names_deleted_are_deleted(root: Path) -> None:
    notebook = again(root, "tmp = 1", "kept = tmp\ndel tmp")
    assert "tmp" not in notebook


def test_a_global_rebound_in_a_helper_is_rebound(root: Path) -> None:
    notebook = again(root, "state = 1\ndef bump():\n    global state\n    state += 1", "bump()")
    assert notebook["state"] == 2


def test_a_helper_that_sets_a_name_to_what_it_was_sets_it(root: Path) -> None:
    setup = "def setx():\n    global x\n    x = 5"
    first = Notebook(root)
    first.run(setup + "\nx = 5")
    first.cached("setx()")
    second = Notebook(root)
    second.run(setup + "\nx = 7")
    second.cached("setx()")
    assert second["x"] == 5


def test_a_branch_not_taken_leaves_the_name_alone(root: Path) -> None:
    cell = "if flag:\n    y = 1"
    first = Notebook(root, flag=False, y=7)
    first.cached(cell)
    second = Notebook(root, flag=False, y=9)
    second.cached(cell)
    assert second["y"] == 9


def test_a_loop_variable_does_not_make_the_next_run_miss(root: Path) -> None:
    notebook = Notebook(root)
    cell = "out = []\nfor i in range(3):\n    out.append(i)"
    assert isinstance(notebook.cached(cell), Miss)
    assert isinstance(notebook.cached(cell), Hit)


def test_the_last_expression_comes_back(root: Path) -> None:
    notebook = again(root, "", "x = [1]\nx")
    assert notebook.value is notebook["x"]


def test_an_input_that_cannot_be_read_is_a_bypass_and_untouched(root: Path) -> None:
    notebook = Notebook(root)
    notebook.run("gen = (i for i in range(3))")
    assert isinstance(notebook.cached("x = list(gen)"), Bypass)
    assert notebook["x"] == [0, 1, 2]


def test_an_output_that_cannot_be_stored_is_a_bypass_that_names_it(root: Path) -> None:
    outcome = Notebook(root).cached("import threading\nlock = threading.Lock()\nx = 1")
    assert isinstance(outcome, Bypass)
    assert outcome.reason.startswith("lock:")
    assert "-o" in outcome.remedy


def test_outputs_named_leave_the_rest_out(root: Path) -> None:
    cell = "import threading\nlock = threading.Lock()\nx = 1"
    assert isinstance(Notebook(root).cached(cell, outputs=("x",)), Miss)
    notebook = Notebook(root)
    assert isinstance(notebook.cached(cell, outputs=("x",)), Hit)
    assert "lock" not in notebook


def test_a_cell_that_raises_stores_nothing(root: Path) -> None:
    notebook = Notebook(root)
    with pytest.raises(ZeroDivisionError):
        notebook.cached("x = 1\n1 / 0")
    assert notebook["x"] == 1
    assert notebook.store.catalog().entries == ()


def test_a_file_that_changed_misses_and_back_again_hits(root: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    cell = f"with open({str(data)!r}) as file:\n    text = file.read()"
    data.write_text("one")
    Notebook(root).cached(cell)
    data.write_text("two")
    changed = Notebook(root)
    assert isinstance(changed.cached(cell), Miss)
    assert changed["text"] == "two"
    data.write_text("one")
    back = Notebook(root)
    assert isinstance(back.cached(cell), Hit)
    assert back["text"] == "one"


def test_a_retry_starts_from_the_namespace_as_it_was(root: Path) -> None:
    notebook = Notebook(root)
    notebook.run("log = []\ntries = iter([0, 1])\nn = 1\nclass Once:\n    done = []\n")
    notebook.run("import itertools\nfails = [True]")
    cell = "n += 1\nlog.append(n)\nif attempts() == 1:\n    raise OSError"
    notebook.names["attempts"] = Attempts()
    notebook.cached(cell, retries=1, ignore=("attempts",))
    assert (notebook["n"], notebook["log"]) == (2, [2])


class Attempts:
    """Counts its calls; kept out of the key."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> int:
        self.count += 1
        return self.count


def test_process_state_is_changed_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODE", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    cell = """
import os, sys
os.environ['MODE'] = 'fast'
sys.path.append('lib')
import pandas as pd
pd.set_option('display.max_rows', 7)
"""
    Notebook(root).cached(cell)
    monkeypatch.delenv("MODE")
    pd.reset_option("display.max_rows")
    sys.path.remove("lib")
    assert isinstance(Notebook(root).cached(cell), Hit)
    import os

    assert os.environ["MODE"] == "fast"
    assert "lib" in sys.path
    assert pd.get_option("display.max_rows") == 7
    pd.reset_option("display.max_rows")


def test_a_generator_stands_where_the_run_left_it(root: Path) -> None:
    notebook = again(root, "import numpy as np\nrng = np.random.default_rng(1)", "x = rng.random()")
    plain = np.random.default_rng(1)
    assert notebook["x"] == plain.random()
    assert notebook["rng"].random() == plain.random()


def test_the_manifest_is_read_by_people(root: Path) -> None:
    Notebook(root).cached("x = 1\ny = [2]", name="small")
    entry = Notebook(root).store.get("small")
    assert entry.manifest.source == "x = 1\ny = [2]"
    assert entry.manifest.effects["names"] == {"x": ["plain", 1], "y": ["item", 0, "y"]}


def test_an_array_changed_in_place_shows_in_its_windows(root: Path) -> None:
    notebook = again(root, "import numpy as np\na = np.arange(10.0)\nb = a[2:5]", "a[3] = 99")
    assert notebook["b"].tolist() == [2, 99, 4]


def test_windows_onto_each_other_stay_so_when_both_are_inputs(root: Path) -> None:
    notebook = again(root, "import numpy as np\na = np.arange(10.0)\nb = a[2:5]", "b[:] = 0\ntotal = a.sum()")
    assert (notebook["a"][2], notebook["total"]) == (0, 36)
    notebook["b"][0] = 5
    assert notebook["a"][2] == 5


def test_an_object_in_an_object_array_stays_that_object(root: Path) -> None:
    notebook = again(root, "import numpy as np", "a = np.array([{'x': 1}, None], dtype=object)\nb = a[0]")
    assert notebook["b"] is notebook["a"][0]


def test_an_object_in_a_frames_cell_stays_that_object(root: Path) -> None:
    notebook = again(
        root, "import pandas as pd", "tags = ['x']\ndf = pd.DataFrame({'t': [tags, tags, []]})\nd2 = df.copy()"
    )
    assert notebook["df"].loc[0, "t"] is notebook["df"].loc[1, "t"] is notebook["tags"] is notebook["d2"].loc[0, "t"]


def test_a_closure_that_counts_goes_on_counting(root: Path) -> None:
    setup = """
def counter():
    n = 0
    def up():
        nonlocal n
        n += 1
        return n
    return up
up = counter()
"""
    notebook = again(root, setup, "first = up()")
    assert notebook["up"]() == 2


def unsigned(root: Path) -> None:
    """Take the signatures from all entries of a store."""
    for signature in root.glob("entries/*/signature"):
        signature.unlink()


def test_an_entry_without_a_signature_gives_tables(root: Path) -> None:
    cell = "import pandas as pd\ndf = pd.DataFrame({'a': [1, 2]})"
    Notebook(root).cached(cell)
    unsigned(root)
    notebook = Notebook(root)
    assert isinstance(notebook.cached(cell), Hit)
    assert notebook["df"]["a"].tolist() == [1, 2]


@pytest.mark.parametrize("cell", ["x = [1]", "1 + 1"])
def test_an_entry_without_a_signature_opens_no_pickle_and_shows_nothing(root: Path, cell: str) -> None:
    # One state of the warnings filters for both runs: it is a part of the key.
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        Notebook(root).cached(cell)
        unsigned(root)
        assert isinstance(Notebook(root).cached(cell), Miss)
    assert "without a" in str(said[-1].message)


def test_a_store_below_a_file_lists_nothing_and_runs_the_cell(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    notebook = Notebook(tmp_path / "file" / "store")
    assert isinstance(notebook.cached("x = 1"), Bypass)
    assert notebook["x"] == 1
    assert notebook.store.catalog().entries == ()


@pytest.mark.parametrize(
    "cell",
    [
        "df['c'] = 3.0\ny = df['c'].to_numpy()",
        "df['a'] = df['a'] * 2\ny = df['a'].to_numpy()",
        "df.iloc[0, 0] = 7\ny = df['a'].to_numpy()",
        "del df['a']\ny = df['b'].to_numpy()",
        "df['c'] = df['b'] + 1\ny = {'in': [df['c'].to_numpy()]}['in'][0]",
    ],
)
def test_a_window_onto_a_frame_that_the_cell_changes_shows_the_frame_as_it_is_then(tmp_path: Path, cell: str) -> None:
    seen = []
    for _ in range(2):
        notebook = Notebook(tmp_path)
        notebook.run("import pandas as pd\ndf = pd.DataFrame({'a': [1.0, 2.0], 'b': [3.0, 4.0]})\nalias = df")
        outcome = notebook.cached(cell)
        columns = (notebook["df"][name].to_numpy() for name in notebook["df"])
        shares = [np.shares_memory(notebook["y"], column) for column in columns]
        seen.append((notebook["y"].tolist(), notebook["df"].to_dict("list"), shares))
        assert notebook["alias"] is notebook["df"]
    assert isinstance(outcome, Hit)
    assert seen[0] == seen[1]


FRAME = "df = pd.DataFrame({'a': [1.0, 2, 3], 's': ['x', 'y', 'z'], 'c': pd.Categorical(list('aba'))})\n"


@pytest.mark.parametrize(
    "cell",
    [
        "h = df.head(2)",
        "h = df.iloc[1:]\nx = df[['a']]\ns = df['s']\nt = h['a']",
        "df['n'] = df['a'] * 2\nh = df.head(2)",
    ],
)
@pytest.mark.filterwarnings("ignore")  # what pandas 2 says of writing to such frames
def test_frames_that_share_memory_go_on_sharing_it(tmp_path: Path, cell: str) -> None:
    """Before pandas 3, writing to the one shows in the other; from then on it does not. So it is after a hit."""
    seen = []
    for _ in range(2):
        notebook = Notebook(tmp_path)
        notebook.run("import pandas as pd\n" + FRAME)
        outcome = notebook.cached(cell)
        notebook.run("df.loc[1, 'a'] = 77.0\ndf.loc[1, 's'] = 'Q'")
        frames = {name: value for name, value in notebook.names.items() if isinstance(value, pd.DataFrame | pd.Series)}
        seen.append({name: frame.to_json() for name, frame in frames.items()})
    assert isinstance(outcome, Hit)
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("cell", "later"),
    [
        ("d = {'a': 1}\nview = d.keys()", "d['z'] = 2"),
        ("d = collections.OrderedDict(a=1)\nview = d.items()", "d['z'] = 2"),
        ("d = {'a': 1}\nview = types.MappingProxyType(d)", "d['z'] = 2"),
        ("class A:\n    x = 1\nview = vars(A)", "A.y = 2"),
        ("d = bytearray(b'xyz')\nview = memoryview(d)", "d[0] = 97"),
    ],
)
def test_what_shows_another_object_shows_it_after_a_hit(tmp_path: Path, cell: str, later: str) -> None:
    seen = []
    for _ in range(2):
        notebook = Notebook(tmp_path)
        notebook.run("import collections, types")
        outcome = notebook.cached(cell)
        notebook.run(later)
        seen.append((type(notebook["view"]), sorted(notebook["view"])))
    assert isinstance(outcome, Hit)
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    "cell",
    [
        "file = open('here.txt', 'w+')",
        "import weakref\nclass A: pass\na = A()\np = weakref.proxy(a)",
        "part = memoryview(b'xyz')[1:]",
    ],
)
def test_what_would_come_back_as_something_else_is_not_stored(tmp_path: Path, cell: str, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = Notebook(tmp_path / "store")
    assert isinstance(notebook.cached(cell), Bypass)
    if "file" in notebook:
        notebook["file"].close()


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        (
            "try:\n    raise ValueError('x') from KeyError('y')\nexcept ValueError as e:\n    error = e",
            "repr(error.__cause__)",
        ),
        ("try:\n    1 / zero\nexcept NameError as e:\n    error = e", "error.name"),
        (
            "try:\n    raise Odd(3)\nexcept Odd as e:\n    error = e\n    e.add_note('n')",
            "(error.code, error.args, error.__notes__)",
        ),
        (
            "try:\n    open('/nowhere')\nexcept OSError as e:\n    error = e",
            "(error.errno, error.filename, str(error))",
        ),
    ],
)
def test_exceptions_come_back_with_what_they_tell(tmp_path: Path, cell: str, told: str) -> None:
    seen = []
    for _ in range(2):
        notebook = Notebook(tmp_path)
        notebook.run("class Odd(Exception):\n    def __init__(self, n): super().__init__('odd', n); self.code = n")
        outcome = notebook.cached(cell)
        notebook.run(f"told = {told}")
        seen.append(notebook["told"])
    assert isinstance(outcome, Hit)
    assert seen[0] == seen[1]


def test_after_a_run_nothing_of_ours_shares_the_memory_of_a_frame(tmp_path: Path) -> None:
    """Else pandas would copy it before the next change, which then would not show in the array under the frame."""
    for _ in range(2):
        notebook = Notebook(tmp_path)
        notebook.run("import numpy as np, pandas as pd\na = np.arange(6.0)\ns = pd.Series(a, copy=False)")
        outcome = notebook.cached("a[0] = 5\ntotal = s.sum()")
        notebook.run("s.iloc[1] = 9")
        assert notebook["a"][:2].tolist() == [5, 9]
    assert isinstance(outcome, Hit)


def test_an_array_in_the_memory_of_a_bytearray_is_not_stored_apart_from_it(tmp_path: Path) -> None:
    notebook = Notebook(tmp_path)
    notebook.run("import numpy as np\nraw = bytearray(8)")
    outcome = notebook.cached("numbers = np.frombuffer(raw, 'u1')\nraw[0] = 1")
    assert isinstance(outcome, Bypass)
    assert "bytearray" in outcome.reason


INDEXED = "import pandas as pd\ndf = pd.DataFrame({'a': [1, 2]}, index=pd.Index(['p', 'q'], name='i'))"


def test_an_index_that_frames_share_is_one_again(root: Path) -> None:
    """In pandas, the result of ``df * 2`` has the very index of ``df``: a name given to one is the other's as well."""
    cell = "out = df * 2\nkeep = df.index\nmore = {'k': pd.Series([1, 2], index=out.index)}"
    first = Notebook(root)
    first.run(INDEXED)
    first.cached(cell)
    again = Notebook(root)
    again.run(INDEXED)
    assert isinstance(again.cached(cell), Hit)
    again["out"].index.name = "day"
    assert again["df"].index.name == again["keep"].name == again["more"]["k"].index.name == "day"
    assert again["df"].index is again["keep"]


def test_an_index_changed_in_place_is_that_index_for_all(root: Path) -> None:
    """Also for those that the cell does not name."""
    start = f"{INDEXED}\ndates = pd.Series([1, 2], index=pd.date_range('2024', periods=2))\nother = df * 2"
    cell = "df.index.name = 'day'\ndf['b'] = 5\ndates.index.freq = None"
    notebook = Notebook(root)
    notebook.run(start)
    notebook.cached(cell)
    notebook.run(start)
    assert isinstance(notebook.cached(cell), Hit)
    assert (notebook["other"].index.name, notebook["dates"].index.freq) == ("day", None)
    assert notebook["df"].index is notebook["other"].index


def test_frames_of_an_entry_are_loaded_without_the_notebook(root: Path) -> None:
    """Where their index was a variable's, they have one of their own."""
    notebook = Notebook(root)
    notebook.run(INDEXED)
    entry = notebook.cached("out = df * 2").entry
    loaded = Notebook(root).session.load(entry)["out"]
    assert loaded.equals(notebook["out"])
    assert loaded.index.name == "i"


def test_whether_inputs_share_an_index_parts_keys(root: Path) -> None:
    """The cell would rename one, or both."""
    cell = "other.index.name = 'day'\nname = df.index.name"
    notebook = Notebook(root)
    notebook.run(f"{INDEXED}\nother = df * 2")
    notebook.cached(cell)
    notebook.run(f"{INDEXED}\nother = (df * 2).copy()")
    assert isinstance(notebook.cached(cell), Miss)
    assert notebook["name"] == "i"


def test_windows_onto_an_array_without_a_name_are_onto_one_array(root: Path) -> None:
    """``reshape`` gives a window, too: two of them have the memory in common that neither owns."""
    cell = "import numpy as np\na = np.arange(12).reshape(3, 4)\nb = a.view()\nc = a[1:]"
    Notebook(root).cached(cell)
    notebook = Notebook(root)
    assert isinstance(notebook.cached(cell), Hit)
    notebook["a"][1, 0] = 99
    assert (notebook["b"][1, 0], notebook["c"][0, 0]) == (99, 99)


def test_a_named_tuple_stays_that_very_one(root: Path) -> None:
    """Where an output is an input, or the last expression shows one."""
    notebook = Notebook(root)
    notebook.run("from collections import namedtuple\np = namedtuple('Pair', 'x items')(5, [])")
    for expected in (Miss, Hit):
        assert isinstance(notebook.cached("q = [p]\np"), expected)
        assert notebook["q"][0] is notebook["p"] is notebook.value


def test_long_chains_of_objects_with_pickles_of_their_own_take_no_time(root: Path) -> None:
    """Each is tried once, however many hold each other."""
    notebook = Notebook(root)
    notebook.run(
        "class Link:\n    def __init__(self, inner): self.inner, self.back = inner, None\n"
        "    def __getstate__(self): return {'inner': self.inner}\n"
        "chain = None\nfor _ in range(40):\n    link = Link(chain)\n    if chain: chain.back = link\n    chain = link"
    )
    for expected in (Miss, Hit):
        assert isinstance(notebook.cached("other, first = [chain], Link(Link(chain))"), expected)
        assert notebook["other"][0] is notebook["first"].inner.inner is notebook["chain"]
        assert notebook["chain"].inner.back is notebook["chain"]


class Hostile:
    """Raises something unusual whenever anything is asked of it."""

    def __getattr__(self, name: str) -> object:
        raise ZeroDivisionError(f"asked for {name}")

    def __reduce_ex__(self, protocol: object) -> str:
        raise ZeroDivisionError("asked for its state")


def test_objects_that_raise_when_they_are_looked_at_end_no_cell(tmp_path, monkeypatch):
    """As a member of an installed module, as an input and as an output."""
    import decimal

    monkeypatch.setattr(decimal, "hostile", Hostile(), raising=False)
    notebook = Notebook(tmp_path, Hostile=Hostile, hostile=Hostile())
    assert isinstance(notebook.cached("import decimal\nx = decimal.Decimal(1)"), Miss)
    assert isinstance(notebook.cached("y = hostile.x if False else 2"), Miss)
    assert isinstance(notebook.cached("y = hostile.x if False else 2"), Hit)
    assert isinstance(made := notebook.cached("z = Hostile()"), Bypass)
    assert "cannot be pickled: asked for its state" in made.reason
    assert isinstance(notebook["z"], Hostile)


def test_what_fails_on_the_way_of_a_cell_is_a_reason_and_no_error(tmp_path, monkeypatch):
    notebook = Notebook(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise LookupError("within")

    for name, doing in (("key_for", "depends on"), ("Before", "may change"), ("changed_files", "did")):
        with monkeypatch.context() as patch:
            patch.setattr(f"prefect_cache.session.{name}", fail)
            outcome = notebook.cached("x = 1")
        assert isinstance(outcome, Bypass)
        assert doing in outcome.reason
        assert "failed with LookupError: within (test_session.py:" in outcome.reason
    assert isinstance(notebook.cached("x = 1"), Miss)
    problems: list[Problem] = []
    notebook.store.on_problem = problems.append
    with monkeypatch.context() as patch:
        patch.setattr("prefect_cache.session.Replay", fail)
        assert "cannot be used: reading it failed" in notebook.cached("x = 1").because
    assert "LookupError: within" in problems[0].what
    assert isinstance(notebook.cached("x = 1"), Hit)
    assert notebook.runs == 5


class Vector:
    """An object of another library of arrays, as others see it: memory, given away by DLPack; its pickles copy it."""

    def __init__(self, memory: object) -> None:
        self._memory = memory

    def __dlpack__(self, **how: object) -> object:
        return np.frombuffer(self._memory).__dlpack__(**how)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __reduce__(self) -> tuple[object, tuple[bytes]]:
        return _vector, (bytes(self._memory),)

    def tail(self) -> Vector:
        return Vector(memoryview(self._memory)[8:])


def _vector(data: bytes) -> Vector:
    return Vector(bytearray(data))


def test_arrays_of_other_libraries_are_stored_as_long_as_nothing_else_lies_in_their_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(Vector, "__module__", "installed.vectors")
    notebook = Notebook(tmp_path, vector=_vector, np=np)
    assert isinstance(notebook.cached("a = vector(bytes(16)); same = [a, a]", ignore=("vector",)), Miss)
    assert notebook["same"][0] is notebook["a"]
    assert isinstance(notebook.cached("a = vector(bytes(16)); same = [a, a]", ignore=("vector",)), Hit)
    for cell in ("b = vector(bytes(16)); c = b.tail()", "b = vector(bytes(16)); c = np.from_dlpack(b)[1:]"):
        assert isinstance(shared := notebook.cached(cell, ignore=("vector",)), Bypass)
        assert "a Vector shares its memory with another object" in shared.reason


def test_an_object_that_remembers_more_than_its_pickles_is_not_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(Vector, "__module__", "installed.vectors")
    notebook = Notebook(tmp_path, vector=_vector)
    for attribute, said in (("grad_fn", "remembers how it was computed"), ("grad", "holds a gradient")):
        cell = f"a = vector(bytes(16)); a.{attribute} = 1"
        assert said in notebook.cached(cell, ignore=("vector",)).reason


@pytest.mark.parametrize(
    ("before", "cell", "after"),
    [
        ("L = [[1]]", "L[0] = [1]; y = L[0]", "y.append(2); r = (L, y)"),
        ("d = {'a': [1]}", "d['a'] = [1]; y = d['a']", "y.append(2); r = (d, y)"),
        ("x = [1]; L = [x]", "L[0] = [1]", "x.append(2); r = (L, x)"),
        ("x = [1]; t = [(x, 2)]", "t[0] = ([1], 2)", "x.append(2); r = (t, x)"),
        ("L = [[1], [1]]", "L[1] = L[0]", "L[0].append(2); r = L"),
        ("L = [[1], [1]]; a, b = L", "L.reverse()", "a.append(2); r = L"),
        ("class A: pass\na = A(); a.x = [1]", "a.x = [1]; y = a.x", "y.append(2); r = (a.x, y)"),
        ("class A:\n    def f(s): pass", "def f(s): pass\nA.f = f", "f.mark = 2; r = vars(A.f)"),
        ("L = [np.zeros(3)]", "L[0] = np.zeros(3); y = L[0][1:]", "y[0] = 2; r = (L, y)"),
        ("def f(x=[1]): return x\ny = f()", "f.__defaults__ = ([1],)", "y.append(2); r = (f(), y)"),
        ("s = pd.Series([1, 2])", "s.index = range(2); c = s * 2", "c.index.name = 'q'; r = s.index.name"),
        (
            "df = pd.DataFrame({'a': [1]}); old = df.columns",
            "df.columns = ['a']",
            "old.name = 1; r = df.columns.name",
        ),
        ("df = pd.DataFrame({'a': [1]}); D = {'f': df}", "D['f'] = df.copy()", "df['b'] = 1; r = list(D['f'])"),
        ("df = pd.DataFrame({'o': [[1]]}); x = df.o[0]", "df.at[0, 'o'] = [1]", "x.append(5); r = df.o.tolist()"),
    ],
)
def test_a_part_that_is_exchanged_for_an_equal_one_is_another_object_after_a_hit(tmp_path, before, cell, after):
    told = []
    for expected in (Miss, Hit):
        notebook = Notebook(tmp_path)
        notebook.run(f"import numpy as np, pandas as pd\n{before}")
        assert isinstance(notebook.cached(cell), expected)
        notebook.run(after)
        told.append(repr(notebook["r"]))
    assert told[0] == told[1]


def test_parts_that_are_made_anew_when_they_are_asked_for_are_no_change(tmp_path):
    notebook = Notebook(tmp_path)
    notebook.run(
        """
        import numpy as np, pandas as pd
        df = pd.DataFrame({"a": pd.Categorical(["x"]), "i": pd.interval_range(0, 1)})
        held = {"f": df, "m": np.ma.masked_array([1.0, 2.0], [0, 1]), "g": np.random.default_rng(1), "i": df.i.array}
        """
    )
    outcome = notebook.cached("n = len(held), len(df)")
    assert isinstance(outcome, Miss)
    assert outcome.entry.manifest.effects["changed"] == []
