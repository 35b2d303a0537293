from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from prefect_cache import reporting, tasks
from prefect_cache.model import FORMAT, Entry, Key, Manifest, Options, Output, Part, Run
from servers import Told, start

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefect.client.orchestration import SyncPrefectClient

WAIT = 30


def key(*reads: str) -> Key:
    return Key("ab" * 16, tuple(Part("input", name, "0") for name in reads))


def run(body, name, *, reads=(), writes=(), **options):
    return tasks.run_cell(
        body,
        options=Options().replace(**options),
        key=key(*reads),
        name=name,
        context={"notebook": "etl.ipynb", "writes": list(writes)},
    )


def entry(name: str, *outputs: str) -> Entry:
    files = tuple(Output(output, "DataFrame", "arrow", f"{output}.arrow", "0", 0) for output in outputs)
    manifest = Manifest(FORMAT, name, "...", key(), (), files, {}, (), Run(0.0, 42.0))
    return Entry(manifest, Path("entries") / key().digest, 0, 0.0)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Iterator[reporting.Notebook]:
    """A notebook that no server has heard of yet."""
    fresh = reporting.Notebook()
    monkeypatch.setattr(tasks, "NOTEBOOK", fresh)
    yield fresh
    if fresh.told:
        fresh.told.close()


@pytest.fixture
def told(api: SyncPrefectClient, notebook: reporting.Notebook):
    """Wait for the reports to arrive, and read them back through the server's API."""

    def told() -> Told:
        assert notebook.told.flush(WAIT)
        assert notebook.told.refused == []
        return Told(api, notebook.told.flow_run_id)

    return told


@pytest.mark.xdist_group("prefect server")
class TestANotebook:
    def test_it_is_one_flow_run_with_a_task_run_for_each_cell(self, told):
        run(lambda: 1, "load")
        run(lambda: 2, "clean")
        seen = told()
        assert list(seen.task_runs) == ["load", "clean"]
        assert seen.client.read_flow(seen.flow_run.flow_id).name == "etl.ipynb"
        assert (seen.flow_run.state_name, set(seen.flow_run.tags)) == ("Running", {"prefect-cache", "notebook"})

    def test_its_flow_is_named_after_the_file_whatever_that_is_called(self, told):
        tasks.run_cell(
            lambda: 1, options=Options(), key=key(), name="a", context={"notebook": "/home/me/R&D <1>.ipynb"}
        )
        seen = told()
        assert seen.client.read_flow(seen.flow_run.flow_id).name == "R-D -1-.ipynb"

    def test_its_flow_run_is_completed_when_the_kernel_ends(self, api, notebook, told):
        run(lambda: 1, "load")
        flow_run = told().flow_run.id
        notebook.told.close()
        assert api.read_flow_run(flow_run).state_name == "Completed"

    def test_the_task_run_is_the_one_that_the_engine_ran(self, told):
        _, facts = run(lambda: 1, "load", tags=("nightly",))
        seen = told().task_runs["load"]
        assert (str(seen.id), seen.tags, seen.run_count) == (facts["task_run_id"], ["nightly"], facts["run_count"])

    def test_states_are_told_as_they_come(self, told):
        calls = []

        def flaky():
            calls.append(1)
            if len(calls) < 2:
                raise ConnectionError("no route")

        run(flaky, "flaky", retries=2, retry_delay=0.3)
        assert told().states("flaky") == ["Running", "AwaitingRetry", "Retrying", "Completed"]

    @pytest.mark.parametrize(
        ("error", "state"),
        [(ValueError("bad"), "Failed"), (KeyboardInterrupt(), "Crashed"), (TimeoutError(), "TimedOut")],
    )
    def test_a_cell_that_did_not_end_well_says_how(self, told, error, state):
        def body():
            raise error

        with pytest.raises(type(error)):
            run(body, "cell")
        assert told().states("cell") == ["Running", state]

    def test_a_hit_is_a_cached_task_run(self, told):
        tasks.report_hit(entry("load", "orders"), key(), "etl.ipynb")
        run_ = told().task_runs["load"]
        assert (run_.state_name, run_.state_type.value) == ("Cached", "COMPLETED")
        assert "42.0 s" in run_.state.message

    def test_edges_say_from_which_cell_an_input_came(self, told):
        tasks.report_hit(entry("load", "orders"), key(), "etl.ipynb")
        run(lambda: 1, "clean", reads=("orders", "elsewhere"), writes=("tidy",))
        run(lambda: 1, "plot", reads=("tidy", "orders"))
        runs = told().task_runs
        edges = {name: {read: source.id for read, (source,) in run.task_inputs.items()} for name, run in runs.items()}
        assert edges == {
            "load": {},
            "clean": {"orders": runs["load"].id},
            "plot": {"orders": runs["load"].id, "tidy": runs["clean"].id},
        }

    def test_what_a_cell_prints_can_be_its_log_in_whole_lines(self, api, told, monkeypatch):
        from prefect.client.schemas.filters import LogFilter, LogFilterTaskRunId

        monkeypatch.setattr(reporting, "HELD", 0)

        def body():
            with tasks.printing() as log:
                for piece in ("336776", " rows\n", "\n2 colu", "mns\nno newline"):
                    log(piece)

        _, facts = run(body, "load")
        told()
        logs = api.read_logs(LogFilter(task_run_id=LogFilterTaskRunId(any_=[facts["task_run_id"]])))
        assert sorted(log.message for log in logs) == ["2 columns", "336776 rows", "no newline"]

    def test_a_flow_that_the_cell_calls_runs_as_it_would_without_us(self, api, told):
        from prefect import flow

        @flow(name="inner")
        def inner() -> int:
            from prefect import runtime

            return runtime.flow_run.id

        inner_run, _ = run(inner, "call a flow")
        told()
        assert api.read_flow_run(inner_run).state_name == "Completed"

    @pytest.mark.parametrize("where", ["in the transaction", "after it", "nowhere"])
    def test_tasks_in_a_transaction_are_rolled_back_when_the_cell_fails(self, told, where):
        from prefect import task
        from prefect.transactions import transaction

        did = []

        @task
        def write(word: str) -> str:
            did.append(word)
            return word

        @write.on_rollback
        def erase(_: object) -> None:
            did.remove("row")

        def body():
            with transaction():
                write("row")
                assert where != "in the transaction"
            assert where != "after it"

        if where == "nowhere":
            run(body, "cell")
            assert did == ["row"]
        else:
            with pytest.raises(AssertionError):
                run(body, "cell")
            assert did == []
        assert told().states("cell")[-1] == ("Completed" if where == "nowhere" else "Failed")


