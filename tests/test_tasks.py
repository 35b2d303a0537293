from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import itertools
import json
import os
import random
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import weakref
from typing import TYPE_CHECKING

import pytest

from prefect_cache import tasks
from prefect_cache.errors import CellTimeout
from prefect_cache.model import Key, Options

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = Key("ab" * 16, ())

# Prefect's alarm needs SIGALRM to be free, or a timeout waits for the end of a sleep: the suite's limit must not hold
# it.
pytestmark = pytest.mark.timeout(300, method="thread")


def run(body: Callable[[], object], name: str = "cell", **options: object) -> tuple[object, dict[str, object]]:
    return tasks.run_cell(body, options=Options().replace(**options), key=KEY, name=name)


class TestTheBody:
    def test_its_value_comes_back_as_it_is(self):
        value = object()
        assert run(lambda: value)[0] is value

    def test_it_runs_in_the_calling_thread(self):
        assert run(threading.current_thread)[0] is threading.current_thread()

    def test_it_runs_inside_a_real_task_run(self):
        from prefect.context import TaskRunContext

        inside, facts = run(lambda: TaskRunContext.get().task_run.model_copy(deep=True), name="load")
        assert (str(inside.id), inside.name, inside.state_name) == (facts["task_run_id"], "load", "Running")

    def test_what_it_sets_in_a_context_variable_stays(self):
        variable = contextvars.ContextVar("variable", default=0)
        run(lambda: variable.set(1))
        assert variable.get() == 1

    def test_its_log_lines_are_shown_and_the_engines_are_not(self, caplog: pytest.LogCaptureFixture):
        from prefect import get_run_logger

        run(lambda: get_run_logger().info("halfway"))
        assert [record.message for record in caplog.records] == ["halfway"]

    def test_prefect_does_not_keep_its_value_alive(self):
        class Frame:
            pass

        value, _ = run(Frame)
        ghost = weakref.ref(value)
        del value
        gc.collect()
        assert ghost() is None

    def test_prefect_writes_nothing(self, tmp_path):
        from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings

        with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: tmp_path}):
            run(lambda: "a value")
        assert list(tmp_path.iterdir()) == []

    def test_it_sees_the_users_own_prefect_settings(self):
        from prefect.settings import get_current_settings

        before = get_current_settings()
        inside, _ = run(get_current_settings)
        assert (inside.api.key, inside.server.ephemeral.enabled) == (before.api.key, before.server.ephemeral.enabled)

    def test_after_it_prefects_settings_and_client_are_what_they_were(self):
        from prefect.context import SyncClientContext
        from prefect.settings import get_current_settings

        before = get_current_settings()
        run(lambda: None)
        assert get_current_settings() is before
        assert SyncClientContext.get() is None


class TestFacts:
    def test_they_tell_of_the_task_run(self):
        import prefect

        _, facts = run(lambda: 1, name="load", tags=("nightly",))
        assert facts.pop("task_run_id")
        assert facts.pop("notes") is not None
        assert facts == {
            "name": "load",
            "state": "Completed",
            "state_type": "COMPLETED",
            "run_count": 1,
            "tags": ["nightly"],
            "version": prefect.__version__,
        }

    def test_they_are_json(self):
        _, facts = run(lambda: 1)
        assert json.loads(json.dumps(facts)) == facts

    @pytest.mark.parametrize("name", ["a > b / c % d & e < f", "{x} and {0}", "Größe", "", "x" * 500, "two\nlines"])
    def test_any_text_is_a_name(self, name):
        assert run(lambda: 1, name=name)[1]["name"] == (name or "cell")

    def test_without_a_server_tags_are_recorded_and_that_is_said_once(self, monkeypatch):
        from prefect import runtime

        monkeypatch.setattr(tasks, "_said", set())
        seen, first = run(lambda: runtime.task_run.tags, tags=("a", "b"))
        _, second = run(lambda: None, tags=("a", "b"))
        assert (seen, first["notes"], second["notes"]) == (["a", "b"], [tasks.NO_LIMITS], [])


