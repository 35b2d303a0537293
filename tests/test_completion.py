"""Tab on our lines, asked for as JupyterLab asks: of a real shell's completer, among all else that it knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def shell() -> Iterator[InteractiveShell]:
    """A shell with the extension, a few names, and an empty store."""
    shell = InteractiveShell(config=Config(HistoryManager={"hist_file": ":memory:"}))
    shell.run_line_magic("load_ext", "prefect_cache")
    shell.push({"orders": 1, "order_lines": 2, "weather": 3})
    yield shell
    shell.run_line_magic("unload_ext", "prefect_cache")


def complete(shell: InteractiveShell, text: str, at: int | None = None) -> set[str]:
    """Return the lines that Tab offers at the end of `text` (or at `at`), whole."""
    at = len(text) if at is None else at
    with provisionalcompleter():
        return {text[: c.start] + c.text for c in shell.Completer.completions(text, at)}


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("%%prefect_cache --re", {"--refresh", "--retries", "--retry-delay"}),
        ("%%prefect_cache --refresh --re", {"--retries", "--retry-delay"}),
        ("%%prefect_cache name --tt", {"--ttl"}),
        ("%%prefect_cache -i ord", {"orders", "order_lines"}),
        ("%%prefect_cache --ignore weather,ord", {"weather,orders", "weather,order_lines"}),
        ("%prefect_cache sh", {"show"}),
        ("%prefect_cache un", {"undo", "unpin"}),
        ("%prefect_cache prune --", {"--help", "--dry-run", "--max-age", "--max-size", "--storage"}),
        ("%prefect_cache auto o", {"on", "off"}),
        ("%prefect_cache ls --sort si", {"size"}),
        ("%prefect_cache r", {"rm"}),
    ],
)
def test_tab_offers_what_fits_and_nothing_else(shell: InteractiveShell, line: str, offered: set[str]) -> None:
    start = line[: line.rindex(" ") + 1]
    assert complete(shell, line) == {start + word for word in offered}


def test_outputs_are_the_names_that_the_cell_binds(shell: InteractiveShell) -> None:
    cell = "%%prefect_cache -o \ntotals = orders.sum()\n%time x = 1\nfor day in totals: pass\ndef clean(): pass\n"
    offered = complete(shell, cell, at=cell.index("\n"))
    assert {"%%prefect_cache -o totals", "%%prefect_cache -o day", "%%prefect_cache -o clean"} <= offered


def test_the_cells_body_is_completed_as_ever(shell: InteractiveShell) -> None:
    assert "orders" in {line.rpartition(" ")[2] for line in complete(shell, "%%prefect_cache x\ny = orde")} | {
        line.splitlines()[-1].removeprefix("y = ") for line in complete(shell, "%%prefect_cache x\ny = orde")
    }


def test_other_magics_are_left_alone(shell: InteractiveShell) -> None:
    assert not any("--refresh" in line for line in complete(shell, "%timeit --re"))
