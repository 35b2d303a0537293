"""The magics as a user meets them, in real kernels over real stores."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import prefect_cache
from prefect_cache import arguments
from prefect_cache.errors import UsageProblem
from prefect_cache.model import Options

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartKernel
    from kernels import Kernel, Ran


@pytest.fixture
def notebook(kernel: Kernel) -> Kernel:
    """A kernel with the extension loaded."""
    kernel.run("%load_ext prefect_cache")
    return kernel


def last(kernel: Kernel) -> str:
    """Return the last outcome's status."""
    return str(kernel.value("__import__('prefect_cache').last.status"))


def status(ran: Ran) -> str:
    """Return the status line's text, empty where there is none."""
    marked = [o for o in ran.outputs if "prefect_cache" in o.get("metadata", {})]
    assert len(marked) <= 1
    return str(marked[0]["data"]["text/plain"]) if marked else ""


def usage_error(ran: Ran) -> str:
    """Return IPython's own one line on what is wrong with a magic's line."""
    assert ran.status == "error"
    assert ran.stderr.startswith("UsageError: ")
    return ran.stderr.removeprefix("UsageError: ").strip()


class TestLine:
    """What may be said over a cell."""

    @pytest.mark.parametrize(
        ("line", "options"),
        [
            ("", Options()),
            ("orders", Options(name="orders")),
            ('"my orders" --ttl 12h', Options(name="my orders", ttl=43200.0)),
            ("-o a,b --outputs 'c, d'", Options(outputs=("a", "b", "c", "d"))),
            ("-i x --ignore conn,engine", Options(inputs=("x",), ignore=("conn", "engine"))),
            ("-f 'data/*.csv' --files more.csv", Options(files=("data/*.csv", "more.csv"))),
            ("--retries 3 --retry-delay 10 --timeout 1h30m", Options(retries=3, retry_delay=10.0, timeout=5400.0)),
            ("--tags etl,nightly --pin -q", Options(tags=("etl", "nightly"), pin=True, quiet=True)),
            ("--storage s3/team --refresh --explain", Options(storage="s3/team", refresh=True, explain=True)),
            ("--artifact", Options(artifact=True)),
        ],
    )
    def test_is_read_into_options(self, line: str, options: Options) -> None:
        assert options == arguments.read_cell(line, Options()).options

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("--ttl 5x", "'5x' is no time span; write 90s"),
            ("--ttl 0", "'0' is no time at all"),
            ("--ttl -5", "'-5' is no time span"),
            ("--retries two", "'two' is no whole number"),
            ("--refesh", "Did you mean --refresh?"),
            ("--ref", "Did you mean --refresh?"),
            ("a b", "unrecognized arguments: b"),
            ("-o 1x", "'1x' is no variable's name"),
            ("-o class", "'class' is no variable's name"),
            ("-f 'open", "no closing quotation"),
        ],
    )
    def test_says_what_cannot_be_read(self, line: str, message: str) -> None:
        with pytest.raises(UsageProblem, match=re.escape(message)):
            arguments.read_cell(line, Options())

    def test_what_the_line_does_not_say_is_as_the_settings_say(self) -> None:
        defaults = Options(ttl=60.0, tags=("etl",))
        assert arguments.read_cell("--ttl 5s", defaults).options == Options(ttl=5.0, tags=("etl",))

    def test_every_option_and_sub_command_has_help(self) -> None:
        text = arguments.help_text()
        for parser in (arguments.cell_parser(), *arguments.line_parsers().values()):
            assert parser.description or parser.epilog
            for action in parser._actions:
                assert action.help
        assert all(f"%prefect_cache {name}" in text for name in arguments.line_parsers())


