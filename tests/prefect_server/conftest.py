"""One real Prefect server for the session, on loopback, with a home and a port of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servers import Server, start

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefect.client.orchestration import SyncPrefectClient


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The session's server."""
    running = start(tmp_path_factory.mktemp("prefect-server"))
    yield running
    running.stop()


@pytest.fixture
def configured(server: Server) -> Iterator[Server]:
    """The server, named by the settings in force in this test."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: server.url}):
        yield server


@pytest.fixture
def api(configured: Server) -> Iterator[SyncPrefectClient]:
    """A client to read back what the server was told."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        yield client
