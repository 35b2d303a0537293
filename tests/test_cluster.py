"""Cells on a Dask cluster: real workers, seen from a notebook in a real kernel."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kernels import Kernel

STATUS = "__import__('prefect_cache').last.status"


@pytest.fixture
def notebook(start_kernel) -> Kernel:
    """A notebook with two workers, which start with the first cell."""
    notebook = start_kernel(env={"DASK_DISTRIBUTED__WORKER__DAEMON": "True", "DASK_NUM_WORKERS": "1"})
    notebook.run("%load_ext prefect_cache\n%config PrefectCache.task_runner = 'dask'")
    return notebook


def restart(notebook: Kernel) -> None:
    notebook.run("%unload_ext prefect_cache")
    notebook.restart()
    notebook.run("%load_ext prefect_cache\n%config PrefectCache.task_runner = 'dask'")


def test_a_cell_runs_elsewhere_and_comes_back_whole(notebook):
    notebook.run(
        "import os\nimport pandas as pd\n"
        "orders = pd.DataFrame({'n': range(1000), 'word': ['a', 'b'] * 500}, index=pd.RangeIndex(5, 1005, name='i'))\n"
        "seen, factor = [1], 3\n"
        "def scaled(t): return t.assign(n=t['n'] * factor)\n"
    )
    cell = (
        "%%prefect_cache result --submit\n"
        "import os\n"
        "print('working')\n"
        "where = os.getpid()\n"
        "result = scaled(orders)\n"
        "orders.loc[5, 'n'] = -1\n"
        "seen.append(2)\n"
        "def later(x): return scaled(x)\n"
        "len(result)"
    )
    notebook.run("alias = seen")
    ran = notebook.run(cell, timeout=300)
    assert (ran.stdout, ran.result) == ("working\n", "1000")
    assert "ran on the cluster" in ran.text
    assert notebook.value(STATUS) == "miss"
    assert notebook.value("where") != notebook.pid
    assert notebook.value("(int(result['n'].sum()), result.index.name, later(orders).shape)") == (
        1498500,
        "i",
        (1000, 2),
    )
    assert notebook.value("(int(orders.loc[5, 'n']), alias, alias is seen)") == (-1, [1, 2], True)
    notebook.run("orders.loc[5, 'n'] = 0; seen.remove(2)")
    assert "working" in notebook.run(cell).stdout
    assert notebook.value(STATUS) == "hit"
    assert notebook.value("alias") == [1, 2]
    # The entry is the same as one that ran here.
    notebook.run("orders.loc[5, 'n'] = 0; seen.remove(2)")
    notebook.run(cell.replace(" --submit", ""))
    assert notebook.value(STATUS) == "hit"


def test_what_the_cell_raises_is_raised_here_with_its_own_lines(notebook):
    notebook.run("def divide(a, b):\n    return a / b\n")
    ran = notebook.run("%%prefect_cache --submit\nx = 1\ny = divide(x, 0)", check=False, timeout=300)
    assert ran.error["ename"] == "ZeroDivisionError"
    shown = "\n".join(ran.error["traceback"])
    assert "divide(x, " in shown
    assert "prefect_cache/" not in shown
    assert "distributed" not in shown
    assert notebook.value(STATUS) == "failed"
    assert notebook.value("'y' in globals()") is False
    assert notebook.run("%%prefect_cache --submit\nz = divide(4, 2)\nz").result == "2.0"


def test_what_it_shows_comes_while_it_runs_there(notebook):
    """It runs until its first lines have been seen; they are not shown again at its end."""
    notebook.run("import os, sys, time\nimport pandas as pd")
    shown = "print('working')\nprint('aside', file=sys.stderr)\ndisplay(pd.DataFrame({'a': [1]}))\n"
    # Not a file: one that comes while the cell runs is a reason to run it again here.
    with subprocess.Popen(["sleep", "600"]) as sign:
        wait = (
            f"while True:\n    try: os.kill({sign.pid}, 0)\n"
            "    except ProcessLookupError: break\n    time.sleep(0.05)\n"
        )
        request = notebook.submit("%%prefect_cache --submit\n" + shown + wait + "print('done')\n'the end'")
        try:
            early = notebook.watch(request, lambda ran: "<table" in str(ran.outputs), timeout=300)
        finally:
            sign.kill()
    assert (early.stdout, early.stderr, early.result) == ("working\n", "aside\n", None)
    ran = notebook.collect(request)
    assert (ran.stdout, ran.result) == ("done\n", "'the end'")
    assert "<table" not in str(ran.outputs)
    assert "ran on the cluster" in ran.text
    again = notebook.run("%%prefect_cache --submit\n" + shown + wait + "print('done')\n'the end'")
    assert notebook.value(STATUS) == "hit"
    assert (again.stdout, again.stderr, again.result) == ("working\ndone\n", "aside\n", "'the end'")
    assert "<table" in str(again.outputs)


def test_what_it_had_shown_before_it_failed_stays(notebook):
    ran = notebook.run("%%prefect_cache --submit\nprint('so far')\n1 / 0", check=False, timeout=300)
    assert ran.error["ename"] == "ZeroDivisionError"
    assert ran.stdout == "so far\n"


def test_what_it_has_shown_is_taken_back_where_it_runs_here_after_all(notebook):
    """The value cannot be stored, which is known only when the cell has run."""
    cell = "%%prefect_cache --submit\nprint('once')\nimport threading\nlock = threading.Lock()\n1"
    ran = notebook.run(cell, timeout=300)
    assert ran.stdout == "once\n"
    assert "ran here, not on the cluster" in ran.text


def test_figures_are_drawn_there_as_they_would_be_here(notebook):
    """Below the cell and by ``plt.show``, in the formats of the notebook, in one worker after another cell."""
    notebook.run("%config InlineBackend.figure_formats = ['png', 'svg']")
    for number in (1, 2):
        cell = (
            "%%prefect_cache --submit\nimport matplotlib.pyplot as plt\n"
            f"plt.plot([1, {number}])\nplt.show()\nplt.plot([2, {number}])\nprint('drawn')\n{number}"
        )
        ran = notebook.run(cell, timeout=300)
        pictures = [output["data"] for output in ran.outputs if "image/png" in output.get("data", {})]
        assert len(pictures) == 2
        assert all("image/svg+xml" in data for data in pictures)
        assert ran.result == str(number)
        assert "ran on the cluster" in ran.text


def test_random_draws_go_on_where_the_notebook_seeded_them(notebook):
    """What nobody seeded is drawn there as well, and is no reason to run the cell again here."""
    notebook.run("import random\nimport numpy as np")
    ran = notebook.run("%%prefect_cache --submit\nfree = random.random()", timeout=300)
    assert "ran on the cluster" in ran.text
    notebook.run("random.seed(5)\nnp.random.seed(6)\nplain = random.random(), np.random.rand(), random.random()")
    notebook.run("random.seed(5)\nnp.random.seed(6)")
    ran = notebook.run("%%prefect_cache --submit\nfirst = random.random(), np.random.rand()")
    assert "ran on the cluster" in ran.text
    assert notebook.value("(*first, random.random()) == plain")


def test_an_interrupt_ends_it_there_too(notebook, tmp_path):
    notebook.run("%%prefect_cache --submit\nwarm = 1", timeout=300)
    beat = tmp_path / "beat"
    request = notebook.submit(
        "%%prefect_cache --submit\nimport time\n"
        f"for n in range(3000):\n    open({str(beat)!r}, 'w').write(str(n))\n    time.sleep(0.05)"
    )
    deadline = time.monotonic() + 60
    while not beat.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    notebook.interrupt()
    ran = notebook.collect(request)
    assert ran.error["ename"] == "KeyboardInterrupt"
    time.sleep(3)
    last = beat.read_text()
    time.sleep(1)
    assert beat.read_text() == last
    assert notebook.run("%%prefect_cache --submit\nagain = 2\nagain").result == "2"


def test_what_a_worker_cannot_do_as_the_notebook_would_runs_here_and_says_so(notebook):
    notebook.run("import os\nos.environ['SHOP'] = 'Berlin'")  # after the workers' environment was copied
    notebook.run("%%prefect_cache --submit\nwarm = 1", timeout=300)
    notebook.run("os.environ['SHOP'] = 'Hamburg'")
    ran = notebook.run("%%prefect_cache --submit\nshop = os.environ['SHOP']\npid = os.getpid()")
    assert notebook.value("(shop, pid)") == ("Hamburg", notebook.pid)
    assert "ran here, not on the cluster: it would not be the same cell there" in ran.text
    assert "SHOP" in ran.text


def test_an_input_that_cannot_travel_is_named(notebook):
    notebook.run("import threading\nlock = threading.Lock()")
    ran = notebook.run("%%prefect_cache --submit\nheld = lock.locked()", timeout=300)
    assert notebook.value("held") is False
    assert "lock" in ran.text


def test_a_task_runner_is_asked_for_and_must_be_one(kernel):
    kernel.run("%load_ext prefect_cache")
    ran = kernel.run("%%prefect_cache --submit\nx = 1", check=False)
    assert "task_runner = 'dask'" in ran.text + ran.stderr
    kernel.run("%config PrefectCache.task_runner = 'nonsense'")
    ran = kernel.run("%%prefect_cache --submit\nx = 1", check=False)
    assert "names no task runner" in ran.text + ran.stderr
