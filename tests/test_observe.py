"""What a run depends on outside of the namespace is seen, and verified before a hit."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from prefect_cache.cells import disk, observe
from prefect_cache.cells.observe import Observer, verify
from prefect_cache.cells.randomness import UNSEEDED, WATCH, RandomWatch, take
from prefect_cache.cells.standins import StandIn
from prefect_cache.model import Observed


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder of files in which the run takes place."""
    folder = tmp_path / "here"
    (folder / "sub").mkdir(parents=True)
    monkeypatch.chdir(folder)
    Path("a.csv").write_text("x\n1\n")
    Path("sub/b.csv").write_text("x\n2\n")
    pq.write_table(pa.table({"x": [1]}), "p.parquet")
    WATCH.start()
    yield folder
    WATCH.stop()


def run(action, **options) -> Observer:
    with Observer(**options) as observer:
        action()
    return observer


def told(observer: Observer) -> set[tuple[str, str]]:
    return {(seen.kind, seen.name) for seen in observer.observed}


def what(observer: Observer, *kinds: str) -> set[str]:
    return {seen.name for seen in observer.observed if seen.kind in kinds}


def is_same(observer: Observer) -> bool:
    return verify(observer.observed) is None


def name(*parts: str) -> str:
    """Return a text that stands nowhere in the code."""
    return "".join(parts)


# --- reading


@pytest.mark.parametrize(
    "read",
    [
        lambda: open("a.csv").close(),
        lambda: Path("a.csv").read_text(),
        lambda: pd.read_csv("a.csv"),
        lambda: os.close(os.open("a.csv", os.O_RDONLY)),
        lambda: np.loadtxt("a.csv", skiprows=1),
        lambda: pq.ParquetFile(name("a", ".csv")) if False else pa.OSFile(name("a", ".csv")),
        lambda: pa.memory_map(name("a", ".csv")),
        lambda: subprocess.run(["cat", name("a", ".csv")], stdout=subprocess.DEVNULL, check=True),
        lambda: os.system(name("cat a", ".csv > /dev/null")),
        lambda: threading_read("a.csv"),
    ],
)
def test_whatever_opens_a_file_is_seen_and_its_change_too(read) -> None:
    observer = run(read)
    assert "a.csv" in what(observer, "file")
    assert observer.tainted == ""
    assert is_same(observer)
    Path("a.csv").write_text("x\n9\n")
    change = verify(observer.observed)
    assert (change.kind, change.name, change.how) == ("file", "a.csv", "changed")
    Path("a.csv").unlink()
    assert verify(observer.observed).how == "gone"


def append(path: str) -> None:
    with open(path, "a") as file:
        file.write("2")


def threading_read(path: str) -> None:
    thread = threading.Thread(target=lambda: Path(path).read_text())
    thread.start()
    thread.join()


def test_native_readers_of_files_below_other_folders_are_seen_where_a_text_names_the_folder(tmp_path) -> None:
    other = tmp_path / "other" / "deep"
    other.mkdir(parents=True)
    pq.write_table(pa.table({"x": [1]}), other / "p.parquet")
    observer = run(lambda: pq.ParquetFile(str(other / name("p", ".parquet"))).read(), strings=[str(tmp_path / "other")])
    assert str(other / "p.parquet") in what(observer, "file")


def test_native_readers_of_a_folder_depend_on_its_names() -> None:
    observer = run(
        lambda: pq.read_table(name("su", "b")) if False else pa.dataset.dataset("sub", format="csv").to_table(),
        strings=["sub"],
    )
    assert {("folder", "sub"), ("file", "sub/b.csv")} <= told(observer)
    shutil.copy("sub/b.csv", "sub/c.csv")
    assert verify(observer.observed).name == "sub"


def test_a_change_of_the_same_size_and_date_is_seen() -> None:
    path = Path("a.csv")
    os.utime(path, ns=(10**18, 10**18))
    observer = run(path.read_text)
    path.write_text("x\n7\n")
    os.utime(path, ns=(10**18, 10**18))
    assert not is_same(observer)