class TestCell:
    """``%%prefect_cache``."""

    CELL = "%%prefect_cache\nprint('working')\nx = [1, 2]\nx"

    def test_runs_and_is_restored(self, notebook: Kernel) -> None:
        first = notebook.run(self.CELL)
        assert last(notebook) == "miss"
        again = notebook.run(self.CELL)
        assert last(notebook) == "hit"
        assert (first.stdout, first.result) == (again.stdout, again.result) == ("working\n", "[1, 2]")
        assert notebook.value("x") == [1, 2]

    def test_what_only_a_server_can_show_is_said_once_to_need_one(self, notebook: Kernel) -> None:
        notebook.run("%config PrefectCache.log_prints = True")
        cell = "%%prefect_cache --artifact\nimport pandas as pd\nprint('working')\nt = pd.DataFrame({'a': [1]})"
        first, again = notebook.run(cell), notebook.run(cell)
        assert (last(notebook), first.stdout) == ("hit", "working\n")
        assert first.text.count("none is configured") == 2
        assert {"what is printed can be logged", "artifacts are kept"} == {
            said for said in ("what is printed can be logged", "artifacts are kept") if said in first.text
        }
        assert "configured" not in again.text

    def test_is_restored_by_another_kernel(self, notebook: Kernel) -> None:
        notebook.run(self.CELL)
        notebook.restart()
        notebook.run("%load_ext prefect_cache")
        again = notebook.run(self.CELL)
        assert last(notebook) == "hit"
        assert again.result == "[1, 2]"
        assert notebook.value(f"Out[{again.count}] is x and _ is x")

    def test_is_followed_by_one_line_that_is_no_part_of_it(self, notebook: Kernel) -> None:
        first, again = notebook.run(self.CELL), notebook.run(self.CELL)
        assert re.fullmatch(r"ran in .*, stored 1 output \(.* B\); missed because .*", status(first))
        assert re.fullmatch(r"restored x \(.* B\) in .*; ran .* at \d\d:\d\d", status(again))
        for ran in (first, again):
            assert [o["output_type"] for o in ran.outputs] == ["stream", "execute_result", "display_data"]

    def test_shows_no_line_when_told_to_be_quiet(self, notebook: Kernel) -> None:
        assert status(notebook.run("%%prefect_cache -q\n1")) == ""
        notebook.run("%config PrefectCache.quiet = True")
        assert status(notebook.run("%%prefect_cache\n2")) == ""

    def test_shows_no_value_after_a_semicolon(self, notebook: Kernel) -> None:
        for _ in range(2):
            ran = notebook.run("%%prefect_cache\n[7];")
            assert ran.result is None
            assert not notebook.value(f"{ran.count} in Out")

    def test_with_and_without_a_semicolon_are_two_cells(self, notebook: Kernel) -> None:
        notebook.run("%%prefect_cache\n[7];")
        assert notebook.run("%%prefect_cache\n[7]").result == "[7]"
        assert notebook.run("%%prefect_cache\n[7];").result is None

    def test_is_run_and_replaced_when_asked(self, notebook: Kernel) -> None:
        cell = "%%prefect_cache {}\nimport time\nt = time.time_ns()"
        notebook.run(cell.format(""))
        first = notebook.value("t")
        notebook.run(cell.format("--refresh"))
        assert last(notebook) == "refresh"
        second = notebook.value("t")
        notebook.run(cell.format(""))
        assert first != second == notebook.value("t")

    def test_says_before_it_runs_what_would_become_of_it(self, notebook: Kernel) -> None:
        cell = "%%prefect_cache {}\ny = 1"
        assert notebook.run(cell.format("--explain")).text.startswith("miss: ")
        assert not notebook.value("'y' in globals()")
        notebook.run(cell.format(""))
        assert notebook.run(cell.format("--explain")).text.startswith("hit: ")

    def test_tells_its_options(self, notebook: Kernel) -> None:
        ran = notebook.run("%%prefect_cache --help\nz = 1")
        assert "--retry-delay" in ran.stdout
        assert not notebook.value("'z' in globals()")
        reply = notebook.run("%%prefect_cache?")
        assert reply.status == "ok"

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("--no-such-option", "unrecognized arguments: --no-such-option"),
            ("--ttl soon", "'soon' is no time span"),
            ("-i ordrs", "there is no 'ordrs'; did you mean orders?"),
            ("-i nothing_like_it", "the notebook has no such name"),
        ],
    )
    def test_says_in_ipythons_style_what_is_wrong(self, notebook: Kernel, line: str, message: str) -> None:
        notebook.run("orders = 1")
        assert message in usage_error(notebook.run(f"%%prefect_cache {line}\nlost = 1", check=False))
        assert not notebook.value("'lost' in globals()")

    @pytest.mark.parametrize("body", ["", "\n", "\n   \n"])
    def test_without_a_body_says_so(self, notebook: Kernel, body: str) -> None:
        assert "the cell body is empty" in usage_error(notebook.run("%%prefect_cache" + body, check=False))

    def test_of_comments_alone_does_nothing(self, notebook: Kernel) -> None:
        assert notebook.run("%%prefect_cache\n# later").status == "ok"


