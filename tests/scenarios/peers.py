"""The same scenarios with other caches: ``python tests/scenarios/peers.py`` where they are installed.

    uv venv peers && uv pip install -p peers marimo joblib pandas polars pyarrow duckdb scikit-learn matplotlib ipython
    uv pip install -p peers --no-deps ipycache
    peers/bin/python tests/scenarios/peers.py

Each peer gets a cell as its users would write it: joblib a function of the variables that the cell reads,
which returns those that it binds; marimo a ``with mo.persistent_cache(...)`` block behind the cells before
it; ipycache a file for the cell and the list of what the cell binds. What comes of each name is compared with a
plain run, one name at a time (whether two names are one object is not asked of the peers). Left out are scenarios
about displays, options, errors and IPython's own syntax, and those that a peer cannot run at all.

ipycache's release on PyPI (0.1.4) was written for Python 2 and IPython 1: it gets the modules that it imports under
their names of then, and nothing else of it is changed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib.metadata
import importlib.util
import io
import os
import pickle
import sys
import tempfile
import textwrap
import traceback
import types
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "fuzz")]

from snapshot import namespace as snapshot_of  # noqa: E402 - the folders above are put on the path first
from story import AREAS, Step, Story, stories  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Names = dict[str, Any]


class Peer(Protocol):
    """One way to run a cell that is cached."""

    name: str

    def run(self, step: Step, before: Sequence[Step], names: Names, folder: Path) -> bool:
        """Run the step's cell, in `names`; tell whether it was spared."""


class Plain:
    """No cache at all."""

    name = "plain"

    def run(self, step: Step, before: Sequence[Step], names: Names, folder: Path) -> bool:
        exec(compile(step.body, "<cell>", "exec"), names)
        return False


class Joblib:
    """``joblib.Memory``."""

    name = "joblib"

    def run(self, step: Step, before: Sequence[Step], names: Names, folder: Path) -> bool:
        from joblib import Memory

        reads, writes = _names_of(step.body, names)
        body = textwrap.indent(step.body, "    ")
        result = f"    return {{k: v for k, v in locals().items() if k in {sorted(writes)}}}"
        source = f"def cell({', '.join(sorted(reads))}):\n    RAN.append(1)\n{body}\n{result}\n"
        file = folder / f"cell_{'_'.join(sorted(writes))[:60]}.py"
        file.write_text(source)
        names["RAN"] = ran = []
        exec(compile(source, str(file), "exec"), names)
        found = Memory(folder / "joblib", verbose=0).cache(names.pop("cell"))(**{name: names[name] for name in reads})
        del names["RAN"]
        names.update(found)
        return not ran


class Marimo:
    """``marimo.persistent_cache``."""

    name = "marimo"

    def run(self, step: Step, before: Sequence[Step], names: Names, folder: Path) -> bool:
        ran = folder / "ran"
        ran.unlink(missing_ok=True)
        earlier = "\n".join(step.body for step in before if step.verb == "cell")
        block = f"with mo.persistent_cache('cell', save_path={str(folder / 'marimo')!r}):\n" + textwrap.indent(
            f"open({str(ran)!r}, 'w').close()\n{step.body}", "    "
        )
        cells = ["import marimo as mo", *([earlier] if earlier else []), block]
        text = "import marimo\napp = marimo.App()\n" + "".join(
            f"\n@app.cell\ndef _():\n{textwrap.indent(cell, '    ')}\n    return\n" for cell in cells
        )
        file = folder / "notebook.py"
        file.write_text(text)
        spec = importlib.util.spec_from_file_location("notebook", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        _, found = module.app.run()
        names.update({name: value for name, value in found.items() if name != "mo"})
        return not ran.exists()


class Ipycache:
    """``%%cache FILE name ...`` of ipycache, without the shell around it."""

    name = "ipycache"

    def run(self, step: Step, before: Sequence[Step], names: Names, folder: Path) -> bool:
        _, writes = _names_of(step.body, names)
        ran: list[str] = []

        def run_cell(source: str) -> None:
            ran.append(source)
            exec(compile(source, "<cell>", "exec"), names)

        tree = ast.parse(step.body)
        imported = {
            (a.asname or a.name).partition(".")[0]
            for n in ast.walk(tree)
            for a in getattr(n, "names", [])
            if isinstance(a, ast.alias)
        }
        gone = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Del)}
        inner = {
            node.id
            for one in ast.walk(tree)
            if isinstance(one, ast.comprehension)
            for node in ast.walk(one.target)
            if isinstance(node, ast.Name)
        }
        listed = sorted((writes - imported - gone - inner) | (inner & names.keys()))
        _ipycache().cache(
            step.body,
            str(folder / f"{'_'.join(listed)[:60]}.pkl"),
            vars=listed,
            ip_user_ns=names,
            ip_run_cell=run_cell,
            ip_push=names.update,
            verbose=False,
        )
        return not ran