def test_a_change_within_the_clocks_grain_is_seen() -> None:
    path = Path("a.csv")
    for digit in "1234567890" * 5:
        path.write_text(f"x\n{digit}\n")
        observer = run(path.read_text)
        path.write_text("x\nz\n")
        assert not is_same(observer)


def test_a_new_date_does_not_matter() -> None:
    observer = run(Path("a.csv").read_text)
    os.utime("a.csv", ns=(10**18, 10**18))
    assert is_same(observer)
    content = Path("a.csv").read_bytes()
    Path("a.csv").unlink()
    Path("a.csv").write_bytes(content)
    assert is_same(observer)


def test_old_files_are_not_read_again_to_verify_them(monkeypatch) -> None:
    monkeypatch.setattr(disk, "SETTLED_NS", -(10**12))
    observer = run(Path("a.csv").read_text)
    monkeypatch.setattr(disk, "content", None)
    assert is_same(observer)


def test_a_file_that_changes_while_the_cell_runs_is_not_trusted() -> None:
    def read_while_somebody_writes() -> None:
        Path("a.csv").read_text()
        subprocess.run([sys.executable, "-c", "open('a.csv', 'w').write('new')"], check=True)

    assert "a.csv" in run(read_while_somebody_writes).tainted


def test_a_file_that_is_replaced_while_the_cell_runs_is_not_trusted() -> None:
    def read_while_somebody_replaces() -> None:
        Path("a.csv").read_text()
        subprocess.run(
            [sys.executable, "-c", "import os; open('n', 'w').close(); os.replace('n', 'a.csv')"], check=True
        )

    assert "a.csv" in run(read_while_somebody_replaces).tainted


def test_a_native_reader_of_a_file_that_changes_meanwhile_is_not_trusted() -> None:
    def read_while_somebody_writes() -> None:
        pq.ParquetFile(name("p", ".parquet")).read()
        subprocess.run([sys.executable, "-c", "open('p.parquet', 'ab').write(b'new')"], check=True)

    assert "p.parquet" in run(read_while_somebody_writes).tainted


def test_a_database_is_read_and_one_that_changes_is_not_trusted() -> None:
    with sqlite3.connect("d.sqlite") as connection:
        connection.execute("create table t (x)")
    connection.close()

    def query(text: str) -> None:
        with sqlite3.connect("d.sqlite") as connection:
            connection.execute(text).fetchall()
        connection.close()

    reading = run(lambda: query("select * from t"))
    assert "d.sqlite" in what(reading, "file")
    assert reading.tainted == ""
    assert "d.sqlite" in run(lambda: query("insert into t values (1)")).tainted


def test_installed_packages_and_our_own_store_are_of_no_account(tmp_path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "x").write_text("1")

    def read() -> None:
        Path(pd.__file__).read_text()
        Path(os.__file__).read_text()
        (store / "x").read_text()

    assert run(read, store_root=store).observed == ()


def test_locks_of_a_cluster_beside_the_cell_are_not_its_files() -> None:
    def somebody_locks() -> None:
        Path("dask-scratch-space").mkdir()
        Path("dask-scratch-space/scheduler.dirlock").write_text("1")
        Path("dask-scratch-space/scheduler.dirlock").read_text()
        os.remove("dask-scratch-space/scheduler.dirlock")

    assert run(somebody_locks).observed == ()


@pytest.mark.parametrize("compiled", ["", "1"], ids=["compiled", "not compiled"])
def test_the_source_of_a_local_module_is_seen_when_it_is_imported(compiled: str) -> None:
    Path("helper.py").write_text("x = 1")
    program = """
import sys
sys.path[0] = ""
from prefect_cache.cells.observe import Observer
with Observer() as observer:
    import helper
assert [(seen.kind, seen.name) for seen in observer.observed] == [("file", "helper.py")], observer.observed
"""
    for _ in range(2):  # the second time Python reads what it compiled the first
        subprocess.run(
            [sys.executable, "-c", program], check=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": compiled}
        )
    assert Path("__pycache__").exists() == (not compiled)


