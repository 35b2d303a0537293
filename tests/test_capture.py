"""What a cell shows is shown live, taken down in order, and shown again as it was: in real kernels and a terminal."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from prefect_cache.capture import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kernels import Kernel, Kernels, Ran

TAPE = """
from prefect_cache.capture import Recorder, replay
from prefect_cache.runner import Runner
_shell = get_ipython()
def prefect_cache(line, cell):
    runner = Runner(_shell)
    recorder = _shell.recorder = Recorder(_shell)
    with recorder:
        value = _shell.value = runner.run(runner.transform(cell))
        recorder.result(value)
    return value
_shell.register_magic_function(prefect_cache, "cell")
def again(line):
    replay(_shell.recorder.displays, _shell, _shell.value)
    return _shell.value
_shell.register_magic_function(again, "line")
"""
"""A cache without a store: the cell magic takes down, ``%again`` shows again."""


@pytest.fixture
def tape(kernel: Kernel) -> Kernel:
    """A kernel with the magics above."""
    kernel.run(TAPE)
    return kernel


@pytest.fixture(scope="module")
def shared(kernels: Kernels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """The same, one for all cells that leave nothing behind."""
    kernel = kernels.start(cwd=tmp_path_factory.mktemp("shared"))
    kernel.run(TAPE)
    yield kernel
    kernel.stop()


def outputs(ran: Ran) -> list[dict[str, Any]]:
    """Return a cell's outputs without what is never equal between two runs."""
    kept = []
    for output in ran.outputs:
        kept.append({name: value for name, value in output.items() if name not in ("execution_count", "transient")})
        if "text" in output:  # a warning names the file that stands for the cell, and the line in it
            kept[-1]["text"] = re.sub(r"/ipykernel_\d+/\d+\.py:\d+", "/the cell", output["text"])
    return kept


def record(kernel: Kernel) -> list[dict[str, Any]]:
    """Return what was taken down last."""
    return json.loads(kernel.value("__import__('json').dumps(get_ipython().recorder.displays)"))


CELLS = {
    "both streams": "import sys\nprint('out')\nprint('err', file=sys.stderr)\nprint('more')",
    "a value": "print('before')\n{'a': [1, 2]}",
    "a frame": "import pandas as pd\npd.DataFrame({'a': [1, 2], 'b': ['<x>', 'y']})",
    "displays between prints": """
        from IPython.display import HTML, Markdown
        print(1)
        display(HTML('<b>x</b>'))
        print(2)
        display(Markdown('*y*'), {'raw': 1})""",
    "an image": "from IPython.display import Image\nImage(data=b'\\x89PNG\\r\\n\\x1a\\n0123', format='png')",
    "JSON and metadata": """
        data = {'application/json': {'a': [1, None, 2.5]}, 'text/plain': 'j'}
        display(data, metadata={'application/json': {'expanded': True}}, raw=True)""",
    "an updated display": """
        h = display('first', display_id=True)
        print('between')
        h.update('second')
        h.update('third')""",
    "a cleared output": "from IPython.display import clear_output\nprint('gone')\nclear_output()\nprint('kept')",
    "a loop that clears and waits": """
        from IPython.display import clear_output
        for i in range(4):
            clear_output(wait=True)
            print(i)
            display(i)""",
    "a subprocess": "!echo from the shell; echo err >&2",
    "a subprocess of Python's": """
        import subprocess
        print(subprocess.run(['echo', 'captured'], capture_output=True, text=True).stdout)""",
    "C code": "import ctypes\nctypes.CDLL(None).puts(b'from C')\nctypes.CDLL(None).printf(b'%d items\\n', 3)\nNone",
    "file descriptors": "import os, subprocess\nos.write(1, b'raw out\\n')\nsubprocess.run(['echo', 'child'])\nNone",
    "warnings": "import warnings\nwarnings.simplefilter('always')\nwarnings.warn('careful')",
    "threads": "import threading\nt = threading.Thread(target=lambda: print('from a thread'))\nt.start(); t.join()",
    "displays of threads": """
        import threading
        t = threading.Thread(target=lambda: display('from a thread'))
        t.start(); t.join()""",
    "a bar of tqdm": "from tqdm import tqdm\nfor _ in tqdm(range(3), bar_format='{n}/{total}'): pass",
    "figures": "import matplotlib.pyplot as plt\nplt.plot([1, 2]);\nprint('drawn')",
    "figures after the value": """
        import matplotlib.pyplot as plt
        print(1)
        plt.plot([1, 2])
        fig, ax = plt.subplots()
        ax.set_title('t')""",
    "figures shown by hand": """
        import matplotlib.pyplot as plt
        plt.plot([1]); plt.show(); print('after')
        plt.plot([2]); plt.show()""",
    "help": "len?",
    "nothing": "quiet = 1",
    "a semicolon": "print('only this')\n1;",
    "captured within": """
        from IPython.utils.capture import capture_output
        with capture_output() as c:
            print('hidden'); display('hidden')
        print('shown')""",
    "redirected": """
        import contextlib, io
        with contextlib.redirect_stdout(io.StringIO()):
            print('hidden')
        print('shown')""",
    "a magic": "%precision 3\n3.14159",
    "time": "%%capture\nprint('hidden')",
}


