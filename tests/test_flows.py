"""A notebook written as a Prefect flow: what the text is, and that it computes and restores what the notebook did."""

from __future__ import annotations

import ast
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from prefect_cache.errors import UsageProblem
from prefect_cache.flows import Step, write
from prefect_cache.model import Options

if TYPE_CHECKING:
    from pathlib import Path

    from kernels import Kernel


def written(*steps: Step) -> str:
    text = write(steps, title="orders", transform=str)
    ast.parse(text)
    return text


CACHED = Options()


def test_cells_become_tasks_with_the_inputs_and_outputs_that_they_have() -> None:
    text = written(
        Step("import math\nlimit = 3"),
        Step("def grow(x):\n    return x + limit"),
        Step("raw = [1, 2, 3]  # from the source\nunused = 0", Options(name="raw data", retries=2, retry_delay=1.0)),
        Step("total = sum(map(grow, raw))\ntotal", CACHED),
        Step("total"),
    )
    assert text == (
        '"""orders, as a Prefect flow."""\n\n'
        "from prefect import flow\n\nimport prefect_cache\n\n"
        "import math\nlimit = 3\n\n"
        "def grow(x):\n    return x + limit\n\n\n"
        "@prefect_cache.cell(name='raw data', retries=2, retry_delay_seconds=1.0)\n"
        "def make_raw_data():\n    raw = [1, 2, 3]  # from the source\n    unused = 0\n\n    return raw\n\n\n"
        "@prefect_cache.cell\n"
        "def make_total(raw):\n    total = sum(map(grow, raw))\n    total\n\n    return total\n\n\n"
        "@flow(name='orders')\ndef notebook():\n"
        "    raw = make_raw_data()\n    total = make_total(raw)\n    return total\n\n\n"
        'if __name__ == "__main__":\n    notebook()\n'
    )


def test_a_plain_cell_that_needs_a_task_stands_in_the_flow() -> None:
    text = written(Step("a = 1", CACHED), Step("b = a + 1"), Step("c = b * 2", CACHED))
    assert "def notebook():\n    a = make_a()\n    b = a + 1\n    c = make_c(b)\n    return c" in text


def test_a_helper_that_reads_what_a_task_makes_finds_it() -> None:
    text = written(Step("rate = 2", CACHED), Step("def f(x):\n    return x * rate"), Step("y = f(3)", CACHED))
    assert "    global rate  # helpers read them\n    rate = make_rate()\n    y = make_y()\n" in text


def test_strings_of_several_lines_keep_their_lines() -> None:
    text = written(Step('query = """\nselect *\n  from t\n"""', CACHED))
    assert '    query = """\nselect *\n  from t\n"""' in text


def test_without_cached_cells_there_is_nothing_to_write() -> None:
    with pytest.raises(UsageProblem, match="nothing to export"):
        written(Step("a = 1"))


NOTEBOOK = (
    "import pandas as pd\nfactor = 2",
    "def scaled(frame):\n    return frame.assign(price=frame.price * factor)",
    "%%prefect_cache raw\nimport time\nframe = pd.DataFrame({'price': [1.0, 2.0]})\nread_at = time.time_ns()",
    "frame.head()",
    "%%prefect_cache\nbig = scaled(frame)\nscaled_at = time.time_ns()\nbig",
    "share = 0.5",
    "%%prefect_cache --retries 1\nresult = big.price.sum() * share, read_at, scaled_at, time.time_ns()\nresult",
)

STEP_BY_STEP = """
import runpy
from prefect import Task
Task.__call__ = lambda task, *args, **more: task.fn(*args, **more)
runpy.run_path("pipeline.py", run_name="__main__")
"""
"""Runs the script's tasks one after the other without an engine: what is tested is the script, not Prefect."""


def answer_of(script: Path) -> str:
    """Return what the script's flow returns."""
    text = script.read_text()
    script.write_text(text.replace("    notebook()\n", "    print(notebook.fn())\n"))
    done = subprocess.run(
        [sys.executable, "-c", STEP_BY_STEP], cwd=script.parent, capture_output=True, text=True, check=False
    )
    script.write_text(text)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_script_restores_what_the_notebook_ran(kernel: Kernel, tmp_path: Path) -> None:
    kernel.run("%load_ext prefect_cache")
    for cell in NOTEBOOK:
        kernel.run(cell)
    assert "wrote pipeline.py" in kernel.run("%prefect_cache export pipeline.py").stdout
    assert answer_of(tmp_path / "pipeline.py") == str(kernel.value("result"))


def test_the_script_runs_what_has_changed(kernel: Kernel, tmp_path: Path) -> None:
    kernel.run("%load_ext prefect_cache")
    for cell in NOTEBOOK:
        kernel.run(cell)
    kernel.run("%prefect_cache export pipeline.py")
    script = tmp_path / "pipeline.py"
    script.write_text(script.read_text().replace("factor = 2", "factor = 4"))
    total, read_at, scaled_at, _ = eval(answer_of(script), {"np": np})
    then = kernel.value("result")
    assert (total, read_at) == (2 * float(then[0]), then[1])
    assert scaled_at > then[2]


def test_a_file_that_cannot_be_written_is_said(kernel: Kernel) -> None:
    kernel.run("%load_ext prefect_cache")
    kernel.run("%%prefect_cache\na = 1")
    ran = kernel.run("%prefect_cache export nowhere/pipeline.py", check=False)
    assert "UsageError: nowhere/pipeline.py cannot be written" in ran.stderr
