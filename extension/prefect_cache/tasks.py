"""A cell's body runs here as a real Prefect task, in the caller's thread, with or without a server.

What was chosen, and why:

* **The engine never touches the network.** Prefect's engine runs each task between settings that name no
  server (:func:`_offline`): retries, delays, timeouts, names and states are Prefect's own, while nothing
  can start a server, open a port, wait for a slow API or fail with it. What a configured server should
  know (states, tags, edges, hits) is told to it by :mod:`prefect_cache.reporting`, from a bounded queue on
  a thread of its own, fed by the task's public hooks. Prefect does not support an engine without a server
  in so many words, so all that this rests on stands in `_offline` and `_client`; ``tests/test_tasks.py``
  watches for sockets, processes and threads and fails loudly when a new Prefect behaves otherwise.
* **The body sees the user's settings.** Inside the body the user's own Prefect settings are in force again, so that a
  flow, a task or a client that the cell itself calls behaves as it would in a cell without us.
* **A transaction that a cell opens belongs to the cell's task**, as in any Prefect task: it is committed when the cell
  has ended well, and rolled back when the cell raises, in it or later.
* **The value passes by Prefect.** The task returns the key's digest, a small string; the body's value goes to the
  caller out of band. Prefect therefore neither keeps a frame alive nor pickles one. Once the session has
  published the entry it calls :func:`published`, which writes Prefect's own record for the key: a JSON
  result that holds the entry's digest. Publishing is no part of the task: a store that is slow or full must
  not use up the cell's timeout or its retries.
* **Exceptions come out as they went in**, the same object, with the engine's frames cut from the traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import inspect
import logging
import os
import random
import re
import sys
import threading
from dataclasses import dataclass, field
from functools import cache, wraps
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, cast
from uuid import UUID

from .errors import CellTimeout
from .reporting import PATIENCE, Artifact, Notebook, Printed, Reporter, Step, Told
from .results import CELL
from .units import size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from prefect import Task
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas import TaskRun
    from prefect.client.schemas.objects import State
    from prefect.context import SettingsContext
    from prefect.settings import Profile, Settings
    from prefect.transactions import BaseTransaction

    from .model import Entry, Json, Key, Options, Output

    Hook = Callable[[BaseTransaction], None]

NOWHERE = "http://127.0.0.1:9/api"
"""An address that the engine's client is given and never calls (port 9 is *discard*)."""

NO_LIMITS = "tags were recorded; their concurrency limits need a Prefect server, and none is configured"

NO_PRINTS = "what is printed can be logged on a Prefect server, and none is configured"

NO_ARTIFACTS = "artifacts are kept on a Prefect server, and none is configured"

SHOWN_ROWS, SHOWN_COLUMNS = 20, 12
"""How much of a frame its artifact shows."""

QUIET = (
    "prefect.engine",
    "prefect.task_runs",
    "prefect.task_engine",
    "prefect.results",
    "prefect.transactions",
    "prefect.concurrency",
    "prefect._internal.concurrency",
)
"""Loggers on which the engine tells of its own doing."""


def run_cell(
    body: Callable[[], object],
    *,
    options: Options,
    key: Key,
    name: str,
    context: Mapping[str, Json] | None = None,
) -> tuple[object, dict[str, Json]]:
    """Run `body` as a Prefect task and return its value and the facts of the task run.

    Parameters
    ----------
    body
        Called in this thread, once for each attempt; what it needs undone before a retry it undoes itself.
        A coroutine function is driven to its end on a private event loop, in this thread as well.
    options
        ``retries``, ``retry_delay``, ``timeout`` and ``tags`` are Prefect's to honour.
    key
        Names the run: its digest is what the task returns to Prefect.
    name
        The task's and the task run's name, any text.
    context
        ``"notebook"`` names the notebook, ``"writes"`` the names that the cell binds: a configured server shows
        the notebook as a flow, and from which cell each cell's inputs came.

    Returns
    -------
    tuple
        The body's value, and a dict for ``Run.prefect``: ``task_run_id``, ``name``, ``state``, ``state_type``,
        ``run_count``, ``tags``, ``version`` and ``notes`` (texts to show once, usually none).

    Raises
    ------
    CellTimeout
        When the body ran longer than ``options.timeout``.
    BaseException
        Whatever the last attempt raised, as it was raised.
    """
    preload().join()
    attempt = _Attempt(body, key.digest)
    error = _run(attempt, options, key, name, context or {})
    try:
        if error is not None:
            raise _as_raised(error, attempt, options)
        return attempt.value, _facts(attempt, options)
    finally:
        del error, attempt


