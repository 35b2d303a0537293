"""A cell on another machine: its inputs travel as files, it runs there as it would here, its entry is restored here.

The notebook's side (:class:`Cluster`) stays a Prefect task in the notebook, with its retries, timeout, tags and
states; what this task does is to hand a *job* to the cluster of a Prefect task runner (prefect-dask's) and to wait.
The worker's side (:func:`work`) is the same session over a namespace that holds the inputs and nothing else: it
computes the key anew, and only where that is the notebook's own key does it run the cell and publish the entry. So
other versions of a package, another value of a variable of the environment or an input that did not survive the
journey are seen before anything runs, and the cell runs in the notebook instead.

The store's folder must be the same on both sides: inputs are a draft in it, the result is an entry in it. What the
cell shows while it runs is appended to a file in the draft, a line of JSON for each output, which the notebook follows:
a message of Dask's could come after the result that it belongs before.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .capture import Recorder, figures_manner, headless
from .cells.graph import GraphReader
from .cells.randomness import WATCH
from .cells.state import settings, taken_on
from .errors import UsageProblem
from .model import Bypass, Failed, Json, Key, Options, Output, Part
from .modules import INTERPRETERS_OWN
from .runner import Runner, frames_of_body, raised_elsewhere, since_file
from .session import Session, Shell
from .store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TextIO

    from .capture import Display
    from .session import Job

LOOK = 0.5
"""Seconds between two looks of a worker whether its job is still wanted."""

FOLLOW = 0.05
"""Seconds between two looks of the notebook at what its job has shown."""

SHOWN = "shown.jsonl"
"""The file in a job's folder with what the cell shows."""

_alone = threading.Lock()
"""A worker's process runs one cell at a time: what is shown, opened and set in it belongs to that cell."""


class Cluster:
    """The cluster that a notebook's cells are submitted to; made when the first one is.

    Parameters
    ----------
    task_runner
        ``"dask"`` for workers on this machine, or the address of a Dask scheduler, ``tcp://host:8786``.
    """

    def __init__(self, task_runner: str) -> None:
        self.name = task_runner
        self._open = contextlib.ExitStack()
        with taken_on(settings()):  # what Dask sets when it is imported is not the notebook's doing
            self._runner = _task_runner(task_runner)
        self._client: Any = None

    def run(self, job: Job, show: Callable[[Display], None]) -> Mapping[str, Json]:
        """Run a job on a worker; return what became of it, or raise what the cell raised there.

        `show` is told of each output as it comes. ``"shown"`` in the reply tells whether there was any.
        """
        __tracebackhide__ = True
        if self._client is None:
            with taken_on(settings()):
                self._client = self._open.enter_context(self._runner).client
        sent = {**job, "prefect": {"task_run_id": _task_run_id(), "task_runner": self.name}}
        future = self._client.submit(work, sent, pure=False)
        shown = _Shown(Path(job["folder"]) / SHOWN, show)
        try:
            while not future.done():
                time.sleep(FOLLOW)
                shown.follow()
            shown.follow()
            return {**future.result(), "shown": shown.any}
        except Exception as error:  # noqa: BLE001  the cell's own, of any kind
            raised_elsewhere(error.with_traceback(since_file(error.__traceback__, job["file"])))
        finally:
            if not future.done():
                # The worker sees that the job's folder is gone and interrupts the cell.
                future.cancel(force=True)

    def close(self) -> None:
        """Let the cluster go; workers on this machine end."""
        self._client = None
        self._open.close()


