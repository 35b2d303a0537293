"""Work in the background: one thread that does one thing after another and ends when nothing waits."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

Work = Callable[[Callable[[], bool]], None]
"""Some work; it asks the given function from time to time whether to stop."""

log = logging.getLogger(__name__)


class _Job:
    def __init__(self, work: Work, tag: str) -> None:
        self.work = work
        self.tag = tag
        self.stopped = False


class Jobs:
    """Does work in the order in which it came."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[_Job] = deque()
        self._running: _Job | None = None
        self._thread: threading.Thread | None = None

    def put(self, work: Work, *, instead_of: str = "") -> None:
        """Do some work later, instead of all earlier work that was put with the same words."""
        with self._lock:
            if instead_of:
                self._stop(instead_of)
            self._waiting.append(_Job(work, instead_of))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="prefect-cache-panel", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Ask whatever runs to stop, and forget what waits."""
        with self._lock:
            self._stop(None)

    def _stop(self, tag: str | None) -> None:
        for job in (*self._waiting, *([self._running] if self._running else [])):
            job.stopped = job.stopped or tag is None or job.tag == tag

    def _run(self) -> None:
        while (job := self._next()) is not None:
            if not job.stopped:
                try:
                    job.work(lambda job=job: job.stopped)  # type: ignore[misc]
                except Exception:  # a column that has no statistics must not end the thread
                    log.debug("background work of the panel failed", exc_info=True)

    def _next(self) -> _Job | None:
        with self._lock:
            self._running = self._waiting.popleft() if self._waiting else None
            if self._running is None:
                self._thread = None
            return self._running
