"""A cached Prefect task that returns a large frame: Prefect's default serializer against "arrow".

``python tests/benchmarks/prefect_results.py [--megabytes 1000]`` prints a table: wall seconds and extra peak memory
of the run that writes the result and of the one that hits it, each in a process of its own, without a server.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parents[1]

RUN = """
import json, resource, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import numpy as np, pandas as pd
from offline import offline
from prefect import task
from prefect.cache_policies import CachePolicy
import prefect_cache.serializers

rows = {megabytes} * 2**20 // 8 // 10
made = None

def produce():
    return made

def cached(function, key):
    return task(function, name=key, persist_result=True, result_serializer={serializer!r}, cache_result_in_memory=False,
                result_storage=Path({folder!r}),  # else Prefect asks a server for its default, and waits for none
                cache_policy=CachePolicy.from_cache_key_fn(lambda context, parameters: key))

load = cached(produce, "load")
with offline(Path({folder!r})):
    for _ in range(2):  # imports are made, and are nobody's result
        cached(lambda: pd.DataFrame({{"a": [1]}}), "warm" + str({write}))(return_state=True).result(_sync=True)
    if {write}:
        made = pd.DataFrame(np.random.default_rng(0).random((rows, 10)), columns=list("abcdefghij"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    state = load(return_state=True)
    seconds = time.perf_counter() - started
    frame = state.result(_sync=True)
    assert len(frame) == rows, frame
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps([state.name, seconds, peak / 1024]))
"""


def measure(serializer: str, folder: str, megabytes: int, *, write: bool) -> tuple[str, float, float]:
    """Return the run's state, its wall seconds and its extra peak memory in MB."""
    code = RUN.format(tests=str(TESTS), serializer=serializer, folder=folder, megabytes=megabytes, write=write)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    asked = parser.parse_args()
    print("| serializer | write s | write MB | hit s | hit MB |\n|---|---|---|---|---|")
    for serializer in ("pickle", "arrow"):
        with tempfile.TemporaryDirectory() as folder:
            _, write, peak = measure(serializer, folder, asked.megabytes, write=True)
            state, hit, hit_peak = measure(serializer, folder, asked.megabytes, write=False)
            assert state == "Cached", state
            print(f"| {serializer} | {write:.2f} | {peak:.0f} | {hit:.3f} | {hit_peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
