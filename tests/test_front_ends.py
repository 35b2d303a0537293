"""The front ends that no browser is needed for: papermill, VS Code's kernel, IPython in a terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import nbformat
import pexpect
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kernels import Kernel

CELLS = ("%load_ext prefect_cache", "n = 3", "%%prefect_cache squares\nsquares = [i * i for i in range(n)]\nsquares")


class TestPapermill:
    def execute(self, folder: Path, name: str, *parameters: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "papermill", "book.ipynb", name, "--no-progress-bar", *parameters]
        return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)

    def write(self, folder: Path, *cells: str) -> None:
        made = [nbformat.v4.new_code_cell(cell) for cell in cells]
        made[1].metadata["tags"] = ["parameters"]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=made, metadata=kernel), folder / "book.ipynb")

    def last_outputs(self, path: Path) -> list[str]:
        outputs = nbformat.read(path, as_version=4).cells[-1].outputs
        return [output["data"]["text/plain"] for output in outputs if "data" in output]

    def test_a_second_run_restores_and_another_parameter_runs(self, tmp_path: Path) -> None:
        self.write(tmp_path, *CELLS)
        for name, parameters, expected in (
            ("first.ipynb", (), "ran in "),
            ("second.ipynb", (), "restored squares"),
            ("third.ipynb", ("-p", "n", "2"), "missed because n changed"),
        ):
            ran = self.execute(tmp_path, name, *parameters)
            assert ran.returncode == 0, ran.stderr[-3000:]
            value, status = self.last_outputs(tmp_path / name)
            assert expected in status
            assert value == ("[0, 1]" if parameters else "[0, 1, 4]")

    def test_a_cell_that_raises_ends_the_run(self, tmp_path: Path) -> None:
        self.write(tmp_path, *CELLS[:2], "%%prefect_cache\nratio = n / 0", "after = 1")
        ran = self.execute(tmp_path, "out.ipynb")
        assert ran.returncode != 0
        assert "ZeroDivisionError" in ran.stderr
        assert nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1].execution_count is None


def test_vs_code_names_the_notebook_in_a_variable(kernel: Kernel) -> None:
    """Its kernels have no session's name in the environment; the entry knows its notebook all the same."""
    kernel.run("%load_ext prefect_cache")
    kernel.run("__vsc_ipynb_file__ = '/home/me/etl.ipynb'")
    kernel.run("%%prefect_cache\nx = 1")
    assert kernel.value("__import__('prefect_cache').last.outcome.entry.manifest.run.notebook") == "/home/me/etl.ipynb"
    shown = kernel.run("%%prefect_cache\nx = 1").displays
    assert [bundle["text/plain"].startswith("restored x") for bundle in shown] == [True]


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[pexpect.spawn[str]]:
    """IPython in a terminal of its own, as a person starts it, with Prefect's reports not switched off."""
    passed = {name: value for name, value in os.environ.items() if name not in {"DO_NOT_TRACK", "CI"}}
    env = {**passed, "TERM": "dumb", "PREFECT_HOME": str(tmp_path / "prefect"), "IPYTHONDIR": str(tmp_path / "ipython")}
    command = ["-m", "IPython", "--no-banner", "--no-confirm-exit", "--colors=NoColor", "--simple-prompt"]
    shell = pexpect.spawn(sys.executable, command, env=env, cwd=tmp_path, encoding="utf-8", timeout=120, echo=False)
    yield shell
    shell.close(force=True)


class TestTerminal:
    def cell(self, terminal: pexpect.spawn[str], *lines: str) -> str:
        """Type a cell, and return what was printed up to the next prompt."""
        terminal.expect(r"In \[\d+\]: ")
        for line in lines:
            terminal.sendline(line)
        terminal.sendline("print('the' + ' end')")
        terminal.expect("the end")
        return str(terminal.before)

    def test_status_lines_and_answers_are_plain_text(self, terminal: pexpect.spawn[str], tmp_path: Path) -> None:
        self.cell(terminal, "%load_ext prefect_cache", "rate = 3")
        run = "get_ipython().run_cell_magic('prefect_cache', 'total', 'total = 2 * rate')"
        said = self.cell(terminal, run)
        assert re.search(r"^.*ran in .*, stored 1 output; missed because this cell has not run", said, re.MULTILINE)
        assert "restored total in " in self.cell(terminal, run)
        said = self.cell(terminal, "rate = 4", run, "%prefect_cache why", "%prefect_cache list")
        assert "missed because rate changed" in said
        assert "rate: 3 -> 4" in said
        assert re.search(r"Key +Name +Outputs", said)
        assert "<" not in said
        assert "usage data" not in said
        assert not (tmp_path / "prefect" / ".sdk_telemetry").exists()

    def drawn(self, text: str) -> str:
        """Return a pattern for a text that the terminal may draw in pieces, with control sequences between them."""
        return r"(?:\x1b\[[?\d;]*[A-Za-z])*".join(map(re.escape, text))

    def test_tab_completes(self, tmp_path: Path) -> None:
        command = ["-m", "IPython", "--no-banner", "--no-confirm-exit", "--colors=NoColor"]
        env = {**os.environ, "TERM": "xterm", "IPYTHONDIR": str(tmp_path)}
        shell = pexpect.spawn(sys.executable, command, env=env, encoding="utf-8", timeout=120, dimensions=(40, 120))
        try:
            shell.expect("In ")
            shell.send("%load_ext prefect_cache\r")
            shell.expect("In .*2")
            shell.send("%prefect_cache sh\t")
            shell.expect(self.drawn("show"))
            shell.send(" --he\t")
            shell.expect(self.drawn("--help"))
        finally:
            shell.close(force=True)