class TestNotebook:
    """The notebook's name, as whoever runs the notebook tells it."""

    RAN = "get_ipython().magics_manager.registry['PrefectCache'].store.catalog().entries[0].manifest.run.notebook"

    @pytest.mark.parametrize("name", ["__vsc_ipynb_file__", "PAPERMILL_INPUT_PATH"])
    def test_is_that_of_vs_code_or_papermill(self, notebook: Kernel, name: str) -> None:
        notebook.run(f"{name} = '/home/me/shop/report.ipynb'")
        notebook.run("%%prefect_cache\na = 1")
        assert notebook.value(self.RAN) == "/home/me/shop/report.ipynb"

    def test_is_that_of_the_jupyter_server(self, start_kernel: StartKernel) -> None:
        kernel = start_kernel(env={"JPY_SESSION_NAME": "/home/me/shop/etl.ipynb"})
        kernel.run("%load_ext prefect_cache")
        kernel.run("%%prefect_cache\na = 1")
        assert kernel.value(self.RAN) == "/home/me/shop/etl.ipynb"

    def test_is_not_known_where_nobody_tells(self, notebook: Kernel) -> None:
        notebook.run("%%prefect_cache\na = 1")
        assert notebook.value(self.RAN) == ""


class TestErrors:
    """A cell that raises looks as it looks without us."""

    CELL = "def outer():\n    return inner()\ndef inner():\n    raise ValueError('mine')\nouter()"

    def traceback(self, ran: Ran) -> list[str]:
        assert ran.error is not None
        text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(ran.error["traceback"]))
        return re.sub(r"Cell In\[\d+\]", "Cell In[N]", text).splitlines()

    def test_the_traceback_shows_the_users_own_frames(self, notebook: Kernel) -> None:
        plain = notebook.run("# a line\n" + self.CELL, check=False)
        cached = notebook.run("%%prefect_cache\n" + self.CELL, check=False)
        text = [line for line in self.traceback(plain) if "# a line" not in line]
        assert [line for line in self.traceback(cached) if line.strip() != "1"] == text
        assert status(cached) == ""
        assert last(notebook) == "failed"

    def test_nothing_is_stored(self, notebook: Kernel) -> None:
        for _ in range(2):
            notebook.run("%%prefect_cache\nw = 1\n1/0", check=False)
            assert last(notebook) == "failed"
        assert notebook.value("w") == 1

    def test_an_error_in_the_syntax_is_shown_as_ipython_shows_it(self, notebook: Kernel) -> None:
        plain = notebook.run("# a line\ndef f(:\n    pass", check=False)
        cached = notebook.run("%%prefect_cache\ndef f(:\n    pass", check=False)
        assert self.traceback(cached) == self.traceback(plain)

    def test_of_the_compiler_too(self, notebook: Kernel) -> None:
        cached = notebook.run("%%prefect_cache\nx = 1\nreturn x", check=False)
        assert self.traceback(cached)[:3] == ["  Cell In[N], line 3", "    return x", "    ^"]

    def test_a_chain_of_errors_is_the_users(self, notebook: Kernel) -> None:
        cell = "try:\n    1/0\nexcept ZeroDivisionError as error:\n    raise KeyError('second') from error"
        lines = self.traceback(notebook.run("%%prefect_cache\n" + cell, check=False))
        assert not [line for line in lines if "prefect" in line and "Cell" not in line and "%%" not in line]
        assert "The above exception was the direct cause of the following exception:" in lines

    def test_post_mortem_stands_in_the_users_frame(self, notebook: Kernel) -> None:
        notebook.run("%%prefect_cache\ndef f():\n    local = 5\n    1/0\nf()", check=False)
        assert (
            notebook.value(
                "list(__import__('traceback').walk_tb(__import__('sys').last_traceback))[-1][0].f_locals['local']"
            )
            == 5
        )

    def test_an_interrupt_ends_the_cell_as_ever(self, notebook: Kernel) -> None:
        # In steps: a signal that comes between the interpreter's last look and the system's sleep waits for its end.
        request = notebook.submit(
            "%%prefect_cache\nimport time\nfor n in range(1200):\n"
            "    if n == 1: open('on', 'w').close()\n    time.sleep(0.05)"
        )
        while not (notebook.cwd / "on").exists():
            time.sleep(0.01)
        notebook.interrupt()
        ran = notebook.collect(request, timeout=20)
        assert ran.error is not None
        assert ran.error["ename"] == "KeyboardInterrupt"
        assert last(notebook) == "failed"
        assert notebook.run("1 + 1").result == "2"

    def test_a_notebook_that_is_run_without_anyone_stops_there(self, tmp_path: Path) -> None:
        cells = ["%load_ext prefect_cache", "%%prefect_cache\n1/0", "open('went-on', 'w')"]
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
            NotebookClient(book, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
        assert not (tmp_path / "went-on").exists()


class TestAwait:
    """Top-level await under the magic."""

    def test_runs_on_the_kernels_own_loop(self, notebook: Kernel) -> None:
        notebook.run("import asyncio\nloop = asyncio.get_running_loop()\nlock = asyncio.Event()")
        cell = (
            "%%prefect_cache --ignore loop,lock\nawait asyncio.sleep(0)\n"
            "same = asyncio.get_running_loop() is loop\nvalue = await asyncio.sleep(0.01, 'done')\nvalue"
        )
        first = notebook.run(cell)
        assert first.result == "'done'"
        assert notebook.value("same") is True
        assert last(notebook) == "miss"
        again = notebook.run(cell)
        assert again.result == "'done'"
        assert last(notebook) == "hit"

    def test_of_every_kind(self, notebook: Kernel) -> None:
        cell = (
            "%%prefect_cache\nimport asyncio, contextlib\n"
            "@contextlib.asynccontextmanager\nasync def scope():\n    yield 1\n"
            "async def count():\n    for i in range(3):\n        yield i\n"
            "async with scope() as s: pass\n"
            "total = 0\nasync for i in count(): total += i\n"
            "squares = [i * i async for i in count()]\n(s, total, squares)"
        )
        assert notebook.run(cell).result == notebook.run(cell).result == "(1, 3, [0, 1, 4])"

    def test_an_error_is_the_users(self, notebook: Kernel) -> None:
        ran = notebook.run("%%prefect_cache\nasync def f():\n    raise ValueError('mine')\nawait f()", check=False)
        lines = TestErrors().traceback(ran)
        assert [line for line in lines if "Cell In" in line] == ["Cell In[N], line 4", "Cell In[N], line 3, in f()"]
        assert not [line for line in lines if "hidden" in line or ".py" in line]

    def test_a_timeout_ends_it(self, notebook: Kernel) -> None:
        ran = notebook.run(
            "%%prefect_cache --timeout 0.2\nimport asyncio\nawait asyncio.sleep(60)", check=False, timeout=20
        )
        assert ran.error is not None
        assert ran.error["ename"] == "CellTimeout"
        assert notebook.run("1 + 1").result == "2"

    def test_what_runs_in_the_background_goes_on(self, notebook: Kernel) -> None:
        notebook.run(
            "import asyncio\nticks = 0\nasync def tick():\n    global ticks\n    while True:\n"
            "        ticks += 1\n        await asyncio.sleep(0.01)\ntask = asyncio.create_task(tick())"
        )
        notebook.run("%%prefect_cache\nbefore = 1\nawait __import__('asyncio').sleep(0.2)")
        assert notebook.value("ticks") > 3


class TestOtherMagics:
    def test_may_stand_in_front(self, notebook: Kernel) -> None:
        for expected in ("miss", "hit"):
            ran = notebook.run("%%time\n%%prefect_cache\nv = 5\nv")
            assert ran.result == "5"
            assert "Wall time" in ran.stdout
            assert last(notebook) == expected

    def test_may_stand_within(self, notebook: Kernel) -> None:
        for expected in ("miss", "hit"):
            ran = notebook.run("%%prefect_cache\n%%time\nv = 5\nv")
            assert ran.result == "5"
            assert last(notebook) == expected

    def test_capture_takes_all(self, notebook: Kernel) -> None:
        for _ in range(2):
            ran = notebook.run("%%capture taken\n%%prefect_cache\nprint('hidden')\ndisplay(1)")
            assert ran.stdout == ""
            assert notebook.value("taken.stdout") == "hidden\n"

    def test_shell_lines_work(self, notebook: Kernel) -> None:
        for _ in range(2):
            ran = notebook.run("%%prefect_cache\nwho = 'me'\n!echo hello {who}\nfiles = !echo a b\nfiles")
            assert ran.stdout.replace("\r", "") == "hello me\n"
            assert ran.result == "['a b']"


class TestSource:
    """Functions of a cached cell are found by those who look for their source."""

    def test_is_found_after_a_run_and_after_a_restore(self, notebook: Kernel) -> None:
        cell = "%%prefect_cache\n\ndef area(r):\n    return 3 * r * r\n"
        for _ in range(2):
            notebook.run(cell)
            assert notebook.value("__import__('inspect').getsource(area)") == "def area(r):\n    return 3 * r * r\n"
            notebook.restart()
            notebook.run("%load_ext prefect_cache")

    def test_lines_are_those_of_the_cell(self, notebook: Kernel) -> None:
        notebook.run("%%prefect_cache\n\n\ndef here(): pass\n")
        assert notebook.value("here.__code__.co_firstlineno") == 4


class TestCommands:
    """``%prefect_cache ...``."""

    @pytest.fixture
    def filled(self, notebook: Kernel) -> Kernel:
        notebook.run(
            "%%prefect_cache orders\nimport pandas as pd\n"
            "orders = pd.DataFrame({'price': [1.5, 2.5], 'item': ['<b>', 'y']})\norders"
        )
        notebook.run("%%prefect_cache\nsquares = [n * n for n in range(10)]")
        return notebook

    def test_list(self, filled: Kernel) -> None:
        text = filled.run("%prefect_cache list").text
        assert "2 entries" in text
        assert "orders" in text
        assert "squares" in text
        assert filled.run("%prefect_cache ls ORDERS").text.count("orders") >= 1
        assert "no entry fits" in filled.run("%prefect_cache ls nowhere").text
        assert "is no size" in usage_error(filled.run("%prefect_cache ls size>big", check=False))

    def test_list_without_a_store(self, notebook: Kernel, store_root: Path) -> None:
        assert notebook.run("%prefect_cache list").text == "no entries yet"
        assert not store_root.exists()

    def test_show(self, filled: Kernel, store_root: Path) -> None:
        ran = filled.run("%prefect_cache show orders")
        for expected in ("orders = pd.DataFrame", "price", "float64", ".arrow", "pyarrow", "DuckDB", str(store_root)):
            assert expected in ran.text
        html = ran.displays[0]["text/html"]
        assert re.sub("<[^>]*>", "", html).startswith("orders  ")
        assert html.count("<b>") == 1  # the first line, and nothing that the entry holds

    def test_load(self, filled: Kernel) -> None:
        filled.run("del orders")
        assert "loaded orders (DataFrame)" in filled.run("%prefect_cache load orders").text
        assert filled.value("orders.price.tolist()") == [1.5, 2.5]

    def test_load_never_overwrites_unasked(self, filled: Kernel) -> None:
        filled.run("orders = 'mine'")
        assert "has orders already" in usage_error(filled.run("%prefect_cache load orders", check=False))
        assert filled.value("orders") == "mine"
        filled.run("%prefect_cache load orders -o orders=other")
        assert filled.value("other.price.tolist()") == [1.5, 2.5]
        filled.run("%prefect_cache load orders --overwrite")
        assert filled.value("orders.price.tolist()") == [1.5, 2.5]

    def test_evict_and_undo(self, filled: Kernel) -> None:
        ran = filled.run("%prefect_cache evict orders")
        assert "evicted orders" in ran.text
        assert "undo" in ran.text
        assert "1 entry" in filled.run("%prefect_cache list").text
        assert "back: orders" in filled.run("%prefect_cache undo").text
        assert "2 entries" in filled.run("%prefect_cache list").text
        assert "nothing to undo" in filled.run("%prefect_cache undo").text

    def test_pin_and_unpin(self, filled: Kernel) -> None:
        filled.run("%prefect_cache pin squares")
        assert "squares (pinned)" in filled.run("%prefect_cache list").text
        filled.run("%prefect_cache unpin squares")
        assert "(pinned)" not in filled.run("%prefect_cache list").text

    def test_prune(self, filled: Kernel) -> None:
        assert "nothing to evict" in filled.run("%prefect_cache prune --dry-run").text
        filled.run("%config PrefectCache.max_bytes = '1B'")
        ran = filled.run("%prefect_cache prune --dry-run")
        assert "would evict 2 entries" in ran.text
        assert "2 entries" in filled.run("%prefect_cache list").text
        assert "freed" in filled.run("%prefect_cache prune").text
        assert "no entries" in filled.run("%prefect_cache list").text

    def test_check(self, filled: Kernel, store_root: Path) -> None:
        assert "every file is what its manifest says" in filled.run("%prefect_cache check").text
        file = next(store_root.glob("entries/*/*.arrow"))
        file.write_bytes(file.read_bytes()[:-8])
        assert "1 problem" in filled.run("%prefect_cache check").text
        assert "removed" in filled.run("%prefect_cache check --fix").text
        assert "every file" in filled.run("%prefect_cache check").text

    def test_stats(self, filled: Kernel) -> None:
        filled.run("%%prefect_cache\nsquares = [n * n for n in range(10)]")
        text = filled.run("%prefect_cache stats").text
        assert re.search(r"Hits +1 \(33 % of hits and misses\)", text)
        assert re.search(r"Misses +2", text)
        assert explain_never_run() in text

    def test_where(self, filled: Kernel, store_root: Path) -> None:
        text = filled.run("%prefect_cache where").text
        assert str(store_root) in text
        assert "PREFECT_CACHE_DIR" in text

    def test_why(self, filled: Kernel) -> None:
        filled.run("def total(f):\n    return f.price.sum()")
        cell = "%%prefect_cache\nsum_ = total(orders)"
        filled.run(cell)
        filled.run("def total(f):\n    return f.price.sum() * 2")
        filled.run(cell)
        text = filled.run("%prefect_cache why").text
        assert text.startswith("ran because helper total changed")
        assert (
            "    -    return f.price.sum()" in text.replace("      ", "    ", 1) or "-    return f.price.sum()" in text
        )
        assert "+    return f.price.sum() * 2" in text
        filled.run("orders['price'] += 1")
        ran = filled.run(cell)
        assert "missed because orders[price] changed" in status(ran)
        assert "column price differs (1 other equal)" in filled.run("%prefect_cache why").text
        filled.run(cell)
        assert filled.run("%prefect_cache why").text.startswith("restored")

    def test_why_of_a_bypass_names_the_way_out(self, notebook: Kernel) -> None:
        notebook.run("import threading\nlock = threading.Lock()")
        ran = notebook.run("%%prefect_cache\nwith lock:\n    a = 1")
        assert "not stored: lock" in status(ran)
        assert "leave it out with --ignore" in status(ran)
        assert "leave it out with --ignore" in notebook.run("%prefect_cache why").text
        assert "not stored" not in status(notebook.run("%%prefect_cache --ignore lock\nwith lock:\n    a = 1"))

    def test_why_before_any_cell(self, notebook: Kernel) -> None:
        assert "no cell has run" in usage_error(notebook.run("%prefect_cache why", check=False))

    def test_config(self, notebook: Kernel) -> None:
        text = notebook.run("%prefect_cache config").text
        assert "max_bytes" in text
        assert "PrefectCache.max_bytes=<Unicode>" in notebook.run("%config PrefectCache").stdout

    @pytest.mark.parametrize("setting", ["ttl = 'soon'", "policy = 'best'", "max_bytes = 'many'", "retries = -1"])
    def test_config_takes_nothing_that_cannot_be(self, notebook: Kernel, setting: str) -> None:
        name = setting.partition(" ")[0]
        before = notebook.run(f"%config PrefectCache.{name}").result
        assert name in notebook.run(f"%config PrefectCache.{setting}").text or notebook.run("1")
        assert notebook.run(f"%config PrefectCache.{name}").result == before

    def test_help(self, notebook: Kernel) -> None:
        text = notebook.run("%prefect_cache help").stdout
        assert "sub-commands:" in text
        assert "examples:" in text

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("lst", "did you mean list?"),
            ("frobnicate", "see `%prefect_cache help`"),
            ("show", "the following arguments are required: KEY"),
            ("show nothing", "no entry is called 'nothing'"),
            ("evict nothing", "no entry is called 'nothing'"),
            ("--refresh", "two percent signs"),
            ("auto sideways", "invalid choice"),
        ],
    )
    def test_what_is_off_is_said_in_one_line(self, notebook: Kernel, line: str, message: str) -> None:
        assert message in usage_error(notebook.run(f"%prefect_cache {line}", check=False))

    def test_an_address_that_could_be_several_entries_names_them(self, notebook: Kernel) -> None:
        notebook.run("%%prefect_cache twin\na = 1")
        notebook.run("%%prefect_cache twin\na = 2")
        assert "'twin' could be any of 2 entries" in usage_error(notebook.run("%prefect_cache show twin", check=False))