def test_a_program_text_opened_by_an_editor_is_not_ours() -> None:
    Path("helper.py").write_text("x = 1")

    def an_editor_reads() -> None:
        os.close(native_open("helper.py"))

    assert run(an_editor_reads).observed == ()


def native_open(path: str) -> int:
    import ctypes

    return ctypes.CDLL(None).open(path.encode(), os.O_RDONLY)


# --- looking


def test_a_file_that_was_absent_and_comes_is_seen() -> None:
    def look() -> None:
        if not os.path.exists(name("cache", ".pkl")):
            assert not Path(name("other", ".pkl")).is_file()

    observer = run(look)
    assert {"cache.pkl", "other.pkl"} <= what(observer, "absent")
    Path("other.pkl").touch()
    change = verify(observer.observed)
    assert (change.kind, change.name, change.how) == ("absent", "other.pkl", "new")


def test_a_failing_open_is_seen() -> None:
    def read() -> None:
        with pytest.raises(FileNotFoundError):
            open("missing.csv")

    observer = run(read)
    Path("missing.csv").touch()
    assert verify(observer.observed).name == "missing.csv"


def test_what_a_text_names_and_is_absent_for_a_native_reader_is_seen() -> None:
    observer = run(lambda: None, strings=["missing.parquet", "price"])
    assert what(observer, "absent") == {"missing.parquet"}


def test_asking_whether_a_file_is_there_does_not_depend_on_its_content() -> None:
    observer = run(lambda: os.path.exists("a.csv"))
    Path("a.csv").write_text("other")
    assert is_same(observer)
    Path("a.csv").unlink()
    assert verify(observer.observed).how == "gone"


@pytest.mark.parametrize(
    "ask", [os.path.getmtime, os.path.getsize, lambda p: Path(p).stat().st_mtime, lambda p: os.stat(p)]
)
def test_asking_for_a_date_or_size_depends_on_it(ask) -> None:
    observer = run(lambda: ask("a.csv"))
    assert is_same(observer)
    os.utime("a.csv", ns=(10**18, 10**18))
    assert not is_same(observer)


@pytest.mark.parametrize(
    "listing",
    [
        lambda: os.listdir("sub"),
        lambda: list(os.scandir("sub")),
        lambda: list(Path("sub").glob("*.csv")),
        lambda: list(Path().glob("sub/*.csv")),
        lambda: list(os.walk("sub")),
        lambda: subprocess.run(["ls", "sub"], stdout=subprocess.DEVNULL, check=True),
    ],
)
def test_a_listed_folder_is_one_of_these_names(listing) -> None:
    observer = run(listing)
    assert "sub" in what(observer, "folder")
    Path("sub/b.csv").write_text("other content, same names")
    assert is_same(observer)
    Path("sub/c.csv").touch()
    assert verify(observer.observed).name == "sub"
    Path("sub/c.csv").unlink()
    assert is_same(observer)
    Path("sub/b.csv").unlink()
    Path("sub/b.csv").mkdir()
    assert not is_same(observer)


def test_patterns_are_dependencies_by_names_and_contents() -> None:
    observer = run(lambda: None, files=["sub/*.csv"])
    assert told(observer) == {("files", "sub/*.csv"), ("file", "sub/b.csv")}
    Path("sub/c.csv").touch()
    assert verify(observer.observed).kind == "files"
    Path("sub/c.csv").unlink()
    Path("sub/b.csv").write_text("other")
    assert verify(observer.observed).kind == "file"


# --- writing