@pytest.mark.parametrize("cell", [textwrap.dedent(cell) for cell in CELLS.values()], ids=CELLS)
def test_a_cell_shows_what_it_shows_without_us_and_again_when_replayed(shared: Kernel, cell: str) -> None:
    cell = cell.lstrip("\n")
    plain = shared.run(cell)
    taken = shared.run("%%prefect_cache\n" + cell)
    again = shared.run("%again")
    if cell.endswith(";") and not cell.endswith("]);"):
        # The magic in this test knows nothing of semicolons.
        plain.outputs += [o for o in taken.outputs if o["output_type"] == "execute_result"]
    assert outputs(taken) == outputs(plain)
    assert outputs(again) == outputs(taken)
    assert again.status == "ok"


def test_a_replay_sends_the_same_messages_that_a_quick_run_sends(tape: Kernel) -> None:
    cell = "print('a')\ndisplay(1)\nprint('b')\n'value'"
    taken, again = tape.run("%%prefect_cache\n" + cell), tape.run("%again")
    kinds = [kind for kind, _ in taken.messages if kind not in ("status", "execute_input")]
    assert kinds == ["stream", "display_data", "stream", "execute_result"]
    assert kinds == [kind for kind, _ in again.messages if kind not in ("status", "execute_input")]


def test_the_result_is_the_cells_own(tape: Kernel) -> None:
    """``Out[n]``, ``_`` and the execution count are as without us, both times."""
    taken = tape.run("%%prefect_cache\nbox = ['v']\nbox")
    assert tape.value(f"Out[{taken.count}] is box and _ is box")
    again = tape.run("%again")
    result = next(o for o in again.outputs if o["output_type"] == "execute_result")
    assert result["execution_count"] == again.count
    assert tape.value(f"Out[{again.count}] is box and _ is box")


def test_the_value_is_formatted_once_and_after_the_run(tape: Kernel) -> None:
    tape.run(
        "class Counted:\n    n = 0\n    def __repr__(self):\n        Counted.n += 1\n        return f'state {self.s}'"
    )
    ran = tape.run("%%prefect_cache\nc = Counted()\nc.s = 'after the run'\nc")
    assert ran.result == "state after the run"
    assert tape.value("Counted.n") == 1
    tape.run("c.s = 'changed since'")
    assert tape.run("%again").result == "state after the run"
    assert tape.value("Counted.n") == 1


def test_output_comes_while_the_cell_runs(tape: Kernel) -> None:
    """A cell that waits for a sign has shown its first line before the sign is given."""
    request = tape.submit(
        "%%prefect_cache\nimport pathlib, time\nprint('working')\n"
        "while not pathlib.Path('go').exists():\n    time.sleep(0.01)\nprint('done')"
    )
    tape.watch(request, lambda ran: ran.stdout == "working\n")
    (tape.cwd / "go").touch()
    assert tape.collect(request).stdout == "done\n"


def test_neighbouring_texts_of_one_stream_are_one(tape: Kernel) -> None:
    tape.run("%%prefect_cache\nfor i in range(1000): print(i)")
    assert [item["output_type"] for item in record(tape)] == ["stream"]


def test_a_display_keeps_its_id(tape: Kernel) -> None:
    """A later cell updates what a replay has shown."""
    tape.run("%%prefect_cache\nh = display('first', display_id=True)")
    again = tape.run("%again")
    identity = tape.value("h.display_id")
    assert again.outputs[0]["transient"] == {"display_id": identity}


def test_pictures_that_were_cleared_are_not_kept(tape: Kernel) -> None:
    tape.run(
        "%%prefect_cache\nfrom IPython.display import clear_output\n"
        "for i in range(100):\n    clear_output(wait=True)\n    display(i)"
    )
    assert [item["output_type"] for item in record(tape)] == ["clear_output", "display_data"]


def test_a_widget_is_replayed_alive_while_it_lives_and_as_text_after(tape: Kernel) -> None:
    tape.run("import ipywidgets")
    tape.run("%%prefect_cache\nbar = ipywidgets.IntProgress(max=3)\ndisplay(bar)\nbar.value = 3")
    view = "application/vnd.jupyter.widget-view+json"
    assert view in tape.run("%again").displays[0]
    tape.run("bar.close()")
    dead = tape.run("%again").displays[0]
    assert view not in dead
    assert dead["text/plain"] == "IntProgress(value=3, max=3)"


def test_a_notebook_bar_of_tqdm_is_replayed_in_its_last_state(tape: Kernel) -> None:
    tape.run("%%prefect_cache\nfrom tqdm.notebook import tqdm\nfor _ in tqdm(range(5)): pass")
    shown = [item for item in record(tape) if item["output_type"] == "display_data"]
    assert "5/5" in shown[0]["data"]["text/plain"]


