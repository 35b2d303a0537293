"""What a notebook sets in installed modules, and what their connections hold, parts keys."""

from __future__ import annotations

import ast
import calendar
import io
import logging
import math
import mimetypes
import sys
import types
from typing import TYPE_CHECKING

import duckdb
import matplotlib as mpl
import pandas as pd
import pytest

from hearts import Notebook
from prefect_cache.cells import patched, standing
from prefect_cache.cells.patched import ABSENT, Patches, data_read
from prefect_cache.errors import Unfingerprintable
from prefect_cache.model import Bypass, Hit, Miss

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def users() -> Iterator[types.ModuleType]:
    """A module of the user's own, in a file that is not installed."""
    module = types.ModuleType("a_users_own")
    module.__file__ = "/somewhere/a_users_own.py"
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def made_by(module: types.ModuleType, source: str) -> object:
    """Return what the last line of some code of a module's gives."""
    *lines, last = source.splitlines()
    exec("\n".join(lines), module.__dict__)
    return eval(last, module.__dict__)


@pytest.mark.parametrize(
    "source",
    [
        "def more(self): return 1\nmore",
        "def more(self): return 1\nproperty(more)",
        "def more(self): return 1\nstaticmethod(more)",
        "import functools\ndef more(self): return 1\nfunctools.partialmethod(more)",
        "class More: pass\nMore",
        "class More: pass\nMore()",
        "import functools, pandas\ndef more(self): return 1\nfunctools.wraps(pandas.DataFrame.head)(more)",
    ],
)
def test_what_the_users_code_made_is_found_wherever_it_was_put(users, source, monkeypatch):
    value = made_by(users, source)
    patches = Patches()
    assert patches.found(["pandas", "math"]) == {}
    monkeypatch.setattr(pd.DataFrame, "more", value, raising=False)
    monkeypatch.setattr(math, "more", value, raising=False)
    assert patches.found(["pandas", "math"]) == {
        (pd.DataFrame.__module__, "DataFrame.more"): value,
        ("math", "more"): value,
    }
    assert patches.found(["math"]) == {("math", "more"): value}
    monkeypatch.undo()
    assert patches.found(["pandas", "math"]) == {}


def test_an_accessor_is_found(users):
    accessor = made_by(users, "class Geo:\n    def __init__(self, o): pass\nGeo")
    pd.api.extensions.register_dataframe_accessor("geo_of_test")(accessor)
    try:
        assert list(Patches().found(["pandas"])) == [(pd.DataFrame.__module__, "DataFrame.geo_of_test")]
    finally:
        del pd.DataFrame.geo_of_test
        pd.DataFrame._accessors.discard("geo_of_test")


def test_values_set_by_name_are_noted(monkeypatch):
    patches, names = Patches(), {"m": math, "pd": pd, "own": types.SimpleNamespace()}
    monkeypatch.setattr(math, "tau2", 7, raising=False)
    monkeypatch.setattr(pd.DataFrame, "limit", 3, raising=False)
    assert patches.found(["math", "pandas"]) == {}
    patches.note(ast.parse("m.tau2 = 7\npd.DataFrame.limit = 3\nown.x = 5\nsetattr(m, 'e', 1)\ndel m.gone"), names)
    expected = {
        ("math", "tau2"): 7,
        (pd.DataFrame.__module__, "DataFrame.limit"): 3,
        ("math", "e"): math.e,
        ("math", "gone"): ABSENT,
    }
    assert patches.found([]) == expected


def test_what_was_put_back_is_no_patch():
    patches = Patches()
    patches.note(ast.parse("np.sum = mine"), {"np": sys.modules["numpy"]})
    assert patches.found(["numpy"]) == {}


def test_a_function_under_another_ones_name_is_a_patch(monkeypatch):
    patches = Patches()
    patches.note(ast.parse("math.cos = math.sin"), {"math": math})
    monkeypatch.setattr(math, "cos", math.sin)
    assert patches.found([]) == {("math", "cos"): math.sin}