def _ipycache() -> types.ModuleType:
    """Return ipycache's module, which finds under the names of Python 2 and IPython 1 what it imports."""
    import builtins

    import IPython.utils.capture
    import IPython.utils.io
    import traitlets.config

    IPython.utils.io.capture_output = IPython.utils.capture.capture_output
    IPython.utils.io.CapturedIO = IPython.utils.capture.CapturedIO
    sys.modules.setdefault("cPickle", pickle)
    for old in ("IPython.config", "IPython.config.configurable", "IPython.utils.traitlets"):
        sys.modules.setdefault(old, traitlets.config if "config" in old else traitlets)
    builtins.moves = types.SimpleNamespace(builtins=builtins)
    return importlib.import_module("ipycache")


def _is_data(value: object) -> bool:
    """Tell whether a value is one to compare: functions and classes made inside a function have other names."""
    return not isinstance(value, types.ModuleType | types.FunctionType | type)


def _names_of(source: str, names: Names) -> tuple[set[str], set[str]]:
    """Return the data that a cell reads, and what it binds, as a person would list them."""
    tree = ast.parse(source)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    data = {name for name in used & names.keys() if _is_data(names[name])}
    probe: Names = {}
    module = ast.Module([*tree.body], [])
    for node in ast.walk(module):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            probe[node.id] = 1
        elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            probe[node.name] = 1
        elif isinstance(node, ast.alias):
            probe[(node.asname or node.name).partition(".")[0]] = 1
    return {name for name in data if not name.startswith("__")}, {*probe, *data}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a cached cell left behind."""

    names: dict[str, object]
    spared: bool
    error: str = ""


def applies(story: Story) -> bool:
    """Tell whether a scenario asks what a cache without IPython could answer."""
    sources = [step.body for step in story.steps if step.cached or step.verb == "cell"]
    plain = all(
        step.verb in {"cell", "hit", "miss", "write", "remove", "restart"} and not step.cached * step.words
        for step in story.steps
    )
    return plain and not story.chance and story.area != "display" and all(map(_is_python, sources))


def _is_python(source: str) -> bool:
    try:
        compile(source, "<cell>", "exec")
    except SyntaxError:
        return False
    return "_ " not in source and "get_ipython" not in source


def live(story: Story, peer: Peer) -> list[Seen]:
    """Play a scenario with one peer; a list of what each cached cell left behind."""
    with tempfile.TemporaryDirectory(prefix="peers-") as root:
        home, folder = Path(root, "notebook"), Path(root, "cache")
        home.mkdir()
        folder.mkdir()
        seen: list[Seen] = []
        for steps in _lives(story.steps):
            seen += _in_a_process(peer, steps, home, folder)
        return seen


def _lives(steps: Sequence[Step]) -> Iterator[list[Step]]:
    life: list[Step] = []
    for step in steps:
        if step.verb == "restart":
            yield life
            life = []
        else:
            life.append(step)
    yield life


def _in_a_process(peer: Peer, steps: list[Step], home: Path, folder: Path) -> list[Seen]:
    ours, theirs = os.pipe()
    if (pid := os.fork()) == 0:
        os.close(ours)
        try:
            with os.fdopen(theirs, "wb") as pipe:
                # As plain tuples: this process's __main__ has become the notebook.
                pickle.dump([(seen.names, seen.spared, seen.error) for seen in _act(peer, steps, home, folder)], pipe)
        finally:
            os._exit(0)  # whatever a cell raised: this process plays no more
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    return [Seen(*told) for told in pickle.loads(data)] if data else [Seen({}, spared=False, error="the process ended")]


def _act(peer: Peer, steps: list[Step], home: Path, folder: Path) -> Iterator[Seen]:
    os.chdir(home)
    sys.path.insert(0, "")
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    names = main.__dict__
    for number, step in enumerate(steps):
        if step.verb == "write":
            (home / step.words).parent.mkdir(parents=True, exist_ok=True)
            (home / step.words).write_text(step.body + "\n")
        elif step.verb == "remove":
            (home / step.words).unlink(missing_ok=True)
        elif step.verb == "cell":
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(step.body, "<cell>", "exec"), names)
        else:
            yield _cached(peer, step, steps[:number], names, folder)


def _cached(peer: Peer, step: Step, before: Sequence[Step], names: Names, folder: Path) -> Seen:
    quiet = io.StringIO()
    try:
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spared = peer.run(step, before, names, folder)
    except BaseException as error:
        return Seen({}, spared=False, error=f"{type(error).__name__}: {error}"[:200])
    shown = {name: value for name, value in names.items() if not name.startswith("_") and _is_data(value)}
    return Seen({name: snapshot_of({name: value})[name] for name, value in shown.items()}, spared)


@dataclass(slots=True)
class Tally:
    """How one peer did."""

    played: int = 0
    right: int = 0
    wrong: int = 0
    cannot: int = 0
    spared: int = 0
    to_spare: int = 0

    def take(self, story: Story, plain: list[Seen], found: list[Seen]) -> str:
        """Count one scenario; return what happened."""
        self.played += 1
        verbs = [step.verb for step in story.steps if step.cached]
        if len(found) != len(plain) or any(seen.error for seen in found):
            self.cannot += 1
            return "cannot: " + next((seen.error for seen in found if seen.error), "")
        self.to_spare += verbs.count("hit")
        self.spared += sum(seen.spared for seen, verb in zip(found, verbs, strict=True) if verb == "hit")
        for i, (one, other) in enumerate(zip(plain, found, strict=True)):
            differing = [name for name in one.names if one.names[name] != other.names.get(name)]
            if differing:
                self.wrong += 1
                return f"wrong at cached cell {i}: {', '.join(differing)}"
        self.right += 1
        return "right"


def main() -> int:
    """Play all with each peer and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="scenarios with these words in area and title")
    parser.add_argument("--every", type=int, default=1, help="play one scenario in so many (all take half an hour)")
    parser.add_argument("--verbose", action="store_true", help="say of each scenario what happened")
    options = parser.parse_args()
    for module in ("numpy", "pandas", "pyarrow.parquet", "joblib", "marimo"):
        importlib.import_module(module)
    _ipycache()
    peers: list[Peer] = [Marimo(), Joblib(), Ipycache()]
    tallies = {peer.name: Tally() for peer in peers}
    applying = [story for story in stories() if options.only in story.id and applies(story)]
    chosen = applying[:: options.every]
    for story in chosen:
        plain = live(story, Plain())
        for peer in peers:
            try:
                said = tallies[peer.name].take(story, plain, live(story, peer))
            except Exception:
                said = traceback.format_exc()
            if options.verbose:
                print(f"{peer.name:8} {story.id}: {said}", flush=True)
    print(_table(tallies, len(chosen), len(applying)))
    return 0


def _table(tallies: dict[str, Tally], played: int, applying: int) -> str:
    areas = ", ".join(area for area in AREAS if area != "display")
    lines = [
        f"{applying} of {len(stories())} scenarios apply ({areas}); played: {played}",
        "",
        "| cache | right | wrong result | cannot run | spared of the runs that could be |",
        "| --- | --: | --: | --: | --: |",
    ]
    for name, tally in tallies.items():
        version = importlib.metadata.version(name)
        lines.append(
            f"| {name} {version} | {tally.right} | {tally.wrong} | {tally.cannot}"
            f" | {tally.spared} of {tally.to_spare} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