@pytest.mark.parametrize(
    "write",
    [
        lambda: Path("out.txt").write_text("1"),
        lambda: pd.DataFrame({"x": [1]}).to_csv("out.txt"),
        lambda: pq.write_table(pa.table({"x": [1]}), name("out", ".txt")),
        lambda: shutil.copy("a.csv", "out.txt"),
        lambda: subprocess.run(name("echo 1 > out", ".txt"), shell=True, check=True),
        lambda: (os.system(name("echo 1 > out", ".txt")), Path("out.txt").read_text()),
        lambda: (Path("tmp").write_text("1"), os.replace("tmp", "out.txt")),
        lambda: (Path("out.txt").write_text("1"), Path("out.txt").read_text()),
        lambda: (Path("out.txt").write_text("1"), append("out.txt")),
        lambda: (Path("out.txt").write_text("1"), os.path.exists("out.txt")),
    ],
)
def test_what_the_cell_wrote_is_verified_and_nothing_else(write) -> None:
    observer = run(write, strings=["out.txt"])
    assert what(observer, "written") == {"out.txt"}
    # A run would overwrite a "tmp" that is there; and a shell might have meant files.
    assert what(observer, "absent") <= {"tmp", "echo", "1"}
    assert is_same(observer)
    second = run(write)
    assert is_same(second)
    Path("out.txt").write_text("changed by someone")
    assert not is_same(observer)
    Path("out.txt").unlink()
    assert verify(observer.observed).how == "gone"


@pytest.mark.parametrize(
    "make",
    [
        lambda: os.makedirs("new/deep", exist_ok=True),
        lambda: Path("new/deep").mkdir(parents=True, exist_ok=True),
    ],
)
def test_a_folder_made_unless_it_is_there_can_be_spared(make) -> None:
    observer = run(lambda: (make(), Path("new/deep/x").write_text("1")))
    assert {"new/deep/x", "new/deep"} <= what(observer, "written")
    assert is_same(observer)
    shutil.rmtree("new")
    assert not is_same(observer)


def test_a_folder_that_must_not_be_there_cannot() -> None:
    assert not is_same(run(lambda: os.mkdir("new")))


def test_looking_for_a_file_and_then_making_it_takes_the_other_branch_next_time() -> None:
    def make() -> None:
        if not os.path.exists("made.txt"):
            Path("made.txt").write_text("1")

    assert not is_same(run(make))
    assert is_same(run(make))


def test_asking_whether_it_is_a_folder_and_then_making_a_file_can_be_spared() -> None:
    def make() -> None:
        if not os.path.isdir("made.txt"):
            Path("made.txt").write_text("1")

    observer = run(make)
    assert "made.txt" in what(observer, "isdir")
    assert is_same(observer)
    Path("made.txt").unlink()
    assert not is_same(observer)


def native_write(path: str, flags: int, text: bytes) -> None:
    """Write to a file out of Python's sight."""
    import ctypes

    libc = ctypes.CDLL(None)
    file = libc.open(path.encode(), flags)
    assert libc.write(file, text, len(text)) == len(text)
    libc.close(file)


@pytest.mark.parametrize("text", [b"o", b"other and longer\n" * 9])
def test_a_native_program_may_write_over_a_file_that_the_cell_names(text) -> None:
    observer = run(lambda: native_write("a.csv", os.O_WRONLY | os.O_TRUNC, text), strings=["a.csv"])
    assert not observer.tainted
    assert ("written", "a.csv") in told(observer)
    assert ("file", "a.csv") not in told(observer)
    assert is_same(observer)


def test_one_that_adds_to_it_reads_it_or_is_named_nowhere_cannot_be_spared() -> None:
    grown = run(lambda: native_write("a.csv", os.O_WRONLY | os.O_APPEND, b"more"), strings=["a.csv"])
    assert "may keep what it held" in grown.tainted

    def read_first() -> None:
        pa.OSFile("a.csv").read()
        native_write("a.csv", os.O_WRONLY | os.O_TRUNC, b"new")

    assert "read and rewritten" in run(read_first, strings=["a.csv"]).tainted

    def look_first() -> None:
        pa.memory_map("a.csv").close()
        native_write("a.csv", os.O_WRONLY | os.O_TRUNC, b"newer")

    assert "read and rewritten" in run(look_first, strings=["a.csv"]).tainted
    assert "a.csv" in run(lambda: native_write(name("a", ".csv"), os.O_WRONLY | os.O_TRUNC, b"x")).tainted


