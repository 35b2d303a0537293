"""Real Prefect servers for the tests, and what they know, read back through their API."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, TaskRun

STARTING = 180
"""Seconds that a server may take to answer: it builds its database first."""


@dataclass(frozen=True)
class Server:
    """A running server: its API's URL, and its process."""

    url: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        """End it and all that it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


def start(home: Path, port: int | None = None) -> Server:
    """Start a server in `home` and wait until it answers."""
    if port is None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    env |= {
        "PREFECT_HOME": str(home),
        "PREFECT_UI_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "server.log").open("ab") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    server = Server(f"http://127.0.0.1:{port}/api", process)
    deadline = time.monotonic() + STARTING
    while not _answers(server.url):
        if process.poll() is not None or time.monotonic() > deadline:
            server.stop()
            pytest.fail(f"the Prefect server did not start:\n{(home / 'server.log').read_text()}")
        time.sleep(0.2)
    return server


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).is_success
    except httpx.TransportError:
        return False


class Told:
    """What the server knows of one flow run, read through its API."""

    def __init__(self, client: SyncPrefectClient, flow_run: UUID) -> None:
        self.client = client
        self.flow_run: FlowRun = client.read_flow_run(flow_run)

    @property
    def task_runs(self) -> dict[str, TaskRun]:
        """The task runs by name, in the order of their beginning."""
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

        runs = self.client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[self.flow_run.id])))
        return {run.name: run for run in sorted(runs, key=lambda run: run.created)}

    def states(self, name: str) -> list[str]:
        """The names of the states that a task run went through."""
        states = self.client.read_task_run_states(self.task_runs[name].id)
        return [state.name for state in sorted(states, key=lambda state: state.timestamp)]
