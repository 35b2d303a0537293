"""Why a cell ran, in real kernels: each kind of change, as the status line, ``why`` and ``--explain`` tell it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from kernels import Kernel, Ran


class Case(NamedTuple):
    """What is there, a cell, what changes then, and what is said of it."""

    setup: str
    cell: str
    change: str
    because: str
    told: tuple[str, ...]


ORDERS = "import pandas as pd\norders = pd.DataFrame({'item': [1, 2, 3], 'price': [4, 5, 6], 'count': [7, 8, 9]})"
TOTAL = "total = orders.sum().sum()"
READ = "import pathlib\ntext = pathlib.Path('orders.csv').read_text()"
WRITE = "import pathlib\npathlib.Path('orders.csv').write_text('a')"
LIST = "import pathlib\nnames = sorted(p.name for p in pathlib.Path('data').iterdir())"

CASES = {
    "a column": Case(
        ORDERS,
        TOTAL,
        "orders.loc[1, 'price'] = 0",
        "orders[price] changed",
        ("orders: column price differs (2 others equal)",),
    ),
    "a column's name": Case(
        ORDERS,
        TOTAL,
        "orders = orders.rename(columns={'item': 'article'})",
        "orders changed",
        ("orders: column item renamed to article",),
    ),
    "a column's type": Case(
        ORDERS,
        TOTAL,
        "orders = orders.astype({'count': 'int16'})",
        "orders[count] changed",
        ("orders: column count was int64, is int16",),
    ),
    "rows": Case(ORDERS, TOTAL, "orders = pd.concat([orders, orders])", "orders changed", ("orders: 3 rows added",)),
    "a column more": Case(ORDERS, TOTAL, "orders['weight'] = 1", "orders changed", ("orders: column weight added",)),
    "the index": Case(ORDERS, TOTAL, "orders.index = [5, 6, 7]", "orders changed", ("orders: index differs",)),
    "a helper": Case(
        "def strip(x):\n    return x + 1\ndef clean(x):\n    return strip(x)",
        "y = clean(1)",
        "def strip(x):\n    return x + 2",
        "helper strip changed",
        ("helper strip: changed", "-    return x + 1", "+    return x + 2"),
    ),
    "a key of a dict": Case(
        "config = {'depth': 3, 'seed': 1}",
        "y = config['depth']",
        "config['seed'] = 2",
        "config['seed'] changed",
        ("config: key 'seed' differs (1 other equal)",),
    ),
    "a number": Case("rate = 19", "y = rate", "rate = 21", "rate changed", ("rate: 19 -> 21",)),
    "a file": Case(
        WRITE,
        READ,
        "pathlib.Path('orders.csv').write_text('ab')",
        "orders.csv changed at HH:MM",
        ("file orders.csv: changed at HH:MM, 1 B -> 2 B",),
    ),
    "a file that came": Case(
        "import pathlib",
        "import pathlib\nif pathlib.Path('orders.csv').exists(): pass",
        "pathlib.Path('orders.csv').write_text('ab')",
        "orders.csv now exists, written at HH:MM",
        ("file that was not there orders.csv: new",),
    ),
    "a folder": Case(
        "import pathlib\npathlib.Path('data').mkdir()\npathlib.Path('data/2013.csv').touch()",
        LIST,
        "pathlib.Path('data/2014.csv').touch()",
        "2014.csv is new in data",
        ("folder data: file 2014.csv added",),
    ),
    "a variable of the environment": Case(
        "import os\nos.environ['MODE'] = 'a'",
        "import os\ny = os.environ['MODE']",
        "os.environ['MODE'] = 'b'",
        "$MODE changed",
        ("environment variable MODE: changed",),
    ),
    "the cell itself": Case("x = 1", "y = x + 1", "", "the cell's code changed", ("-y = x + 1", "+y = x + 2")),
}


def plain(text: str) -> str:
    """Return text without what no two runs share."""
    return re.sub(r"\b\d\d:\d\d\b", "HH:MM", text)


def status(ran: Ran) -> str:
    return plain(next(d["text/plain"] for d in ran.displays if "prefect-cache-status" in d.get("text/html", "")))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_changed_is_said(kernel: Kernel, case: Case) -> None:
    kernel.run("%load_ext prefect_cache")
    kernel.run(case.setup)
    kernel.run(f"%%prefect_cache it\n{case.cell}")
    kernel.run(case.change or "pass")
    cell = case.cell if case.change else case.cell.replace("+ 1", "+ 2")
    explained = plain(kernel.run(f"%%prefect_cache it --explain\n{cell}").text)
    assert explained.startswith(f"miss: {case.because}")
    assert status(kernel.run(f"%%prefect_cache it\n{cell}")).endswith(f"missed because {case.because}")
    why = plain(kernel.run("%prefect_cache why").text)
    assert why.startswith(f"ran because {case.because}\ncompared with the run of ")
    for line in case.told:
        assert line in explained
        assert line in why
    key = kernel.value("__import__('prefect_cache').last.outcome.entry.digest")
    again = plain(kernel.run(f"%prefect_cache why {key}").text)
    assert again.splitlines()[1:] == why.splitlines()[1:]


@pytest.mark.parametrize(
    ("setup", "cell", "reason", "helps"),
    [
        ("lines = (n for n in [1])", "y = list(lines)", "lines is a generator", "--ignore lines"),
        (
            "import threading\nlock = threading.Lock()",
            "with lock:\n    y = 1",
            "lock is a _thread.lock",
            "--ignore lock",
        ),
        ("", "y = eval('1' + '2')", "eval", "name what it reads"),
        ("", "y = (n for n in [1])\nz = 1", "y", "-o"),
    ],
)
def test_a_bypass_names_the_option_that_lifts_it(
    kernel: Kernel, setup: str, cell: str, reason: str, helps: str
) -> None:
    kernel.run("%load_ext prefect_cache")
    kernel.run(setup or "pass")
    said = status(kernel.run(f"%%prefect_cache\n{cell}"))
    assert f"not stored: {reason}" in said
    assert helps in said
    why = kernel.run("%prefect_cache why").text
    assert why.startswith(f"ran and was not stored: {reason}")
    assert helps in why