def test_names_that_evaluated_texts_ask_for_are_told() -> None:
    names = {"scaled": len, "other": 1, "text": "scaled(df) + 1", "df": [1], "bound": 2}

    def evaluate() -> None:
        names["bound"] = 3  # by the cell itself
        eval(compile("scaled(df) + bound", "<formula>", "eval"), names)
        eval(compile("other", "<timed eval>", "eval"), names)  # which was read before it ran

    assert run(evaluate, namespace=names).evaluated == {"scaled", "df"}


def test_appending_cannot_be_spared() -> None:
    Path("log.txt").write_text("1")
    assert "log.txt" in run(lambda: append("log.txt")).tainted
    assert not is_same(run(lambda: append("new.txt")))


def test_a_counter_cannot_be_spared() -> None:
    Path("n.txt").write_text("1")

    def count() -> None:
        Path("n.txt").write_text(str(int(Path("n.txt").read_text()) + 1))

    assert "n.txt" in run(count).tainted


def test_rewriting_the_same_content_can() -> None:
    observer = run(lambda: Path("a.csv").write_text(Path("a.csv").read_text()))
    assert is_same(observer)


def test_removing_a_file_cannot_be_spared_once_but_its_absence_can() -> None:
    def remove() -> None:
        if os.path.exists("a.csv"):
            os.remove("a.csv")

    assert not is_same(run(remove))
    assert is_same(run(remove))


def test_temporary_files_leave_no_trace() -> None:
    def work() -> None:
        with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile("w"), tempfile.TemporaryFile():
            Path(folder, "x").write_text("1")
            Path(folder, "x").read_text()
        Path("scratch").write_text("1")
        os.remove("scratch")

    assert what(run(work), "file", "written", "folder") == set()


def test_a_tree_made_anew_each_time_can_be_spared_from_the_second_run_on() -> None:
    def make() -> None:
        shutil.rmtree("tree", ignore_errors=True)
        os.makedirs("tree/deep")
        Path("tree/deep/x").write_text("1")

    run(make)
    assert is_same(run(make))


# --- where we are, and what is around


def test_relative_names_are_verified_where_we_are_then(tmp_path, monkeypatch) -> None:
    observer = run(Path("a.csv").read_text)
    shutil.copytree(".", tmp_path / "there")
    monkeypatch.chdir(tmp_path / "there")
    assert is_same(observer)
    Path("a.csv").write_text("other")
    assert not is_same(observer)


def test_a_name_put_together_from_the_working_folder_depends_on_it(tmp_path, monkeypatch) -> None:
    observer = run(lambda: (Path.cwd() / "a.csv").read_text())
    shutil.copytree(".", tmp_path / "there")
    monkeypatch.chdir(tmp_path / "there")
    assert not is_same(observer)


def test_an_absolute_name_in_the_code_does_not(here, tmp_path, monkeypatch) -> None:
    path = str(here / "a.csv")
    observer = run(lambda: Path(path).read_text(), strings=[path])
    monkeypatch.chdir(tmp_path)
    assert is_same(observer)


def test_asking_where_we_are_depends_on_it(tmp_path, monkeypatch) -> None:
    observer = run(lambda: os.getcwd())
    monkeypatch.chdir(tmp_path)
    assert verify(observer.observed).kind in {"cwd", "exists"}


def test_changing_the_folder_keeps_names_true() -> None:
    def work() -> None:
        os.chdir("sub")
        Path("b.csv").read_text()
        os.chdir("..")

    assert "sub/b.csv" in {os.path.relpath(path) for path in what(run(work), "file")}


