from __future__ import annotations

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