class _Shown:
    """What a job shows, read as its file grows."""

    def __init__(self, path: Path, show: Callable[[Display], None]) -> None:
        self.any = False
        self._path = path
        self._show = show
        self._read = 0

    def follow(self) -> None:
        """Show what has come since, as far as its lines are whole."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                lines = file.read()
        except FileNotFoundError:
            return
        whole = lines[: lines.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            self.any = True
            self._show(json.loads(line))


def _task_runner(name: str) -> Any:
    try:
        from prefect_dask.task_runners import DaskTaskRunner
    except ImportError as error:
        raise UsageProblem(
            f"the task runner {name!r} needs a package: {error}", remedy="pip install 'prefect-cache[dask]'"
        ) from error
    import logging

    logging.getLogger("prefect.task_runner.dask").setLevel(logging.WARNING)
    if name == "dask":
        # A process for each cell that runs at a time: cells change their process, not only their namespace. Any port
        # will do for the scheduler's own pages: at the usual one another cluster may be at home, and Dask warns.
        pages = {"dashboard_address": "127.0.0.1:0"}
        return DaskTaskRunner(
            cluster_kwargs={"threads_per_worker": 1, "dashboard_address": None, "scheduler_kwargs": pages}
        )
    if "://" in name:
        return DaskTaskRunner(address=name)
    raise UsageProblem(
        f"{name!r} names no task runner", remedy="use 'dask', or the address of a Dask scheduler: tcp://host:8786"
    )


def _task_run_id() -> str:
    from prefect.context import TaskRunContext

    context = TaskRunContext.get()
    return "" if context is None or context.task_run is None else str(context.task_run.id)


# On the worker. ----------------------------------------------------------------------------------------------


def work(job: Job) -> Mapping[str, Json]:
    """Run a job here, in a namespace of its own, and publish its entry.

    Returns ``{"bypass": ""}``, or the reason why there is no entry; raises what the cell raised.
    """
    folder = Path(job["folder"])
    if not folder.is_dir():
        return {"bypass": f"a worker does not see the folder {folder}", "ran": False}
    with _alone, _as_in_the_notebook(job), taken_on(job["settings"]), headless(job["figures"]) as shell:
        shell.compile.get_code_name = lambda *_: job["file"]
        namespace = shell.user_ns
        reader = GraphReader(folder, _outputs(job), trusted=True, namespace=namespace)
        namespace.update({name: reader.get(reference) for name, reference in job["references"].items()})
        WATCH.take_over(job["random"])
        with _while_wanted(folder), (folder / SHOWN).open("a", encoding="utf-8") as shown:
            session = _session(job, shell, partial(_append, shown))
            outcome = session.compute(job["source"], Options(**_tuples(job["options"])), _key(job))
    if isinstance(outcome, Failed):
        raise outcome.error.with_traceback(frames_of_body(outcome.error))
    if isinstance(outcome, Bypass):
        return {"bypass": outcome.reason, "remedy": outcome.remedy, "ran": outcome.key is not None}
    return {"bypass": ""}


def _append(file: TextIO, display: Display) -> None:
    file.write(json.dumps(display) + "\n")
    file.flush()


def _session(job: Job, shell: Any, relay: Callable[[Display], None]) -> Session:
    runner = Runner(shell)
    hidden = dict(shell.user_ns_hidden)

    def run_task(body: Any, **_: object) -> tuple[object, dict[str, Json]]:
        return body(), dict(job["prefect"])

    return Session(
        Store(Path(job["root"])),
        shell.user_ns,
        Shell(
            transform=lambda source: source,  # it was plain Python when it was sent
            execute=runner.run,
            record=lambda: Recorder(shell, relay),
            replay=lambda _displays, _value: None,
            run_task=run_task,
            is_hidden=lambda name: name in INTERPRETERS_OWN or name in hidden,
            codes=runner.codes,
            manner=lambda: f"{runner.manner()}{figures_manner(shell)}",
        ),
        notebook=job["notebook"],
    )


@contextlib.contextmanager
def _as_in_the_notebook(job: Job) -> Iterator[None]:
    """Stand in the notebook's folder, and find its modules, where they are here as well."""
    cwd, path = Path.cwd(), list(sys.path)
    with contextlib.suppress(OSError):
        os.chdir(job["cwd"])
    sys.path += [place for place in job["path"] if place not in sys.path]
    try:
        yield
    finally:
        sys.path[:] = path
        os.chdir(cwd)


@contextlib.contextmanager
def _while_wanted(folder: Path) -> Iterator[None]:
    """Interrupt this thread once the job's folder is gone: nobody waits any more."""
    thread, over = threading.get_ident(), threading.Event()

    def watch() -> None:
        while not over.wait(LOOK):
            if not folder.is_dir():
                # Dask has no way to stop what runs; this raises at the next step of Python code.
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt))
                return

    threading.Thread(target=watch, name="prefect_cache-wanted", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _outputs(job: Job) -> tuple[Output, ...]:
    return tuple(Output(**fields) for fields in job["outputs"])


def _key(job: Job) -> Key:
    return Key(job["key"], tuple(Part(*part) for part in job["parts"]))


def _tuples(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