def published(entry: Entry, key: Key) -> None:
    """Write Prefect's own record for the key: a JSON result that holds the entry's digest.

    Called by the session after it has published an entry that a task ran for; a Prefect result storage
    that cannot be written is left alone, since the entry stands without the record. A record that outlives its
    entry is never read again; ``prefect-cache prune --results`` takes it away.
    """
    from prefect.exceptions import SerializationError
    from prefect.filesystems import LocalFileSystem
    from prefect.results import ResultStore
    from prefect.serializers import JSONSerializer

    folder = str(_settings().settings.results.local_storage_path)
    records = ResultStore(
        result_storage=LocalFileSystem(basepath=folder), serializer=JSONSerializer(), cache_result_in_memory=False
    )
    with contextlib.suppress(OSError, SerializationError):
        records.write(entry.digest, key=f"{CELL}{key.digest}")


@cache
def preload() -> threading.Thread:
    """Start importing Prefect on a thread of its own, once; join the thread to wait for it."""
    thread = threading.Thread(target=_import_prefect, name="prefect_cache-preload", daemon=True)
    thread.start()
    return thread


def _import_prefect() -> None:
    with _logging_left_alone(), _unreported():
        import prefect.main
        import prefect.task_engine
        import prefect.tasks
        import prefect.utilities.math  # noqa: F401

    for waiting in ("prefect.utilities.math", "websockets.client"):
        if waiting in sys.modules:
            # How long they wait between two tries, Prefect (3.8) and its websockets draw from the process's generator,
            # on threads of their own as well: what a notebook has seeded would give other numbers from then on.
            setattr(sys.modules[waiting], "random", random.Random())  # noqa: B010, S311
    _client()
    _sides(_settings().settings)


@contextlib.contextmanager
def _logging_left_alone() -> Iterator[None]:
    """Keep the root logger, and the handlers that there are, as the notebook has them.

    On import Prefect (3.8) gives the root logger a handler, so that later `logging.basicConfig` does nothing, and
    closes handlers made before. Who imports Prefect has that; who runs a cell has not asked for it.
    Prefect's own loggers do not pass records on to the root, and keep what they are given.
    """
    if "prefect.main" in sys.modules:
        yield
        return
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    living, named = logging._handlerList[:], dict(logging._handlers)  # type: ignore[attr-defined]  # noqa: SLF001
    logging._handlerList.clear()  # type: ignore[attr-defined]  # noqa: SLF001 - what is not listed is not closed
    try:
        yield
    finally:
        logging._handlerList[:0] = living  # type: ignore[attr-defined]  # noqa: SLF001
        logging._handlers.update(named)  # type: ignore[attr-defined]  # noqa: SLF001
        own = [h for h in root.handlers if h not in handlers and not type(h).__module__.startswith("prefect.")]
        root.handlers[:] = [*handlers, *own]
        root.setLevel(level)


@contextlib.contextmanager
def _unreported() -> Iterator[None]:
    """Import Prefect without its first-run notice and its report over the network.

    At a terminal, Prefect 3.8 does both when it is first imported, unless this variable is set. A person who runs a
    cell has not chosen that; where they import Prefect themselves, it is as ever.
    """
    before = os.environ.get(NO_REPORT)
    os.environ[NO_REPORT] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[NO_REPORT]
        else:
            os.environ[NO_REPORT] = before


NO_REPORT = "DO_NOT_TRACK"