def explain_never_run() -> str:
    from prefect_cache.explain import NEVER_RUN

    return NEVER_RUN


class TestAuto:
    def test_caches_what_takes_long_and_leaves_the_rest(self, notebook: Kernel) -> None:
        notebook.run("%prefect_cache auto on --min-seconds 1")
        slow = "import time\ntime.sleep(1.1)\nslow = 1"
        assert status(notebook.run("quick = 1")) == ""
        assert "stored" in status(notebook.run(slow))
        again = notebook.run(slow)
        assert "restored slow" in status(again)
        assert status(notebook.run("quick = 1")) == ""
        assert notebook.run("7").result == "7"

    def test_leaves_out_who_asks_for_it(self, notebook: Kernel) -> None:
        notebook.run("%prefect_cache auto on --min-seconds 0")
        for cell in ("# prefect_cache: off\na = 1", "%%bash\necho hi", "%matplotlib inline", "!ls", "a?"):
            assert status(notebook.run(cell, check=False)) == ""

    def test_leaves_out_cells_with_a_tag(self, notebook: Kernel) -> None:
        """JupyterLab sends a cell's metadata with the request to run it."""
        notebook.run("%prefect_cache auto on --min-seconds 0")
        content = {
            "code": "a = 1",
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
        }
        for tags, expected in ((["no-cache"], ""), (["other"], "ran in")):
            request = notebook.client.session.msg("execute_request", content, metadata={"tags": tags})
            notebook.client.shell_channel.send(request)
            assert status(notebook.collect(request["header"]["msg_id"])).startswith(expected)

    def test_leaves_cells_with_options_of_their_own_alone(self, notebook: Kernel) -> None:
        notebook.run("%prefect_cache auto on --min-seconds 100")
        assert "stored" in status(notebook.run("%%prefect_cache named\na = 1"))

    def test_ends_when_told(self, notebook: Kernel) -> None:
        before = notebook.value("len(get_ipython().input_transformers_cleanup)")
        assert "auto is on" in notebook.run("%prefect_cache auto on --min-seconds 0").text
        assert "auto is off" in notebook.run("%prefect_cache auto off").text
        assert status(notebook.run("a = 1")) == ""
        assert notebook.value("len(get_ipython().input_transformers_cleanup)") == before

    def test_errors_are_the_users(self, notebook: Kernel) -> None:
        notebook.run("%prefect_cache auto on --min-seconds 0")
        lines = TestErrors().traceback(notebook.run("x = 1\n1/0", check=False))
        assert [line for line in lines if "Cell In" in line] == ["Cell In[N], line 2"]

    def test_awaits(self, notebook: Kernel) -> None:
        notebook.run("%prefect_cache auto on --min-seconds 0")
        assert notebook.run("import asyncio\nawait asyncio.sleep(0.01, 5)").result == "5"