def test_a_cell_that_raises_leaves_everything_as_it_was(tape: Kernel) -> None:
    state = "(_shell.display_pub.publish, _shell.payload_manager.write_payload, sys.displayhook)"
    tape.run(f"import sys\nbefore = {state}")
    assert tape.run("%%prefect_cache\nprint('half')\n1/0", check=False).error
    assert tape.run(f"before == {state}").result == "True"
    assert record(tape) == [stream("half\n")]
    tape.run("print('after')\ndisplay('after')")
    assert record(tape) == [stream("half\n")]


def test_a_question_to_the_user_is_noticed(tape: Kernel) -> None:
    ran = tape.run("%%prefect_cache\ntry:\n    input('?')\nexcept Exception as error:\n    print(type(error).__name__)")
    assert ran.stdout == "StdinNotImplementedError\n"
    assert tape.value("get_ipython().recorder.taints") == ("the cell asks a question with input()",)


def test_every_expression_is_shown_where_the_user_wants_it(tape: Kernel) -> None:
    """``ast_node_interactivity = "all"``."""
    tape.run("_shell.ast_node_interactivity = 'all'")
    cell = "1 + 1\nprint('x')\n'two'\n"
    plain, taken, again = tape.run(cell), tape.run("%%prefect_cache\n" + cell), tape.run("%again")
    assert outputs(taken) == outputs(plain)
    assert outputs(again) == outputs(taken)


TERMINAL = """
import sys
from IPython.terminal.interactiveshell import TerminalInteractiveShell
shell = TerminalInteractiveShell.instance(colors="nocolor")
shell.system_piped = lambda cmd: print("through a pipe:", cmd)  # no terminal here for a pseudo-terminal
shell.run_cell(sys.argv[1])
def run(cell):
    print("---", flush=True)
    shell.run_cell(cell, store_history=True)
run(sys.argv[2])
run("%%prefect_cache\\n" + sys.argv[2])
run("%again")
"""


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("print('x')\n1 + 1", "x\nOut[N]: 2\n"),
        ("import sys\nsys.stdout.buffer.write(b'bytes\\n')\nNone", "bytes\n"),
        ("display([1, 2])\nprint('y')", "[1, 2]\ny\n"),
        ("h = display('a', display_id=True)\nh.update('b')", "'a'\n'b'\n"),
    ],
)
def test_a_terminal_shows_the_same_as_text(cell: str, shown: str) -> None:
    done = subprocess.run([sys.executable, "-c", TERMINAL, TAPE, cell], capture_output=True, text=True, check=True)
    plain, taken, again = done.stdout.split("---\n")[1:]
    numbered = [text.replace(f"Out[{n}]", "Out[N]").rstrip("\n") for n, text in enumerate((plain, taken, again), 1)]
    assert numbered == [shown.rstrip("\n")] * 3


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text}


def display(text: str, identity: str | None = None, *, update: bool = False) -> dict[str, Any]:
    return {
        "output_type": "update_display_data" if update else "display_data",
        "data": {"text/plain": text},
        "metadata": {},
        "transient": {} if identity is None else {"display_id": identity},
    }


def clear(*, wait: bool) -> dict[str, Any]:
    return {"output_type": "clear_output", "wait": wait}


@pytest.mark.parametrize(
    ("shown", "left"),
    [
        ([], []),
        ([stream("a"), stream("b", "stderr")], [stream("a"), stream("b", "stderr")]),
        ([stream("a"), clear(wait=False), stream("b")], [clear(wait=False), stream("b")]),
        ([stream("a"), clear(wait=True)], [stream("a"), clear(wait=True)]),
        ([stream("a"), clear(wait=True), stream("b")], [clear(wait=True), stream("b")]),
        (
            [display("a", "1"), stream("x"), display("b", "1", update=True), stream("y")],
            [display("b", "1"), stream("xy")],
        ),
        ([display("a", "1"), clear(wait=False), display("b", "1", update=True)], [clear(wait=False)]),
        ([display("b", "elsewhere", update=True)], [display("b", "elsewhere", update=True)]),
    ],
)
def test_what_is_left_of_a_record_is_what_is_visible(shown: list[dict[str, Any]], left: list[dict[str, Any]]) -> None:
    assert visible(shown) == left


def test_a_restored_figure_is_drawn_by_the_cell_that_shows_it(kernel: Kernel) -> None:
    """A backend registers how figures are shown when the first one is drawn, which a hit does not do."""
    shown = []
    for _ in range(2):
        kernel.run("%load_ext prefect_cache\nimport matplotlib.pyplot as plt")
        kernel.run("%%prefect_cache\nfig, ax = plt.subplots(figsize=(1, 1))\nax.plot([1, 2])\nplt.close(fig)")
        ran = kernel.run("ax.set_title('later')\nfig")
        shown += [output["data"] for output in ran.outputs if output["output_type"] == "execute_result"]
        status = kernel.value("__import__('prefect_cache').last.status")
        kernel.restart()
    assert status == "hit"
    assert "image/png" in shown[0]
    assert shown[0] == shown[1]