def test_an_environment_variable_that_is_read_counts(monkeypatch) -> None:
    monkeypatch.setenv("SOME", "1")
    variable = name("SO", "ME")
    observer = run(lambda: (os.environ[variable], os.getenv("NOT_" + variable), variable in os.environ))
    assert {"SOME", "NOT_SOME"} <= what(observer, "environ")
    monkeypatch.setenv("NOT_SOME", "")
    assert verify(observer.observed).name == "NOT_SOME"
    monkeypatch.delenv("NOT_SOME")
    assert is_same(observer)


def test_one_that_the_cell_set_itself_does_not(monkeypatch) -> None:
    def work() -> None:
        os.environ["OWN"] = "1"
        os.environ["OWN"]
        del os.environ["OWN"]

    assert "OWN" not in what(run(work), "environ")


def test_reading_the_whole_environment_counts_each(monkeypatch) -> None:
    monkeypatch.setenv("SOME", "1")
    assert "SOME" in what(run(lambda: dict(os.environ)), "environ")


# --- chance


def test_unseeded_draws_are_frozen_and_said() -> None:
    observer = run(lambda: (random.random(), np.random.rand()))
    assert [seen.digest for seen in observer.observed] == [UNSEEDED, UNSEEDED]
    assert len(observer.notes) == 2
    assert is_same(observer)
    random.random()
    assert is_same(observer)


@pytest.mark.parametrize(
    ("seed", "draw"),
    [(lambda n: random.seed(n), lambda: random.random()), (lambda n: np.random.seed(n), lambda: np.random.rand())],
)
def test_draws_from_a_seeded_generator_depend_on_its_state(seed, draw) -> None:
    seed(1)
    observer = run(draw)
    assert observer.notes == ()
    assert not is_same(observer)
    seed(1)
    assert is_same(observer)
    seed(2)
    assert not is_same(observer)


@pytest.mark.parametrize(
    ("seed", "draw"),
    [(lambda n: random.seed(n), lambda: random.random()), (lambda n: np.random.seed(n), lambda: np.random.rand())],
)
def test_a_cell_that_seeds_first_depends_on_nothing(seed, draw) -> None:
    observer = run(lambda: (seed(5), draw()))
    assert observer.observed == ()
    later = run(draw)
    assert [seen.digest for seen in later.observed] != [UNSEEDED]


def test_seeding_after_a_draw_does_not_help() -> None:
    random.seed(1)
    observer = run(lambda: (random.random(), random.seed(5)))
    assert what(observer, "random") == {"random"}


def test_a_frozen_state_put_back_by_a_hit_stays_unseeded() -> None:
    observer = run(random.random)
    state = random.Random(7).getstate()
    random.setstate(state)
    WATCH.restored(observer.observed)
    assert not WATCH.seeded("random")
    random.setstate(random.Random(8).getstate())
    WATCH.restored(())
    assert WATCH.seeded("random")


def test_a_state_is_told_to_follow_from_another() -> None:
    random.seed(1)
    before = take("random")
    for _ in range(10_000):
        random.random()
    after = take("random")
    assert before.reaches(after)
    assert not after.reaches(before)
    random.seed(2)
    assert not before.reaches(take("random"))


def test_numpys_generator_is_unseeded_when_it_comes_after_the_watch() -> None:
    program = """
import sys
from prefect_cache.cells.randomness import WATCH
assert "numpy.random" not in sys.modules
WATCH.start()
import numpy as np
np.random.rand()
WATCH.look()
assert not WATCH.seeded("numpy.random")
np.random.seed(1)
WATCH.look()
assert WATCH.seeded("numpy.random")
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_numpys_generator_that_comes_and_is_seeded_within_a_run_makes_no_dependency() -> None:
    program = """
from prefect_cache.cells.observe import Observer
from prefect_cache.cells.randomness import WATCH
WATCH.start()
with Observer() as observer:
    import numpy as np
    np.random.seed(1)
    np.random.rand()