class TestLoading:
    def test_brings_nothing_heavy_along(self, start_kernel: StartKernel) -> None:
        kernel = start_kernel(cold=True)
        kernel.run("import sys\nbefore = set(sys.modules)\n%load_ext prefect_cache")
        heavy = {"pandas", "pyarrow", "numpy", "prefect", "polars"}
        assert kernel.value("{m.partition('.')[0] for m in set(sys.modules) - before}") & heavy == set()

    def test_the_package_alone_brings_no_ipython(self) -> None:
        code = (
            "import sys, json, prefect_cache; assert prefect_cache.last is None; print(json.dumps(sorted(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert {"pandas", "pyarrow", "numpy", "prefect", "IPython"} & set(json.loads(done.stdout)) == set()

    def test_every_public_name_is_there(self) -> None:
        for name in prefect_cache.__all__:
            getattr(prefect_cache, name)
        assert set(prefect_cache.__all__) <= set(dir(prefect_cache))
        with pytest.raises(AttributeError, match="no attribute 'lost'"):
            prefect_cache.lost  # noqa: B018

    def test_unloading_leaves_the_shell_as_it_was(self, kernel: Kernel) -> None:
        state = (
            "(sorted(_s.magics_manager.magics['line']), sorted(_s.magics_manager.magics['cell']), "
            "sorted(_s.magics_manager.registry), list(_s.configurables), list(_s.input_transformers_post), "
            "list(_s.input_transformers_cleanup), list(_s.Completer.custom_matchers), "
            "{k: list(v) for k, v in _s.events.callbacks.items()}, set(vars(_s)), set(vars(_s.displayhook)))"
        )
        kernel.run("_s = get_ipython()\n%load_ext prefect_cache\n%unload_ext prefect_cache\n1")
        kernel.run(f"before = {state}")
        kernel.run("%load_ext prefect_cache\n%prefect_cache auto on")
        kernel.run("%%prefect_cache\n1")
        kernel.run("%%prefect_cache\n1/0", check=False)
        kernel.run("%unload_ext prefect_cache")
        assert kernel.run(f"[a == b for a, b in zip(before, {state})]").result == str([True] * 10)

    def test_what_stood_under_the_name_before_comes_back(self, kernel: Kernel) -> None:
        kernel.run("get_ipython().register_magic_function(lambda line: 'older', 'line', 'prefect_cache')")
        kernel.run("%load_ext prefect_cache\n%unload_ext prefect_cache")
        assert kernel.run("%prefect_cache").result == "'older'"

    def test_reloading_works(self, notebook: Kernel) -> None:
        notebook.run("%reload_ext prefect_cache")
        assert notebook.run("%%prefect_cache\n1").result == "1"


class TestNeighbours:
    def test_a_cell_that_runs_elsewhere_is_waited_for_and_restored(self, start_kernel: StartKernel) -> None:
        one, other = start_kernel(), start_kernel()
        for kernel in (one, other):
            kernel.run("%load_ext prefect_cache\nimport time")
        cell = "%%prefect_cache\nprint('on', flush=True)\ntime.sleep(5)\nv = time.time_ns()"
        running = one.submit(cell)
        one.watch(running, lambda ran: ran.stdout != "")
        waited = other.run(cell)
        one.collect(running)
        assert "waiting for" in waited.text
        assert one.value("v") == other.value("v")
        assert (last(one), last(other)) == ("miss", "hit")


class TestStore:
    def test_is_where_the_settings_say(self, kernel: Kernel, tmp_path: Path) -> None:
        kernel.run("import os; del os.environ['PREFECT_CACHE_DIR']")
        kernel.run(f"%load_ext prefect_cache\n%config PrefectCache.path = {str(tmp_path / 'mine')!r}")
        kernel.run("%%prefect_cache\na = 1")
        assert len(list((tmp_path / "mine" / "entries").iterdir())) == 1

    def test_that_cannot_be_made_lets_the_cell_run(self, start_kernel: StartKernel, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        kernel = start_kernel(env={"PREFECT_CACHE_DIR": str(tmp_path / "file" / "store")})
        kernel.run("%load_ext prefect_cache")
        ran = kernel.run("%%prefect_cache\na = 1\na")
        assert ran.result == "1"
        assert kernel.value("a") == 1
        assert last(kernel) == "bypass"
        assert "not stored" in status(ran)
