"""Prefect's engine without a server, for the tests of tasks that are not cells."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def offline(results: Path) -> Iterator[None]:
    """Run tasks here as a cell's body runs: no server is asked, and results are stored in a folder."""
    from prefect.context import get_settings_context
    from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings

    from prefect_cache import tasks

    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: results}):
        user = get_settings_context()
        with tasks._offline(tasks._sides(user.settings), user.profile):
            yield