class TestExceptions:
    def test_the_bodys_own_object_comes_out(self):
        error = ValueError("no")

        def body():
            raise error

        with pytest.raises(ValueError, match="no") as caught:
            run(body)
        assert caught.value is error
        assert (error.__cause__, error.__context__) == (None, None)

    def test_the_traceback_shows_the_body_and_no_engine(self):
        def body():
            return 1 / 0

        with pytest.raises(ZeroDivisionError) as caught:
            run(body)
        frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert frames[-3:] == ["run", "run_cell", "body"]

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
    def test_what_is_no_exception_passes_through_as_itself_and_is_not_retried(self, kind):
        calls = []

        def body():
            calls.append(1)
            raise kind

        with pytest.raises(kind):
            run(body, retries=3)
        assert len(calls) == 1

    def test_the_bodys_own_timeout_error_is_not_taken_for_ours(self):
        error = TimeoutError("the database took too long")

        def body():
            raise error

        with pytest.raises(TimeoutError) as caught:
            run(body, timeout=60)
        assert caught.value is error

    def test_prefect_does_not_keep_the_failed_bodys_frames_alive(self):
        class Frame:
            pass

        ghosts = []

        def body():
            frame = Frame()
            ghosts.append(weakref.ref(frame))
            raise ValueError

        with contextlib.suppress(ValueError):
            run(body)
        gc.collect()
        assert ghosts[0]() is None


class TestRetries:
    def test_the_body_is_called_again_after_the_delay(self):
        calls = []

        def body():
            calls.append(time.monotonic())
            if len(calls) < 3:
                raise ConnectionError
            return "done"

        value, facts = run(body, retries=2, retry_delay=0.2)
        assert (value, facts["run_count"], facts["state"]) == ("done", 3, "Completed")
        assert all(later - earlier >= 0.2 for earlier, later in itertools.pairwise(calls))

    def test_pauses_between_tries_are_not_drawn_from_the_notebooks_generator(self):
        run(lambda: None)  # which loads Prefect
        from prefect.utilities.math import clamped_poisson_interval

        before = random.getstate()
        assert clamped_poisson_interval(1.0) > 0
        assert random.getstate() == before

    def test_the_last_failure_comes_out(self):
        calls = []

        def body():
            calls.append(1)
            raise ConnectionError(len(calls))

        with pytest.raises(ConnectionError, match="3"):
            run(body, retries=2)


class TestTimeout:
    def test_a_late_body_ends_with_a_clear_error_that_points_at_its_line(self):
        def body():
            time.sleep(30)

        started = time.monotonic()
        with pytest.raises(CellTimeout, match=r"longer than its timeout of 1 s") as caught:
            run(body, timeout=1.0)
        assert time.monotonic() - started < 5
        assert traceback.extract_tb(caught.value.__traceback__)[-1].line == "time.sleep(30)"

    def test_it_counts_for_each_attempt(self):
        calls = []

        def body():
            calls.append(1)
            time.sleep(0 if len(calls) == 2 else 30)
            return len(calls)

        assert run(body, timeout=1.0, retries=1)[0] == 2


class TestTopLevelAwait:
    def test_a_coroutine_function_is_driven_to_its_end_in_this_thread(self):
        async def body():
            await asyncio.sleep(0)
            return threading.current_thread()

        assert run(body)[0] is threading.current_thread()

    def test_also_inside_a_running_loop_which_is_as_it_was_afterwards(self):
        async def body():
            await asyncio.sleep(0.01)
            return "done"

        async def kernel():
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            value, _ = run(body)
            assert (asyncio.get_running_loop(), asyncio.current_task()) == (loop, task)
            await asyncio.sleep(0)
            return value

        assert asyncio.run(kernel()) == "done"

    def test_what_one_cell_opened_serves_the_next(self):
        async def make():
            return asyncio.get_running_loop().create_future()

        future, _ = run(make)

        async def use():
            future.get_loop().call_soon(future.set_result, 7)
            return await future

        assert run(use)[0] == 7

    def test_a_late_one_is_cancelled_for_good(self):
        ended = []

        async def body():
            try:
                await asyncio.sleep(30)
            finally:
                ended.append(1)

        with pytest.raises(CellTimeout):
            run(body, timeout=0.2)
        assert ended == [1]

    def test_its_exception_comes_out_as_itself(self):
        async def body():
            raise LookupError

        with pytest.raises(LookupError):
            run(body)


