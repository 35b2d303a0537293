"""What is shown while people wait for us: a bar where the end is known, a sentence with the seconds where it is not.

Nothing is shown in the first second, and nothing is left when the work is done.
"""

from __future__ import annotations

import html
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from prefect_cache.units import size_text

if TYPE_CHECKING:
    from typing import Self

PATIENCE: Final = 1.0
"""Seconds that pass before anything is shown."""

EVERY: Final = 0.2
"""Seconds between two pictures."""


class Show(Protocol):
    """What displays our things."""

    def __call__(self, thing: object, display_id: str | None = None, *, update: bool = False) -> None:
        """Display `thing`, or put it in the place of what has that id."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One picture: what is being done, and how much of it is; without words it is empty, without a total only words."""

    what: str = ""
    done: int = 0
    total: int = 0

    def __repr__(self) -> str:
        """Return the picture as text."""
        if not self.total:
            return self.what
        filled = 20 * self.done // self.total
        return f"{self.what} [{'#' * filled}{'-' * (20 - filled)}] {100 * self.done // self.total} %"

    def _repr_html_(self) -> str:
        if not self.what:
            return ""
        bounds = f' value="{self.done}" max="{self.total}"' if self.total else ""
        return f"{html.escape(self.what)} <progress{bounds}></progress>"


class _Place:
    """Where the pictures appear: one display, made with the first of them."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._id = ""

    def put(self, bar: Bar) -> None:
        first = not self._id
        self._id = self._id or f"prefect-cache-{os.urandom(8).hex()}"
        self._show(bar, self._id, update=not first)

    def clear(self) -> None:
        if self._id:
            self._show(Bar(), self._id, update=True)


class Progress:
    """Work whose end is known: called with what is done and the total, it shows a bar."""

    def __init__(self, show: Show, what: str) -> None:
        self._place = _Place(show)
        self._what = what
        self._next = time.monotonic() + PATIENCE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._place.clear()

    def __call__(self, done: int, total: int) -> None:
        """Show how far the work is."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + EVERY
            self._place.put(Bar(self._what, done, max(1, total)))


class Waiting:
    """Work that tells what it is doing, by `says`, and perhaps how much of it is done: a thread shows it.

    While nothing is said (the cell itself runs) nothing is shown, so that no picture of ours gets among its outputs.
    """

    def __init__(self, show: Show) -> None:
        self._place = _Place(show)
        self._what = ""
        self._since = 0.0
        self._extent = (0, 0)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="prefect-cache-progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        self._thread.join()
        self._place.clear()

    def says(self, what: str) -> None:
        """Say what is being done from now on, or nothing; a picture that is being drawn is finished first."""
        with self._lock:
            self._what, self._since, self._extent = what, time.monotonic(), (0, 0)
            if not what:
                self._place.clear()

    def __call__(self, done: int, total: int) -> None:
        """Take down how far the work is, in bytes; a total of 0 is not known. Costs next to nothing."""
        self._extent = (done, total)

    def _watch(self) -> None:
        while not self._over.wait(EVERY):
            with self._lock:
                waited = time.monotonic() - self._since
                if self._what and waited >= PATIENCE:
                    self._place.put(self._bar(waited))

    def _bar(self, waited: float) -> Bar:
        done, total = self._extent
        if total:
            return Bar(f"{self._what}, {size_text(done)} of {size_text(total)}", done, total)
        return Bar(f"{self._what}, {size_text(done)}, {waited:.0f} s" if done else f"{self._what}, {waited:.0f} s")
