"""What a configured Prefect server is told about a notebook: one flow run, a task run for each cell, their states.

The server hears of everything from one daemon thread with a bounded queue, by the client's public methods. A server
that is slow, down or dies in mid-session therefore costs a cell nothing but the line in its status that
says so, once. What does not fit in the queue is dropped; what the server refuses is dropped; what it does not answer
is sent again, in order, until it is back.

The times that the server records are those at which it was told; they lag behind by the milliseconds that the
queue takes. (The alternative, Prefect's own event stream, keeps exact times, but its format is private to Prefect
and its worker waits for the server when the process ends.)
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import os
import queue
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast
from uuid import UUID, uuid4

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import State
    from prefect.context import SettingsContext
    from prefect.types import DateTime

    from .model import Entry, Json, Key

    Job = Callable[[SyncPrefectClient, UUID], object]

ROOM = 1000
"""Reports that may wait for a server before new ones are dropped."""

PATIENCE = 5.0
"""Seconds that one request may take."""

PAUSES = (0.2, 1.0, 5.0, 15.0)
"""Seconds between attempts to reach a server that does not answer; the last one repeats."""

FAREWELL = 4.0
"""Seconds that the end of the process may wait for the last reports; Jupyter waits five before it kills a kernel."""

LINES = 500
"""Log lines that one request takes."""

HELD = 1.0
"""Seconds for which printed lines are gathered before they are sent as one report."""

DETOUR = 2.0
"""Seconds before Prefect is imported for reports of hits alone: the import would slow the notebook's first cells."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the server is told of a task run when it begins."""

    id: UUID
    name: str
    tags: tuple[str, ...] = ()
    retries: int = 0
    retry_delay: float = 0.0
    upstream: Mapping[str, UUID] = field(default_factory=dict)
    """The names that the cell reads, each with the task run that the value came from."""