@dataclass(eq=False)
class _Attempt:
    """What passes between the caller and the function that Prefect calls."""

    body: Callable[[], object] | None
    digest: str
    value: object = None
    error: BaseException | None = None
    traceback: TracebackType | None = None
    task_run: TaskRun | None = None
    inside: bool = False
    notes: list[str] = field(default_factory=list)


def _run(attempt: _Attempt, options: Options, key: Key, name: str, context: Mapping[str, Json]) -> BaseException | None:
    """Let Prefect's engine run the attempt to its final state; return what it raised."""
    user = _settings()
    sides = _sides(user.settings)
    witness = _witness(user, options, key, name, str(context.get("notebook") or ""))

    def cell() -> str:
        return _once(attempt, lambda: _as_the_user(sides, user.profile), options.tags)

    if options.log_prints and witness is None:
        attempt.notes += _say_once(NO_PRINTS)
    task = _task(cell, options, name, user.settings, witness)
    try:
        with _quiet(attempt), _slots(options.tags, attempt, witness), _offline(sides, user.profile):
            task()
    except BaseException as error:  # noqa: BLE001  every kind goes back to the caller, who raises it again
        return error
    else:
        NOTEBOOK.wrote(_names(context.get("writes")), cast("TaskRun", attempt.task_run).id)
        return None
    finally:
        if witness and attempt.task_run:
            witness.ended(attempt.task_run)


def _task(
    cell: Callable[[], str], options: Options, name: str, user: Settings, witness: _Witness | None
) -> Task[[], str]:
    from prefect import Task
    from prefect.cache_policies import NO_CACHE

    return Task(
        cell,
        name=name or "cell",
        # A string would be taken for a template, and code is full of braces.
        task_run_name=lambda: name or "cell",
        retries=options.retries,
        retry_delay_seconds=options.retry_delay,
        timeout_seconds=options.timeout,
        persist_result=False,
        cache_result_in_memory=False,
        cache_policy=NO_CACHE,
        # Said outright, because the engine would ask a server for its default.
        result_storage=user.results.local_storage_path,
        on_running=[witness.running] if witness else None,
        # Prefect calls plain functions alone.
        retry_condition_fn=(lambda *seen: witness.failed(*seen)) if witness else None,  # noqa: PLW0108
    )


def _once(attempt: _Attempt, outside: Callable[[], AbstractContextManager[None]], tags: tuple[str, ...]) -> str:
    """Call the body once, as Prefect's task function; the value stays in `attempt`."""
    from prefect.context import TaskRunContext
    from prefect.transactions import get_transaction

    context = cast("TaskRunContext", TaskRunContext.get())
    attempt.task_run = context.task_run
    # Tags given to the task would make the engine ask a server for their concurrency slots.
    context.task_run.tags = list(tags)
    attempt.error = attempt.traceback = None
    body = cast("Callable[[], object]", attempt.body)
    try:
        with outside(), _speaking(attempt):
            value = body()
            attempt.value = _drive(value) if inspect.iscoroutine(value) else value
    except BaseException as error:
        attempt.error = error
        attempt.traceback = error.__traceback__ and error.__traceback__.tb_next
        raise
    finally:
        _hand_over(cast("BaseTransaction", get_transaction()).children, outside)
    return attempt.digest


def _hand_over(opened: Iterable[BaseTransaction], outside: Callable[[], AbstractContextManager[None]]) -> None:
    """Let the hooks of the transactions that the body opened find the user's settings, as the body did.

    Prefect commits them, or rolls them back, with the task's own transaction: after the body, among the engine's.
    """
    for transaction in opened:
        for hooks in (transaction.on_commit_hooks, transaction.on_rollback_hooks):
            hooks[:] = [_inside(hook, outside) for hook in hooks]
        _hand_over(transaction.children, outside)


def _inside(hook: Hook, outside: Callable[[], AbstractContextManager[None]]) -> Hook:
    if inspect.iscoroutinefunction(hook):

        @wraps(hook)
        async def later(transaction: BaseTransaction) -> None:
            with outside():
                await hook(transaction)

        return cast("Hook", later)

    @wraps(hook)
    def now(transaction: BaseTransaction) -> None:
        with outside():
            hook(transaction)

    return now