def test_data_that_a_cell_reads_is_found_by_any_of_its_names():
    source = "m.pi, m.sin, mimetypes.types_map['.csv']\nimport os.path as p\np.sep\nfrom math import tau\nsys.path"
    found = data_read(ast.parse(source), {"m": math, "mimetypes": mimetypes, "sys": sys})
    assert found == {
        ("math", "pi"): math.pi,
        ("math", "tau"): math.tau,
        ("mimetypes", "types_map"): mimetypes.types_map,
        ("posixpath", "sep"): "/",
    }


def test_a_cell_misses_where_an_installed_function_was_replaced(tmp_path, monkeypatch):
    notebook = Notebook(tmp_path / "store")
    cell = "import math\nx = math.floor(2.5)"
    assert isinstance(notebook.cached(cell), Miss)
    notebook.run("import math\nkept = math.floor\ndef floor(x): return -1\nmath.floor = floor")
    try:
        assert isinstance(missed := notebook.cached(cell), Miss)
        assert notebook["x"] == -1
        assert "math.floor" in missed.because
        notebook.run("def floor(x): return -2\nmath.floor = floor")
        assert isinstance(notebook.cached(cell), Miss)
        assert notebook["x"] == -2
    finally:
        notebook.run("math.floor = kept")
    assert isinstance(notebook.cached(cell), Hit)
    assert notebook["x"] == 2


def test_data_of_a_module_is_changed_in_place_again(tmp_path, monkeypatch):
    monkeypatch.setattr(calendar, "mdays", [*calendar.mdays])
    notebook = Notebook(tmp_path / "store")
    cell = "import calendar\ncalendar.mdays[4] = 31\nx = sum(calendar.mdays)"
    april = "import calendar\nlast = calendar.monthrange(2001, 4)[1]"
    for expected in (Miss, Hit):
        patched.PATCHES._noted.clear()  # as in another process
        assert isinstance(notebook.cached(cell), expected)
        assert (notebook["x"], calendar.mdays[4]) == (366, 31)
        assert isinstance(notebook.cached(april), expected)
        calendar.mdays[4] = 30
        assert isinstance(notebook.cached(april), expected)
        assert notebook["last"] == 30


@pytest.mark.parametrize(
    ("setup", "told"),
    [
        ("import xarray as xr", "xr.set_options(keep_attrs=True)"),
        ("from xarray import set_options", "set_options(keep_attrs=True)"),
        ("import pyarrow as pa", "pa.set_cpu_count(pa.cpu_count())"),
        ("import logging", "logging.root.info('nothing')"),
    ],
)
def test_settings_of_libraries_and_what_their_objects_are_told(tmp_path, monkeypatch, setup, told):
    """A cell that makes them is not stored; for others they count by how they were made last."""
    monkeypatch.setattr(patched.PATCHES, "called", {})
    notebook = Notebook(tmp_path / "store")
    notebook.run(setup)
    assert isinstance(notebook.cached("x = [1]"), Miss)
    assert isinstance(made := notebook.cached(f"{told}\ny = 1"), Bypass)
    assert f"it calls {told.partition('(')[0]}()" in made.reason
    assert isinstance(notebook.cached("x = [1]"), Miss)


def test_settings_that_do_not_last_or_that_a_hit_puts_back_are_none_of_these(tmp_path, monkeypatch, request):
    request.addfinalizer(lambda: pd.reset_option("display.max_rows"))
    monkeypatch.setitem(mpl.rcParams, "lines.linewidth", 1.5)
    monkeypatch.setenv("OF_TEST", "0")
    notebook = Notebook(tmp_path / "store")
    notebook.run("import pandas as pd, xarray as xr, sys, os, matplotlib.pyplot as plt")
    for told in (
        "pd.set_option('display.max_rows', 7)",
        "plt.rcParams.update({'lines.linewidth': 2})",
        "os.environ.update(OF_TEST='1')",
        "sys.stdout.write('')",
        "with pd.option_context('display.max_rows', 8): pass",
        "with xr.set_options(keep_attrs=False): pass",
    ):
        assert isinstance(notebook.cached(f"{told}\nx = 1"), Miss)


