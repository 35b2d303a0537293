"""Play many random notebooks, each lived in a plain and in a cached notebook.

::

    python tests/fuzz/run.py --notebooks 2000 [--seed 0] [--seconds 3600] [--workers 2]
    python tests/fuzz/run.py --replay tests/fuzz/found/*.txt

Each difference is shrunk and written to ``tests/fuzz/found/``, where the tests replay it from then on. The last lines
are the figures; the exit code is 1 where anything was found.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import gc
import importlib
import io
import os
import random
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import grammar
import shrink
import worlds
from history import History, Run, from_text, to_text

FOUND = Path(__file__).parent / "found"
IMPORTS = (
    "pandas",
    "pyarrow.parquet",
    "IPython.core.completer",
    "prefect.flow_engine",
    "prefect.task_engine",
    "graphviz",
    "platformdirs",
    "IPython.core.logger",
    "prefect_cache.magics",
    "prefect_cache.session",
    "prefect_cache.tasks",
    "prefect_cache.codecs.pickled",
    "prefect_cache.codecs.mapped",
    "prefect_cache.store",
)
"""Done once: every world is forked from a process that has them. The extension itself is loaded by each."""


@dataclass
class Played:
    """How one notebook went."""

    seed: int
    steps: int = 0
    statuses: collections.Counter[str] = field(default_factory=collections.Counter)
    bypasses: collections.Counter[str] = field(default_factory=collections.Counter)
    what: str = ""
    history: History = ()


def prepare() -> None:
    """Make this process one that worlds can be forked from."""
    os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="fuzz-prefect-")
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    for name in [n for n in os.environ if n.startswith("PREFECT_API")]:
        del os.environ[name]
    for module in IMPORTS:
        importlib.import_module(module)
    from prefect_cache.capture import headless
    from prefect_cache.cells.patched import PATCHES

    PATCHES.found(["builtins", "numpy", "pandas", "pyarrow"])  # the first look is long, and the same in each world
    with headless() as shell, contextlib.redirect_stdout(io.StringIO()):
        shell.run_cell("import numpy as np, pandas as pd\ndisplay(pd.DataFrame({'a': ['x']}), np.arange(3.0))\n1 / 0")
    gc.freeze()  # else the collector writes to every page that a world shares with this process


def make(seed: int) -> History:
    """Make the notebook of this seed."""
    with worlds.World(cached=False) as trial:

        def works(source: str) -> bool:
            step = Run((source,))
            trial.send(step)
            seen = trial.receive(step)
            return seen is not None and not seen.error

        return grammar.Grammar(random.Random(seed), works).history()


def play(seed: int, *, shrinking: bool = True) -> Played:
    """Make the notebook of this seed, live it twice, and shrink it where the two part."""
    history = make(seed)
    lived = worlds.live(history)
    played = Played(seed, len(history))
    for _, status, note in lived.statuses:
        played.statuses[status] += 1
        if status == "bypass":
            played.bypasses[note[:100]] += 1
    if lived.difference is not None:
        history = history[: lived.difference.step + 1]
        if shrinking:
            history = shrink.shrink(history, lambda smaller: worlds.live(smaller).difference is not None)
        again = worlds.live(history).difference or lived.difference
        played.history, played.what = history, f"seed {seed}: {again.what}\nwhere the cached cell said: {again.status}"
    return played


def replay(files: list[Path]) -> int:
    """Live kept histories again; say which of them part."""
    prepare()
    parted = 0
    for file in files:
        lived = worlds.live(from_text(file.read_text()))
        said = ", ".join(f"{number} {status}" for number, status, _ in lived.statuses)
        print(f"{file.name}: {lived.difference or 'the same'} ({said})", flush=True)
        parted += lived.difference is not None
    print(f"{len(files)} kept histories, {parted} part")
    return 1 if parted else 0


def main() -> int:
    """Play, report, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--notebooks", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=7200.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--no-shrink", action="store_true")
    parser.add_argument("--keep", type=Path, default=FOUND, help="the folder for what is found")
    parser.add_argument("--replay", type=Path, nargs="+", help="live these again, and nothing else")
    asked = parser.parse_args()
    if asked.replay:
        return replay(asked.replay)
    asked.keep.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    totals: list[Played] = []
    seeds = range(asked.seed, asked.seed + asked.notebooks)
    with ProcessPoolExecutor(asked.workers, mp_context=get_context("spawn"), initializer=prepare) as pool:
        waiting = {pool.submit(play, seed, shrinking=not asked.no_shrink): seed for seed in seeds}
        for done in as_completed(waiting):
            played = done.result()
            totals.append(played)
            if played.history:
                file = asked.keep / f"seed-{played.seed}.txt"
                file.write_text(to_text(played.history, played.what))
                print(f"\n{file}\n{to_text(played.history, played.what)}", flush=True)
            if time.monotonic() - began > asked.seconds:
                pool.shutdown(cancel_futures=True)
                break
    return _report(totals, time.monotonic() - began)


def _report(totals: list[Played], seconds: float) -> int:
    statuses: collections.Counter[str] = sum((p.statuses for p in totals), collections.Counter())
    bypasses: collections.Counter[str] = sum((p.bypasses for p in totals), collections.Counter())
    found = [p.seed for p in totals if p.history]
    steps = sum(p.steps for p in totals)
    print(f"\n{len(totals)} notebooks, {steps} steps in {seconds:.0f} s; cached cells: {dict(statuses)}")
    for why, count in bypasses.most_common(12):
        print(f"  bypass {count:5}  {why}")
    print(f"{len(found)} notebooks parted: {found}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