assert "numpy.random" not in {seen.kind for seen in observer.observed}, observer.observed
assert WATCH.seeded("numpy.random")
"""
    subprocess.run([sys.executable, "-c", program], check=True)


# --- manners


def test_everything_is_as_it_was_afterwards() -> None:
    before = (os.stat, os.lstat, os.access, os.getcwd, random.seed, np.random.seed, type(os.environ).__getitem__)
    run(lambda: None)
    assert before == (
        os.stat,
        os.lstat,
        os.access,
        os.getcwd,
        random.seed,
        np.random.seed,
        type(os.environ).__getitem__,
    )
    assert os.stat in os.supports_dir_fd
    assert not any(isinstance(function, StandIn) for function in os.supports_dir_fd)


def test_a_function_that_the_cell_took_along_is_the_real_one() -> None:
    namespace: dict[str, object] = {}
    run(lambda: exec("from os import getcwd, stat\nfrom random import seed", namespace), namespace=namespace)
    assert (namespace["getcwd"], namespace["stat"], namespace["seed"]) == (os.getcwd, os.stat, random.seed)


def test_a_stand_in_is_pickled_as_what_it_stands_for() -> None:
    taken = []
    run(lambda: taken.append(os.getcwd))
    assert pickle.loads(pickle.dumps(taken[0])) is os.getcwd


def test_the_users_errors_come_out_untouched() -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.csv"), Observer():
        open("missing.csv")
    assert observe._active is None


def test_a_failure_of_the_observer_is_not_the_cells(monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(Observer, "opened", fail)
    assert "RuntimeError" in run(Path("a.csv").read_text).tainted


def test_where_the_kernel_tells_nothing_all_that_is_named_counts(monkeypatch) -> None:
    monkeypatch.setattr(observe.Watch, "working", False)
    observer = run(lambda: None, strings=["a.csv", "sub"])
    assert {("file", "a.csv"), ("file", "sub/b.csv"), ("folder", "sub")} <= told(observer)


def test_a_named_folder_that_cannot_be_watched_whole_is_not_trusted_once_something_in_it_is_opened(
    tmp_path, monkeypatch
) -> None:
    other = tmp_path / "other"
    (other / "deep").mkdir(parents=True)
    pq.write_table(pa.table({"x": [1]}), other / "p.parquet")
    monkeypatch.setattr(observe, "MAX_SECONDS", 0.0)
    monkeypatch.setattr(observe, "_the_watch", None)
    assert run(lambda: None, strings=[str(other)]).tainted == ""
    observe._watch().follow(str(other))
    assert "too many" in run(lambda: pa.memory_map(str(other / "p.parquet")), strings=[str(other)]).tainted


def test_a_child_that_is_forked_is_left_alone() -> None:
    def fork() -> None:
        if (pid := os.fork()) == 0:
            os._exit(int(observe._active is not None or isinstance(os.stat, StandIn)))
        assert os.waitpid(pid, 0)[1] == 0

    run(fork)


def test_an_observer_that_cannot_begin_lets_the_cell_run(monkeypatch) -> None:
    monkeypatch.setattr(observe, "_watch", lambda: 1 / 0)
    assert "ZeroDivisionError" in run(lambda: None).tainted


def test_an_observer_inside_another_says_that_it_cannot() -> None:
    inner = []
    outer = run(lambda: inner.append(run(Path("a.csv").read_text)))
    assert "another cell" in inner[0].tainted
    assert what(outer, "file") == {"a.csv"}


def test_a_kind_that_nobody_knows_is_a_difference_and_a_name_is_the_sessions() -> None:
    assert verify([Observed("moon", "phase", "0")]) is not None
    assert verify([Observed("name", "x", "0")]) is None


def test_a_second_watch_starts_afresh() -> None:
    random.seed(1)
    watch = RandomWatch()
    watch.start()
    assert not watch.seeded("random")