def test_what_a_library_was_told_counts_by_the_arguments(tmp_path, monkeypatch):
    """Nobody can read back what ``polars.set_random_seed`` was given."""
    monkeypatch.setattr(patched.PATCHES, "called", {})
    notebook = Notebook(tmp_path / "store")
    cell = "x = [1]"
    notebook.run("import polars as pl\nseed = 1")
    for seed, expected in ((1, Miss), (2, Miss), (1, Hit)):
        notebook.names["seed"] = seed
        patched.PATCHES.note(ast.parse("pl.set_random_seed(seed)"), notebook.names)
        assert isinstance(notebook.cached(cell), expected)


class TestDuckDB:
    @pytest.fixture(autouse=True)
    def clean(self) -> Iterator[None]:
        yield
        duckdb.sql("drop table if exists of_test")
        duckdb.sql("reset preserve_insertion_order")

    @pytest.mark.parametrize(
        ("statement", "told"),
        [
            ("create table of_test as select 1 as a", "the table of_test"),
            ("set preserve_insertion_order = false", "the setting preserve_insertion_order=false"),
        ],
    )
    def test_what_its_own_connection_holds_is_told(self, statement, told):
        before = standing.held()
        assert standing.changed(before, {}) == ""
        duckdb.sql(statement)
        assert standing.changed(before, {}).startswith(f"DuckDB's own connection holds {told} since")
        list(standing.parts(["pandas"], []))
        with pytest.raises(Unfingerprintable, match=f"DuckDB's own connection holds {told}"):
            list(standing.parts(["duckdb"], []))

    def test_a_home_that_moved_is_no_setting(self, tmp_path, monkeypatch):
        list(standing.parts(["duckdb"], []))
        monkeypatch.setenv("HOME", str(tmp_path))
        standing._Connection._usual.cache_clear()
        list(standing.parts(["duckdb"], []))

    def test_a_cell_that_asks_it_is_known_only_while_it_is_empty(self, tmp_path):
        notebook = Notebook(tmp_path / "store")
        asking = "import duckdb\nn = duckdb.sql('select 1').fetchall()"
        assert isinstance(notebook.cached(asking), Miss)
        assert isinstance(notebook.cached(asking), Hit)
        making = "import duckdb\nduckdb.sql('create table of_test as select 2 as a')\nmade = True"
        assert isinstance(made := notebook.cached(making), Bypass)
        assert "the table of_test" in made.reason
        assert isinstance(bypassed := notebook.cached(asking), Bypass)
        assert "connection that the cell opens" in bypassed.remedy


class TestLoggers:
    @pytest.fixture(autouse=True)
    def clean(self) -> Iterator[None]:
        yield
        for name in ("of_test", "absent_of_test", "pandas"):
            logging.getLogger(name).handlers.clear()
            logging.getLogger(name).filters.clear()

    def test_what_a_handler_does_parts_keys(self):
        handler = logging.StreamHandler(io.StringIO())
        logging.getLogger("of_test").addHandler(handler)
        told = [self.of_test()]
        handler.setFormatter(logging.Formatter("%(message)s"))
        told.append(self.of_test())
        handler.setLevel(logging.ERROR)
        told.append(self.of_test())
        logging.getLogger("of_test").addFilter(lambda record: bool(record.args))
        told.append(self.of_test())
        assert len({part.digest for part in told}) == len(told)

    def of_test(self):
        (part,) = (part for part in standing.parts([], []) if part.name == "logging.handlers[of_test]")
        return part

    def test_a_handler_that_a_package_gives_to_its_own_logger_is_none_of_the_users(self):
        """Dask sets up the logger of Bokeh, which need not be installed."""
        before = standing.held()
        handler = logging.StreamHandler()
        for name in ("pandas", "absent_of_test"):
            logging.getLogger(name).addHandler(handler)
        assert standing.changed(before, {}) == ""
        logging.getLogger("absent_of_test").addHandler(logging.StreamHandler())
        assert standing.changed(before, {}) == ""
        logging.getLogger("pandas").removeHandler(handler)
        assert "the logger absent_of_test" in standing.changed(before, {})