def _as_raised(error: BaseException, attempt: _Attempt, options: Options) -> BaseException:
    """Return what the caller is to see: the body's own exception, its traceback starting in the body."""
    if isinstance(error, TimeoutError) and error is not attempt.error and options.timeout:
        late = CellTimeout(
            f"the cell ran longer than its timeout of {options.timeout:g} s",
            remedy="give it more time with --timeout, or leave the option out",
        )
        return late.with_traceback(_without_prefect(attempt.traceback))
    return error.with_traceback(attempt.traceback) if error is attempt.error else error


def _without_prefect(traceback: TracebackType | None) -> TracebackType | None:
    """Return a traceback that ends where Prefect's alarm struck, without the alarm's own frames."""
    if traceback is None or traceback.tb_frame.f_globals.get("__name__", "").startswith("prefect."):
        return None
    rest = _without_prefect(traceback.tb_next)
    return TracebackType(rest, traceback.tb_frame, traceback.tb_lasti, traceback.tb_lineno)


def _facts(attempt: _Attempt, options: Options) -> dict[str, Json]:
    """Return what ``Run.prefect`` keeps of a finished task run."""
    import prefect

    run = cast("TaskRun", attempt.task_run)
    return {
        "task_run_id": str(run.id),
        "name": run.name,
        "state": run.state_name,
        "state_type": run.state_type and run.state_type.value,
        "run_count": run.run_count,
        "tags": list(options.tags),
        "version": prefect.__version__,
        "notes": list(attempt.notes),
    }


def _names(json: Json) -> list[str]:
    return [name for name in json if isinstance(name, str)] if isinstance(json, list) else []


def _say_once(note: str) -> list[str]:
    """Return a note for the user where this process has not given it yet."""
    if note in _said:
        return []
    _said.add(note)
    return [note]


_said: set[str] = set()


# A configured server. ----------------------------------------------------------------------------------------


def report_hit(entry: Entry, key: Key, notebook: str = "") -> UUID:
    """Tell a configured server, in the background, that a cell was restored; without one, do next to nothing.

    Returns the id of the task run by which the server knows the hit.
    """
    return NOTEBOOK.hit(entry, key, notebook)


@contextlib.contextmanager
def printing() -> Generator[Callable[[str], None] | None]:
    """Give, inside a cell's body, what takes the printed text as the log of its task run; None without a server."""
    from prefect.context import TaskRunContext

    if (reporter := NOTEBOOK.told) is None:
        yield None
        return
    printed = Printed(reporter, cast("TaskRunContext", TaskRunContext.get()).task_run.id)
    try:
        yield printed.write
    finally:
        printed.close()


def report_artifacts(entry: Entry, run: UUID, notebook: str = "") -> list[str]:
    """Give a configured server a preview of each frame of an entry, in the background, as artifacts of a task run.

    Returns what the user should hear: once, where no server is configured.
    """
    if NOTEBOOK.artifacts(run, lambda: _artifacts(entry, Path(notebook).stem), notebook):
        return []
    return _say_once(NO_ARTIFACTS)


def _artifacts(entry: Entry, notebook: str) -> Iterator[Artifact]:
    frames = (o for o in entry.manifest.outputs if "rows" in o.meta and o.codec != "array")
    for output in frames:
        yield _artifact(entry, output, notebook)


def _artifact(entry: Entry, output: Output, notebook: str) -> Artifact:
    from .preview import Preview

    preview = Preview.of(entry, output)
    try:
        page = preview.page(0, SHOWN_ROWS, columns=(0, SHOWN_COLUMNS))
    finally:
        preview.close()
    labels = [column.name for column in page.columns]  # Preview gives each a name of its own
    parts = [f"{page.total:,} rows", f"{page.total_columns:,} columns", size_text(output.size)]
    if page.total > len(page.rows) or page.total_columns > len(labels):
        parts.append(f"here the first {len(page.rows):,} and {len(labels):,}")
    return Artifact(
        key=re.sub(r"[^a-z0-9]+", "-", f"{notebook}-{output.name}".lower()).strip("-") or "frame",
        description=f"**{output.name}**: {output.kind}, {', '.join(parts)}, in entry `{entry.digest[:12]}`",
        rows=[dict(zip(labels, row, strict=True)) for row in page.rows],
    )


