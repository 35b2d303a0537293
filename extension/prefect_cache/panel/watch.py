"""Notices that a store has changed, whoever changed it: another cell, another kernel, the command line."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EVERY = 1.0
"""Seconds between two looks; each is two ``stat`` calls."""


State = tuple[int, int]
"""When entries last came or went, and when one was last used or pinned."""


def state_of(root: Path) -> State:
    """Return what differs after a store has changed."""
    return _changed_at(root / "entries"), _changed_at(root / "touched")


class Watcher:
    """Calls `changed` when entries came, went or were used; looks only while it is started."""

    def __init__(self, root: Path, changed: Callable[[], object], every: float = EVERY) -> None:
        self._root = root
        self._changed = changed
        self._every = every
        self._stop: threading.Event | None = None

    def start(self) -> None:
        """Begin to look, unless begun."""
        if self._stop is None:
            self._stop = threading.Event()
            thread = threading.Thread(target=self._look, args=(self._stop,), name="prefect-cache-watch", daemon=True)
            thread.start()

    def stop(self) -> None:
        """Look no more."""
        if self._stop is not None:
            self._stop.set()
            self._stop = None

    def _look(self, stop: threading.Event) -> None:
        entries, touched = state_of(self._root)
        while not stop.wait(self._every):
            now, noted = state_of(self._root)
            # A list of touched entries that is gone was read by someone; that alone is no change.
            if now != entries or (noted and noted != touched):
                self._changed()
            entries, touched = now, noted


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
