"""The house keeps its promises: what it needs is declared, what it commits is everybody's, what it imports is light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "extension" / "prefect_cache"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ONLY_IF_THERE = {
    "polars",
    "duckdb",
    "matplotlib",
    "matplotlib_inline",
    "ipykernel",
    "comm",
    "scipy",
    "sklearn",
    "prefect_dask",
    "pyodide",
}
"""What is used only where the user has it, or where what we require brings it."""

BROUGHT = {
    "traitlets": "ipython",
    "httpx": "prefect",
    "pydantic": "prefect",
    "rich": "prefect",
    "fsspec": "prefect",
    "greenlet": "sqlalchemy",
}
"""What a requirement of ours requires itself and speaks in (and SQLAlchemy's asyncio is one of Prefect's)."""


def declared() -> set[str]:
    """Return the modules that the run-time dependencies bring by their own names."""
    return {re.split(r"[<>=\[ ]", requirement)[0].lower().replace("-", "_") for requirement in PROJECT["dependencies"]}


def imported(file: Path) -> set[str]:
    """Return the top-level modules that a file imports, anywhere in it, but for type checkers alone."""
    found = set()
    for node in ast.walk(_without_type_checking(ast.parse(file.read_text()))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").partition(".")[0])
    return found


def _without_type_checking(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    return tree


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_a_file_imports_is_declared(file: Path) -> None:
    """Nothing comes by luck, because something else brought it."""
    foreign = imported(file) - set(sys.stdlib_module_names) - {"prefect_cache"}
    assert {name.lower() for name in foreign} - declared() - ONLY_IF_THERE - set(BROUGHT) == set()


@pytest.mark.parametrize(("module", "by"), BROUGHT.items())
def test_what_others_bring_is_required_by_them(module: str, by: str) -> None:
    """If they stop requiring it, we have to."""
    assert module in {re.split(r"[^\w-]", requirement)[0].lower() for requirement in requires(by) or ()}


@pytest.mark.parametrize(
    "module", ["prefect_cache", "prefect_cache.cli", "prefect_cache.magics", "prefect_cache.session"]
)
def test_importing_is_light(module: str) -> None:
    """Neither pandas nor Arrow nor Prefect are loaded before something needs them."""
    heavy = ["pandas", "pyarrow", "numpy", "prefect", "polars", "ipywidgets"]
    program = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert printed.stdout == "[]\n"


def committed() -> list[Path]:
    """Return every text file that git holds."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    files = [ROOT / name for name in listed.splitlines()]
    return [file for file in files if file.is_file() and file.suffix not in {".png", ".arrow", ".gz", ".bin"}]


def test_nothing_names_this_machine_or_a_registry() -> None:
    """What is committed is the same to everybody: no paths of one machine, no hosts to install from."""
    # Spelled in halves, so that this file does not name them either.
    foreign = re.compile(
        "|".join(
            ["py" + "pi.org", "/wo" + "rk/", "pythonhosted" + ".org", "npmjs" + ".(com|org)", "deb.debian" + ".org"]
        )
    )
    named = {
        str(file.relative_to(ROOT)): match.group()
        for file in committed()
        if (match := foreign.search(file.read_text(errors="replace")))
    }
    assert named == {}


def test_the_tests_command_and_the_notebooks_command_are_in_the_readme() -> None:
    """The first block of commands in the README is the set-up: two commands, each a file that can be run."""
    block = re.search(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    commands = [line.partition("#")[0].split() for line in block.group(1).splitlines()]
    assert commands == [["bash", "notebooks/run"], ["bash", "tests/run"]]
    assert all((ROOT / command[1]).is_file() for command in commands)