NOTEBOOK = Notebook()
"""This process's notebook, as a server knows it."""


class _Witness:
    """Tells the reporter what Prefect's public hooks let us see of one task run."""

    def __init__(self, reporter: Reporter, told: Told) -> None:
        self.reporter = reporter
        self.told = told
        self.last: UUID | None = None

    def running(self, _task: object, run: TaskRun, state: State) -> None:
        step = Step("RUNNING", state.name or "Running")
        if self.last is None:
            self.reporter.begin(dataclasses.replace(self.told, id=run.id), step)
        elif self.last != state.id:  # the engine calls the hook once more on its way out of an interrupted run
            self.reporter.change(run.id, step)
        self.last = state.id

    def failed(self, _task: object, run: TaskRun, state: State) -> bool:
        self.reporter.change(run.id, Step("SCHEDULED", "AwaitingRetry", state.message or ""))
        return True

    def ended(self, run: TaskRun) -> None:
        state = run.state
        if self.last and state is not None:
            self.reporter.change(run.id, Step(state.type.value, state.name or "", state.message or ""))


def _witness(user: SettingsContext, options: Options, key: Key, name: str, notebook: str) -> _Witness | None:
    if not user.settings.api.url:
        return None
    told = Told(UUID(int=0), name or "cell", options.tags, options.retries, options.retry_delay, NOTEBOOK.upstream(key))
    return _Witness(NOTEBOOK.reporter(user, notebook), told)


@contextlib.contextmanager
def _slots(tags: tuple[str, ...], attempt: _Attempt, witness: _Witness | None) -> Generator[None]:
    """Hold the concurrency slots of the tags, as Prefect's engine would, where a server can give them.

    A full limit is waited for, since that is what a limit is for. A server that does not answer is not.
    """
    with contextlib.ExitStack() as slots:
        if tags and witness is None:
            attempt.notes += _say_once(NO_LIMITS)
        elif tags and witness is not None:
            attempt.notes += _take(slots, tags, witness.reporter)
        try:
            yield
        finally:
            attempt.notes += _give_back(slots)


def _take(slots: contextlib.ExitStack, tags: tuple[str, ...], reporter: Reporter) -> list[str]:
    import httpx
    from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
    from prefect.concurrency.sync import concurrency
    from prefect.settings import temporary_settings

    unanswered = f"tags were recorded without their concurrency limits: {reporter.url} did not answer"
    if reporter.health == "down":
        return _say_once(unanswered)
    brief = {"api.request_timeout": PATIENCE, "client.max_retries": 0, "client.server_version_check_enabled": False}
    try:
        with temporary_settings(brief):
            slots.enter_context(concurrency([f"tag:{tag}" for tag in tags], occupy=1))
    except (ConcurrencySlotAcquisitionError, httpx.HTTPError, OSError) as error:
        return _say_once(f"{unanswered} ({error.__cause__ or error})")
    return []


def _give_back(slots: contextlib.ExitStack) -> list[str]:
    import httpx

    try:
        slots.close()
    except (httpx.HTTPError, OSError) as error:
        # The lease that the slots are held on runs out by itself.
        return _say_once(f"concurrency slots could not be given back: {error}")
    return []


# Where Prefect is held off the network. ----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Sides:
    """The settings on either side of the task function, for one state of the user's own settings."""

    user: Settings
    engine: Settings
    body: Settings


@contextlib.contextmanager
def _offline(sides: _Sides, profile: Profile) -> Generator[None]:
    """Let the engine find settings that name no server, and a client that it needs not call."""
    from prefect.context import SettingsContext, SyncClientContext

    with (
        SettingsContext(profile=profile, settings=sides.engine),
        SyncClientContext.model_construct(client=_client()),
    ):
        yield


