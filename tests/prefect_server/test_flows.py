from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from prefect_cache import results

if TYPE_CHECKING:
    from pathlib import Path

    from servers import Server

PIPELINE = """
    import sys

    import pandas as pd
    from prefect import flow, task
    from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

    @task(persist_result=True, result_serializer="arrow")
    def orders(n):
        return pd.DataFrame({"n": range(n)})

    @task(persist_result=True, result_serializer="compressed/arrow")
    def total(frame):
        return frame["n"].sum()

    RUNNERS = {"processes": ProcessPoolTaskRunner(max_workers=1), "threads": ThreadPoolTaskRunner(max_workers=2)}

    @flow(persist_result=True, result_serializer="arrow", task_runner=RUNNERS[sys.argv[1]])
    def pipeline():
        frame = orders.submit(10)
        return frame.result().assign(total=total.submit(frame).result())

    if __name__ == "__main__":
        state = pipeline(return_state=True)
        frame = state.result(_sync=True)
        print(len(frame), int(frame["total"].iloc[0]), "prefect_cache" in dir())
"""


@pytest.mark.xdist_group("prefect server")
@pytest.mark.parametrize("runner", ["threads", "processes"])
def test_a_script_that_never_imports_us_runs_flows_and_tasks_with_arrow_results(
    server: Server, tmp_path: Path, runner: str
):
    (tmp_path / "pipeline.py").write_text(textwrap.dedent(PIPELINE))
    env = {
        **os.environ,
        "PREFECT_API_URL": server.url,
        "PREFECT_HOME": str(tmp_path / "home"),
        "PREFECT_LOCAL_STORAGE_PATH": str(tmp_path / "results"),
    }
    done = subprocess.run(
        [sys.executable, "pipeline.py", runner],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.stdout.strip() == "10 45 False", done.stderr
    found = results.scan(tmp_path / "results")
    assert sorted(result.serializer for result in found.results) == ["arrow", "arrow", "compressed/arrow"]
    assert {result.state() for result in found.results} == {"current"}
    assert {result.task for result in found.results} == {"orders", "total", "pipeline"}