class TestTransactions:
    """A transaction opened in a cell belongs to the cell's task, as in any Prefect task."""

    def body(self, told: list[str], *ends: Callable[[], object]) -> Callable[[], object]:
        """Return a cell that opens a transaction; `ends` are called in it, after it, and in the next attempts."""
        from prefect.transactions import transaction

        left = iter(ends)

        def body():
            with transaction() as opened:
                opened.stage("row", [lambda _: told.append("rolled back")], [lambda _: told.append("committed")])
                next(left)()
            told.append("left")
            next(left)()

        return body

    def test_it_is_committed_when_the_cell_has_ended_well(self):
        told = []
        run(self.body(told, lambda: None, lambda: None))
        assert told == ["left", "committed"]

    def test_an_error_in_it_rolls_it_back(self):
        told = []
        with pytest.raises(ZeroDivisionError):
            run(self.body(told, lambda: 1 / 0))
        assert told == ["rolled back"]

    def test_an_error_later_in_the_cell_rolls_it_back_as_well(self):
        told = []
        with pytest.raises(ZeroDivisionError):
            run(self.body(told, lambda: None, lambda: 1 / 0))
        assert told == ["left", "rolled back"]

    def test_each_attempt_has_its_own(self):
        told = []
        run(self.body(told, lambda: 1 / 0, lambda: None, lambda: None), retries=1)
        assert told == ["rolled back", "left", "committed"]

    def test_hooks_find_the_users_own_settings(self):
        from prefect.settings import get_current_settings
        from prefect.transactions import transaction

        seen = []

        def look(_: object = None) -> None:
            seen.append(get_current_settings().api.key)

        async def look_later(_: object) -> None:
            look()

        def body():
            look()
            with transaction() as outer:
                outer.stage(1, on_commit_hooks=[look, look_later])
                with transaction() as inner:
                    inner.stage(2, on_commit_hooks=[look])

        run(body)
        assert seen == [None] * 4


WATCHED = """
    import os, socket, subprocess, sys, threading, time

    seen = []
    def watch(event, args):
        if event in ("socket.connect", "socket.bind", "socket.sendto", "subprocess.Popen", "os.posix_spawn", "os.fork"):
            seen.append((event, str(args)))
    sys.addaudithook(watch)

    from prefect_cache import tasks
    from prefect_cache.model import Key, Options

    def flaky(calls=[]):
        calls.append(1)
        if len(calls) == 1:
            raise ConnectionError
        return 1

    for options in (Options(), Options(tags=("a",)), Options(retries=1), Options(timeout=30)):
        tasks.run_cell(flaky if options.retries else (lambda: 1), options=options, key=Key("0" * 32, ()), name="cell")
    from prefect import get_run_logger
    tasks.run_cell(get_run_logger, options=Options(), key=Key("0" * 32, ()), name="cell")
    print(seen)
    print([thread.name for thread in threading.enumerate()])
"""


def test_without_a_server_there_is_no_connection_no_port_no_process_no_thread_and_no_noise():
    """Prefect does not support this in so many words: when it changes, this is the test that says so."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_API")}
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", textwrap.dedent(WATCHED)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.stdout, done.stderr) == ("[]\n['MainThread']\n", "")


def test_importing_this_module_does_not_import_prefect():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, prefect_cache.tasks; print('prefect' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "False\n"


def test_published_writes_prefects_own_record_with_the_entrys_digest(tmp_path):
    from prefect.filesystems import LocalFileSystem
    from prefect.results import ResultStore
    from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings

    from prefect_cache.model import FORMAT, Entry, Manifest, Run

    manifest = Manifest(FORMAT, "cell", "1", KEY, (), (), {}, (), Run(0.0, 1.0))
    entry = Entry(manifest, tmp_path / "entries" / (KEY.digest + "-1"), 0, 0.0)
    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: tmp_path / "results"}):
        tasks.published(entry, KEY)
    record = ResultStore(result_storage=LocalFileSystem(basepath=str(tmp_path / "results"))).read(
        f"prefect_cache-{KEY.digest}"
    )
    assert (record.result, record.metadata.serializer.type) == (KEY.digest + "-1", "json")


LOGGING = """
    import io, logging

    mine = logging.FileHandler("mine.log", mode="w")
    logging.getLogger("mine").addHandler(mine)

    from prefect_cache import tasks

    tasks.preload().join()
    assert logging.getLogger().handlers == []
    logging.getLogger("mine").warning("still written")
    logging.basicConfig(format="%(message)s", stream=(shown := io.StringIO()))
    logging.warning("as the notebook wants it")
    assert shown.getvalue() == "as the notebook wants it\\n"
    assert open("mine.log").read() == "still written\\n"
"""


def test_the_import_of_prefect_leaves_the_notebooks_logging_alone(tmp_path: Path) -> None:
    script = textwrap.dedent(LOGGING)
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