def _sides(user: Settings) -> _Sides:
    """Return the settings for the engine and for the body; kept, since deriving them takes 40 ms and a task 3."""
    if not _known or _known[-1].user is not user:
        engine = user.copy_with_update(
            # Without a URL and with a key, Prefect concludes that there is nobody to send events to and that
            # it may not start a server of its own.
            updates={
                "api.key": "none",
                "server.ephemeral.enabled": False,
                "client.server_version_check_enabled": False,
                "logging.to_api.enabled": False,
            },
            restore_defaults=["api.url"],
        )
        # Where there is no server the body's own log lines go to the console alone: to send them on, Prefect
        # would start one.
        body = user if user.api.url else user.copy_with_update(updates={"logging.to_api.enabled": False})
        _known[:] = [_Sides(user, engine, body)]
    return _known[-1]


_known: list[_Sides] = []


@cache
def _client() -> SyncPrefectClient:
    """Return the one client that stands in every task's context: making one takes longer than a task's run."""
    from prefect.client.orchestration import SyncPrefectClient

    # Entered and never left: a client that was closed once cannot be used again.
    return SyncPrefectClient(NOWHERE).__enter__()


@contextlib.contextmanager
def _as_the_user(sides: _Sides, profile: Profile) -> Generator[None]:
    """Give the body the user's own settings, client and result storage while it runs."""
    from prefect.context import SettingsContext, SyncClientContext, TaskRunContext
    from prefect.results import get_default_persist_setting_for_tasks

    context = cast("TaskRunContext", TaskRunContext.get())
    store = context.result_store
    token = SyncClientContext.__var__.set(cast("SyncClientContext", None))
    try:
        with SettingsContext(profile=profile, settings=sides.body):
            context.persist_result = get_default_persist_setting_for_tasks()
            context.result_store = store.model_copy(update={"result_storage": None})
            yield
    finally:
        SyncClientContext.__var__.reset(token)
        context.persist_result, context.result_store = False, store


def _settings() -> SettingsContext:
    from prefect.context import get_settings_context

    return get_settings_context()


# What the engine says of itself. -----------------------------------------------------------------------------


class _Filter(logging.Filter):
    """Pass what the body logs; hold back what the engine says of its own doing."""

    def __init__(self, attempt: _Attempt) -> None:
        super().__init__()
        self.attempt = attempt

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002  logging calls it so
        return self.attempt.inside


@contextlib.contextmanager
def _quiet(attempt: _Attempt) -> Generator[None]:
    """Keep the engine's log lines out of the notebook: the status line says what it has to say."""
    only_the_body = _Filter(attempt)
    loggers = [logging.getLogger(name) for name in QUIET]
    for logger in loggers:
        logger.addFilter(only_the_body)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(only_the_body)


@contextlib.contextmanager
def _speaking(attempt: _Attempt) -> Generator[None]:
    attempt.inside = True
    try:
        yield
    finally:
        attempt.inside = False


# Bodies with a top-level await. ------------------------------------------------------------------------------


def _drive(work: Coroutine[object, object, object]) -> object:
    """Run a coroutine to its end in this thread, also where a loop is running in it already (ipykernel's is).

    The running loop is set aside, not re-entered: it would take the next message from the front end and
    start the next cell in the middle of this one.
    """
    inner: list[asyncio.Task[object]] = []

    async def main() -> object:
        inner.append(cast("asyncio.Task[object]", asyncio.current_task()))
        return await work

    running = asyncio._get_running_loop()  # noqa: SLF001
    asyncio._set_running_loop(None)  # noqa: SLF001
    try:
        return _runner().run(main(), context=contextvars.copy_context())
    finally:
        _abandon(inner)
        asyncio._set_running_loop(running)  # noqa: SLF001


def _abandon(tasks: list[asyncio.Task[object]]) -> None:
    """Cancel what a timeout or an interrupt left unfinished, so that it does not go on in the next cell."""
    for task in tasks:
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                _runner().get_loop().run_until_complete(task)


@cache
def _runner() -> asyncio.Runner:
    """Return the private loop; one for the process, so that what one cell opened serves the next."""
    return asyncio.Runner()
