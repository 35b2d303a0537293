"""Where entries go: into the graveyard, from where they can come back, and into the trash, from where they cannot."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import TYPE_CHECKING

from prefect_cache.store import publish
from prefect_cache.store.sharing import like_parent

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from prefect_cache.store.publish import System

ATTEMPTS = 100
"""How often to begin a new grave because a neighbour has cleared away the last one."""


class Graveyard:
    """The evicted entries of one store, each eviction a folder of its own, named by its time.

    Attributes
    ----------
    folder
        The evictions that can be undone.
    trash
        What is being removed.
    """

    def __init__(self, system: System, root: Path) -> None:
        self.folder = root / "graveyard"
        self.trash = root / "trash"
        self._entries = root / "entries"
        self._system = system

    def bury(self, names: Iterable[str]) -> list[str]:
        """Rename entries into one new eviction; return those that were there."""
        moved: list[str] = []
        grave: Path | None = None
        for name in names:
            for _ in range(ATTEMPTS):
                if not os.path.lexists(self._entries / name):
                    break
                grave = grave or self._dig()
                try:
                    self._system.rename(self._entries / name, grave / name)
                except FileNotFoundError:
                    grave = None  # a neighbour has ended the grace of this one meanwhile, or undone it
                else:
                    moved.append(name)
                    break
        return moved

    def _dig(self) -> Path:
        grave = self.folder / publish.unique_name()
        publish.make_folder(self._system, self.folder)
        self._system.mkdir(grave, 0o700)
        like_parent(grave, self._system.chmod)
        return grave

    def throw(self, paths: Iterable[Path]) -> list[str]:
        """Rename folders into the trash; return the names of those that were there."""
        moved: list[str] = []
        for path in filter(os.path.lexists, paths):
            publish.make_folder(self._system, self.trash)
            with contextlib.suppress(FileNotFoundError):
                self._system.rename(path, self.trash / publish.unique_name())
                moved.append(path.name)
        return moved

    def bring_back(self) -> list[str]:
        """Rename what was evicted last into its place again, unless something newer is there; return the names."""
        for grave, _ in self._graves():
            if back := self._open(grave):
                return back
        return []

    def _open(self, grave: Path) -> list[str]:
        back: list[str] = []
        for body in sorted(_listed(grave)):
            try:
                self._system.rename(body, self._entries / body.name)
            except FileNotFoundError:  # a neighbour was faster
                continue
            except OSError as error:
                if error.errno not in publish.TAKEN:
                    raise
                publish.remove_tree(self._system, body)
            else:
                back.append(body.name)
        try:
            self._system.rmdir(grave)
        except OSError as error:  # undone by a neighbour at once, or he is still filling it
            if error.errno not in {errno.ENOENT, *publish.TAKEN}:
                raise
        return back

    def end_grace(self, seconds: float, budget: int) -> None:
        """Remove the evictions that are older than some seconds, and the oldest ones that exceed a budget in bytes."""
        graves = self._graves()
        overdue = []
        for grave, made in graves:
            budget -= _size(grave) if budget >= 0 else 0
            if budget < 0 or time.time() - made > seconds:
                overdue.append(grave)
        if overdue:
            # Each by one rename first: what is half removed must not be brought back.
            self.throw(overdue)
        self.empty_trash()

    def empty_trash(self) -> None:
        """Unlink what is in the trash."""
        for path in _listed(self.trash):
            publish.remove_tree(self._system, path)

    def size(self) -> int:
        """Return the bytes that evictions still take; a file that lives on under an entry takes none here."""
        return sum(_size(grave) for grave, _ in self._graves())

    def names(self) -> set[str]:
        """Return the entries that can be brought back."""
        return {body.name for grave, _ in self._graves() for body in _listed(grave)}

    def _graves(self) -> list[tuple[Path, float]]:
        """Return the evictions, the latest first, with their times in seconds since the epoch."""
        return [(path, _made(path)) for path in sorted(_listed(self.folder), reverse=True)]


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _made(grave: Path) -> float:
    nanoseconds = grave.name.partition("-")[0]
    return int(nanoseconds) / 1e9 if nanoseconds.isdecimal() else 0.0


def _size(folder: Path) -> int:
    sizes: dict[int, int] = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            status = path.lstat()
            sizes[status.st_ino] = status.st_size if status.st_nlink == 1 else 0
    return sum(sizes.values())