@pytest.mark.xdist_group("prefect server")
class TestTags:
    def test_a_full_concurrency_limit_is_waited_for(self, api, told):
        from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

        limit = GlobalConcurrencyLimitCreate(name="tag:one-at-a-time", limit=1, active_slots=1)
        api.create_global_concurrency_limit(limit)
        freed = []

        def free():
            freed.append(time.monotonic())
            slot = {"names": [limit.name], "slots": 1}
            httpx.post(f"{api.api_url}v2/concurrency_limits/decrement", json=slot).raise_for_status()

        threading.Timer(1.0, free).start()
        began, facts = run(time.monotonic, "limited", tags=("one-at-a-time",))
        assert began > freed[0]
        assert facts["notes"] == []


class TestAServerThatIsNotThere:
    @pytest.fixture
    def nowhere(self) -> Iterator[str]:
        """A URL at which nobody listens."""
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{reserved.getsockname()[1]}/api"}):
                yield reserved

    def test_cells_run_without_delay(self, nowhere, notebook):
        run(lambda: 1, "first")
        started = time.monotonic()
        for _ in range(20):
            run(lambda: 1, "cell")
            tasks.report_hit(entry("load", "orders"), key(), "etl.ipynb")
        assert time.monotonic() - started < 2
        assert notebook.told.health in {"unknown", "down"}

    def test_a_tag_is_no_reason_to_fail_and_it_is_said_once(self, nowhere, notebook, monkeypatch):
        monkeypatch.setattr(tasks, "_said", set())
        first, second = (run(lambda: 1, "cell", tags=("a",))[1]["notes"] for _ in range(2))
        assert len(first) == 1
        assert "did not answer" in first[0]
        assert second == []

    def test_one_that_accepts_and_never_answers_delays_nothing(self, nowhere, notebook):
        nowhere.listen()
        started = time.monotonic()
        run(lambda: 1, "cell")
        tasks.report_hit(entry("load", "orders"), key(), "etl.ipynb")
        assert time.monotonic() - started < 2

    def test_what_waits_for_it_is_bounded(self, nowhere, notebook, monkeypatch):
        monkeypatch.setattr(reporting, "ROOM", 3)
        for _ in range(10):
            tasks.report_hit(entry("load", "orders"), key(), "etl.ipynb")
        assert notebook.told.dropped >= 6

    def test_the_end_of_the_process_does_not_wait_for_it(self, nowhere, notebook):
        run(lambda: 1, "cell")
        started = time.monotonic()
        notebook.told.close()
        assert time.monotonic() - started < reporting.FAREWELL + 1


class TestAServerThatDies:
    def test_reports_wait_and_arrive_in_order_when_it_is_back(self, tmp_path, notebook):
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_API_URL, temporary_settings

        first = start(tmp_path)
        with temporary_settings({PREFECT_API_URL: first.url}):
            run(lambda: 1, "before", writes=("a",))
            assert notebook.told.flush(WAIT)
            first.stop()
            started = time.monotonic()
            run(lambda: 1, "meanwhile", reads=("a",), writes=("b",))
            assert time.monotonic() - started < 2
            second = start(tmp_path, int(first.url.split(":")[2].split("/")[0]))
            try:
                run(lambda: 1, "after", reads=("b",))
                assert notebook.told.flush(WAIT)
                with get_client(sync_client=True) as client:
                    seen = Told(client, notebook.told.flow_run_id)
                    assert {name: run_.state_name for name, run_ in seen.task_runs.items()} == {
                        "before": "Completed",
                        "meanwhile": "Completed",
                        "after": "Completed",
                    }
            finally:
                second.stop()