@dataclass(frozen=True, slots=True)
class Step:
    """A state that a run entered: Prefect's word for its type and its name, without any data."""

    type: str
    name: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A table that the server shows with a task run; artifacts of one `key` are the versions of one thing to it."""

    key: str
    description: str
    rows: Sequence[Mapping[str, Json]]


class Reporter:
    """Tells one server of one notebook, if there is a server.

    Parameters
    ----------
    user
        The Prefect settings that name the server; None: the process's, found out in the background.
    notebook
        Becomes the flow's name.
    """

    def __init__(self, user: SettingsContext | None, notebook: str) -> None:
        self.url = _url(user) if user else ""
        self.notebook = _flow_name(notebook)
        self.health: Literal["unknown", "up", "down", "none"] = "unknown"
        self.dropped = 0
        self.refused: list[str] = []
        self.flow_run_id: UUID | None = None
        self.pid = os.getpid()
        self._user = user
        self._jobs: queue.Queue[Job | None] = queue.Queue(ROOM)
        self._closing = threading.Event()
        # A context of its own: the thread must see none of the cell's variables, a Prefect run least of all.
        self._thread = threading.Thread(
            target=contextvars.Context().run, args=(self._work,), name="prefect_cache-reporter", daemon=True
        )
        self._thread.start()
        atexit.register(self.close)

    # What can be told; every method returns at once.

    def begin(self, run: Told, step: Step) -> None:
        """Tell that a task run exists, in the state `step`."""
        self._tell(lambda client, flow_run: _create(client, flow_run, run, step))

    def change(self, run: UUID, step: Step) -> None:
        """Tell that a task run entered the state `step`."""
        self._tell(lambda client, _flow_run: client.set_task_run_state(run, _state(step), force=True))

    def log(self, run: UUID, text: str) -> None:
        """Give the server what the cell printed, as log lines of its task run."""
        now = datetime.now(UTC)
        self._tell(lambda client, flow_run: _log(client, flow_run, run, text, now))

    def artifacts(self, run: UUID, make: Callable[[], Iterable[Artifact]]) -> None:
        """Give the server artifacts of a task run; `make` is called in the background."""
        self._tell(lambda client, flow_run: _artifacts(client, flow_run, run, make()))

    def _tell(self, job: Job) -> None:
        if self.health == "none" or self.pid != os.getpid():
            return  # there is no server; or this is a forked child, and the thread stayed behind in the parent
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            self.dropped += 1

    def flush(self, seconds: float) -> bool:
        """Wait until all that was told so far has arrived, at most so long; return whether it has."""
        arrived = threading.Event()
        self._tell(lambda _client, _flow_run: arrived.set())
        return arrived.wait(seconds)

    def close(self) -> None:
        """Tell that the notebook's flow run is over, and end the thread; never takes long."""
        atexit.unregister(self.close)
        if self.pid != os.getpid() or self._closing.is_set():
            return
        self._closing.set()
        with contextlib.suppress(queue.Full):
            self._jobs.put_nowait(None)
        self._thread.join(FAREWELL)

    # The thread.

    def _work(self) -> None:
        if "prefect" not in sys.modules:
            self._closing.wait(DETOUR)
        from prefect.client.orchestration import SyncPrefectClient
        from prefect.context import SettingsContext, get_settings_context

        user = self._user or get_settings_context()
        self.url = _url(user)
        if not self.url:
            self.health = "none"
            return
        settings = user.settings.copy_with_update(
            updates={
                "api.request_timeout": PATIENCE,
                "client.max_retries": 0,
                "client.server_version_check_enabled": False,
            }
        )
        key, password = settings.api.key, settings.api.auth_string
        with (
            SettingsContext(profile=user.profile, settings=settings),
            SyncPrefectClient(
                self.url,
                api_key=key.get_secret_value() if key else None,
                auth_string=password.get_secret_value() if password else None,
            ) as client,
        ):
            while job := self._jobs.get():
                self._deliver(job, client)
            self._end(client)

    def _deliver(self, job: Job, client: SyncPrefectClient) -> None:
        """Carry out a job, again and again while the server does not answer."""
        import httpx

        attempt = 0
        while True:
            try:
                job(client, self._flow_run(client))
            except httpx.HTTPStatusError as refusal:
                if refusal.response.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                    self.refused.append(str(refusal))
                    return
            except httpx.TransportError:
                pass
            except Exception as error:  # noqa: BLE001  one report that cannot be made must not end all others
                self.refused.append(repr(error))
                return
            else:
                self.health = "up"
                return
            self.health = "down"
            if self._closing.wait(PAUSES[min(attempt, len(PAUSES) - 1)]):
                return
            attempt += 1

    def _flow_run(self, client: SyncPrefectClient) -> UUID:
        """Return the notebook's flow run; made when there is something to tell."""
        if self.flow_run_id is None:
            from prefect import Flow
            from prefect.states import Running

            run = client.create_flow_run(
                Flow(_cell, name=self.notebook), state=Running(), tags=["prefect-cache", "notebook"]
            )
            self.flow_run_id = run.id
        return self.flow_run_id

    def _end(self, client: SyncPrefectClient) -> None:
        import httpx
        from prefect.states import Completed

        if self.flow_run_id is not None:
            with contextlib.suppress(httpx.HTTPError):
                client.set_flow_run_state(self.flow_run_id, Completed(message="the kernel ended"), force=True)


def _cell() -> None:
    """Stand for the notebook's code where Prefect's client wants a flow or task object to take names from."""


def _create(client: SyncPrefectClient, flow_run: UUID, run: Told, step: Step) -> None:
    from prefect import Task
    from prefect.client.schemas.objects import TaskRunResult

    client.create_task_run(
        Task(_cell, name=run.name, retries=run.retries, retry_delay_seconds=run.retry_delay),
        flow_run,
        dynamic_key=run.id.hex,
        id=run.id,
        name=run.name,
        extra_tags=run.tags,
        state=_state(step),
        task_inputs={name: [TaskRunResult(id=source)] for name, source in run.upstream.items()},
    )


def _state(step: Step) -> State:
    from prefect.client.schemas.objects import State, StateType

    return State(type=StateType(step.type), name=step.name, message=step.message or None)


def _flow_name(notebook: str) -> str:
    """Return a name that Prefect takes for a flow: the notebook's file, without what it bans from names."""
    return re.sub(r"[/%&<>]", "-", Path(notebook).name) or "notebook"


def _url(user: SettingsContext) -> str:
    return str(user.settings.api.url or "")


def _log(client: SyncPrefectClient, flow_run: UUID, run: UUID, text: str, when: datetime) -> None:
    import logging

    from prefect.client.schemas.actions import LogCreate

    logs = [
        LogCreate(
            name="prefect.task_runs",
            level=logging.INFO,
            message=line,
            timestamp=cast("DateTime", when),
            flow_run_id=flow_run,
            task_run_id=run,
        )
        for line in text.splitlines()
        if line
    ]
    for first in range(0, len(logs), LINES):
        client.create_logs(logs[first : first + LINES])


