"""What Prefect's engine adds to a cell: without a server, with one, and what Prefect itself needs for a task.

``python tests/benchmarks/engine.py [--runs 50]`` starts a server on loopback and prints medians in milliseconds. Each
way runs in a process of its own, over a body that does nothing.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

CELL = """
from prefect_cache import tasks
from prefect_cache.model import Key, Options
one = lambda: tasks.run_cell(lambda: 1, options=Options(), key=Key("0" * 32, ()), name="cell")
"""

TASK = """
from prefect import task
one = task(lambda: 1, name="cell", persist_result=False)
"""

HELD = """
from prefect.context import SyncClientContext
held = SyncClientContext.get_or_create()
held.__enter__()
"""

WAYS = {
    "a cell, no server": (CELL, False),
    "a cell, a server is configured": (CELL, True),
    "Prefect's own task, server, a client for each": (TASK, True),
    "Prefect's own task, server, one client held": (TASK + HELD, True),
}

RUN = """
import logging, sys, time
{way}
logging.getLogger("prefect").setLevel("ERROR")
one()
for _ in range({runs}):
    started = time.perf_counter()
    one()
    print("took", time.perf_counter() - started, flush=True)
"""


def measure(way: str, runs: int, url: str) -> list[float]:
    """Return the seconds of each run."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    env |= {"PREFECT_API_URL": url} if url else {}
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [sys.executable, "-c", RUN.format(way=way, runs=runs)],
            env={**env, "PREFECT_HOME": home},
            capture_output=True,
            text=True,
            check=True,
        )
    return [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("took ")]


def main() -> None:
    """Measure and print."""
    from servers import start

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    asked = parser.parse_args()
    print("| a body that does nothing, run as | median ms | 95 % ms |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as home:
        server = start(Path(home))
        try:
            for name, (way, served) in WAYS.items():
                taken = sorted(measure(way, asked.runs, server.url if served else ""))
                late = taken[int(0.95 * (len(taken) - 1))]
                print(f"| {name} | {statistics.median(taken) * 1000:.1f} | {late * 1000:.1f} |", flush=True)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
