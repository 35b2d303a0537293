from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from servers import Told

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

    from servers import Server

CELLS = (
    "%%prefect_cache orders --tags nightly\norders = [1, 2, 3]",
    "%%prefect_cache rates\nrates = [10, 20, 30]",
    "%%prefect_cache total\ntotal = sum(o * r for o, r in zip(orders, rates))",
)
FLUSH = """
from prefect_cache import tasks as _tasks
_tasks.NOTEBOOK.told.flush(60)
_flow = str(_tasks.NOTEBOOK.told.flow_run_id), _tasks.NOTEBOOK.told.refused
"""


@pytest.mark.xdist_group("prefect server")
def test_a_real_notebook_and_its_second_run_as_the_server_knows_them(
    server: Server, api: SyncPrefectClient, start_kernel, tmp_path
):
    env = {"PREFECT_API_URL": server.url, "JPY_SESSION_NAME": "/home/me/shop.ipynb", "PREFECT_HOME": str(tmp_path)}
    told = []
    for _ in range(2):
        kernel = start_kernel(env=env, cold=True)
        kernel.run("%load_ext prefect_cache")
        for cell in CELLS:
            assert not kernel.run(cell).error
        kernel.run(FLUSH)
        flow_run, refused = kernel.value("_flow")
        assert refused == []
        kernel.stop()
        told.append(Told(api, flow_run))
    first, second = told
    for seen, state in ((first, "Completed"), (second, "Cached")):
        runs = seen.task_runs
        assert {name: run.state_name for name, run in runs.items()} == dict.fromkeys(
            ("orders", "rates", "total"), state
        )
        edges = {name: source.id for name, (source,) in runs["total"].task_inputs.items()}
        assert edges == {"orders": runs["orders"].id, "rates": runs["rates"].id}
        assert api.read_flow(seen.flow_run.flow_id).name == "shop.ipynb"
    assert first.task_runs["orders"].tags == ["nightly"]


PRINTS = """%%prefect_cache --artifact --tags nightly
import pandas as pd
orders = pd.DataFrame([[n, f"<b>{n}</b>", n / 7] for n in range(1000)], columns=["id", "name", "name"])
totals = orders.groupby("id").size().rename("n")
print(len(orders), "rows")
print("done", end="")
number = 7
"""


@pytest.mark.xdist_group("prefect server")
def test_prints_and_previews_of_frames_go_to_the_server_when_asked(
    server: Server, api: SyncPrefectClient, start_kernel, tmp_path
):
    from prefect.client.schemas.filters import LogFilter, LogFilterTaskRunId

    env = {"PREFECT_API_URL": server.url, "JPY_SESSION_NAME": "/home/me/Shop.ipynb", "PREFECT_HOME": str(tmp_path)}
    for status in ("miss", "hit"):
        kernel = start_kernel(env=env, cold=True)
        kernel.run("%load_ext prefect_cache\n%config PrefectCache.log_prints = True")
        ran = kernel.run(PRINTS)
        assert (ran.stdout, kernel.value("__import__('prefect_cache').last.status")) == ("1000 rows\ndone", status)
        with pytest.raises(AssertionError, match="ZeroDivisionError"):
            kernel.run("%%prefect_cache\nprint('about to fail')\nfailed = 1 / 0")
        kernel.run(FLUSH)
        flow_run, refused = kernel.value("_flow")
        assert refused == []
        runs = Told(api, flow_run).task_runs
        assert {name: run.state_name for name, run in runs.items()} == {
            "orders": "Completed" if status == "miss" else "Cached",
            "failed": "Failed",
        }

        def log(run) -> list[str]:
            return [log.message for log in api.read_logs(LogFilter(task_run_id=LogFilterTaskRunId(any_=[run.id])))]

        assert sorted(log(runs["orders"])) == (["1000 rows", "done"] if status == "miss" else [])
        assert log(runs["failed"]) == ["about to fail"]
        artifacts = {a.key: a for a in api.read_artifacts() if a.task_run_id == runs["orders"].id}
        assert set(artifacts) == {"shop-orders", "shop-totals"}
        shown = artifacts["shop-orders"]
        assert (shown.type, str(shown.flow_run_id)) == ("table", flow_run)
        rows = json.loads(shown.data)
        assert (len(rows), rows[3]) == (20, {"id": "3", "name": "<b>3</b>", "name#2": "0.4285714286"})
        assert shown.description.startswith("**orders**: DataFrame, 1,000 rows, 3 columns")
        assert "here the first 20 and 3" in shown.description