def _artifacts(client: SyncPrefectClient, flow_run: UUID, run: UUID, artifacts: Iterable[Artifact]) -> None:
    import json

    from prefect.client.schemas.actions import ArtifactCreate

    for artifact in artifacts:
        client.create_artifact(
            ArtifactCreate(
                key=artifact.key,
                type="table",
                description=artifact.description,
                data=json.dumps(list(artifact.rows)),
                flow_run_id=flow_run,
                task_run_id=run,
            )
        )


class Printed:
    """Gathers what a cell prints into few reports of whole lines; any thread may write."""

    def __init__(self, reporter: Reporter, run: UUID) -> None:
        self._reporter = reporter
        self._run = run
        self._text: list[str] = []
        self._since = time.monotonic()
        self._lock = threading.Lock()

    def write(self, text: str) -> None:
        """Take what was printed; send what is whole lines if the last report is long enough ago."""
        with self._lock:
            self._text.append(text)
            if "\n" in text and time.monotonic() - self._since > HELD:
                lines, _, rest = "".join(self._text).rpartition("\n")
                self._send(lines, rest)

    def close(self) -> None:
        """Send the rest."""
        with self._lock:
            self._send("".join(self._text), "")

    def _send(self, lines: str, rest: str) -> None:
        self._text, self._since = [rest] if rest else [], time.monotonic()
        if lines.strip():
            self._reporter.log(self._run, lines)


# The notebook's reporter, where a server is configured. ------------------------------------------------------


class Notebook:
    """Which server hears of this process's cells, and which task run each name came from."""

    def __init__(self) -> None:
        self.producers: dict[str, UUID] = {}
        self.told: Reporter | None = None
        """Who tells the server, once there was something to tell."""

    def reporter(self, user: SettingsContext | None, notebook: str) -> Reporter:
        """Return who tells the server that `user` names, or the process's settings do."""
        known = self.told
        if known is not None and (known.pid != os.getpid() or (user is not None and known.url not in {"", _url(user)})):
            known.close()
            known = None
        if known is None:
            known = self.told = Reporter(user, notebook)
        return known

    def upstream(self, key: Key) -> dict[str, UUID]:
        """Return the task runs that the key's inputs came from."""
        read = {part.name for part in key.parts if part.kind in {"input", "function"}}
        return {name: self.producers[name] for name in sorted(read) if name in self.producers}

    def wrote(self, names: Iterable[str], run: UUID) -> None:
        """Note that these names now hold what this task run made."""
        self.producers.update(dict.fromkeys(names, run))

    def hit(self, entry: Entry, key: Key, notebook: str) -> UUID:
        """Report a hit: a task run in the state that Prefect has for it, Completed by the name of Cached."""
        run = Told(uuid4(), entry.manifest.name or "cell", upstream=self.upstream(key))
        self.wrote({output.name for output in entry.manifest.outputs}, run.id)
        if may_be_configured():
            message = f"restored entry {entry.digest[:12]} instead of running {entry.manifest.run.seconds:.1f} s"
            self.reporter(_here(), notebook).begin(run, Step("COMPLETED", "Cached", message))
        return run.id

    def artifacts(self, run: UUID, make: Callable[[], Iterable[Artifact]], notebook: str) -> bool:
        """Give the server artifacts of a task run; return whether a server may be configured."""
        if not may_be_configured() or (reporter := self.reporter(_here(), notebook)).health == "none":
            return False
        reporter.artifacts(run, make)
        return True


def _here() -> SettingsContext | None:
    """Return the settings in force here where Prefect is imported; None where it is not, or not yet whole."""
    context = sys.modules.get("prefect.context")
    get = getattr(context, "get_settings_context", None)
    return get() if get is not None and hasattr(context, "GLOBAL_SETTINGS_CONTEXT") else None


def may_be_configured() -> bool:
    """Tell, without importing Prefect, whether a server may be named anywhere that Prefect looks for one."""
    if user := _here():
        return bool(_url(user))
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    if any(os.environ.get(name) for name in ("PREFECT_API_URL", "PREFECT_PROFILE")):
        return True
    words = {
        profiles: "prefect_api_url",
        Path(".env"): "prefect_",
        Path("prefect.toml"): "url",
        Path("pyproject.toml"): "[tool.prefect",
    }
    return any(word in _text(path).lower() for path, word in words.items())


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
