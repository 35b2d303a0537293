"""Files that are opened where Python cannot see it, told by the kernel (inotify).

Native readers (Parquet, DuckDB, HDF5) and programs started by a cell open files without an audit event.
Linux tells who watches the folder that something in it was opened, written, made or
moved, though not by whom: see :mod:`prefect_cache.cells.observe` for what counts.

One :class:`Watch` lives as long as the process, so that folders are walked once and not for
each cell. Where there is no inotify, or its limits are reached, `follows` says so.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ACCESS, MODIFY, MOVED_FROM, MOVED_TO, CREATE, DELETE, OPEN = 0x1, 0x2, 0x40, 0x80, 0x100, 0x200, 0x20
OVERFLOW, IGNORED, FOLDER = 0x4000, 0x8000, 0x40000000
_CLOSED_UNCHANGED, _ONLY_FOLDERS, _ONCE = 0x10, 0x01000000, 0x80000000
_MASK = MODIFY | MOVED_FROM | MOVED_TO | CREATE | DELETE | OPEN | _ONLY_FOLDERS
_NONBLOCKING = os.O_NONBLOCK | os.O_CLOEXEC if hasattr(os, "O_CLOEXEC") else os.O_NONBLOCK

_HEADER = struct.Struct("iIII")
_READ = 2**16

MAX_FOLDERS = 20_000
"""Folders that one process watches at most; each costs the kernel about a kilobyte."""

MAX_SECONDS = 0.1
"""How long the walk through the working folder may take; it goes level by level, so what is near comes first."""

PASSED_OVER = frozenset({"__pycache__", "node_modules", "site-packages", "venv", "env"})


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to `path`: bits of the constants above."""

    path: str
    what: int


class Watch:
    """Folders whose files' openings and changes are told."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
        self._fd = self._libc.inotify_init1(_NONBLOCKING) if self._libc is not None else -1
        self._paths: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        self._files: dict[int, str] = {}
        self._walked: dict[str, bool] = {}  # trees, and whether nothing in them was left out
        self._pid = os.getpid()
        self.overflowed = False

    @property
    def working(self) -> bool:
        """Whether anything is told at all; a forked child does not share its parent's watch."""
        return self._fd >= 0 and self._pid == os.getpid()

    def follows(self, folder: str) -> bool:
        """Tell whether what happens to files directly in `folder` is told."""
        return self.working and folder in self._numbers

    def follow(self, folder: str) -> bool:
        """Watch one folder, links resolved; tell whether that worked."""
        if folder in self._numbers:
            return True
        if not self.working or self._libc is None or len(self._numbers) >= MAX_FOLDERS:
            return False
        number = self._libc.inotify_add_watch(self._fd, os.fsencode(folder), _MASK)
        if number < 0:
            return False
        self._forget(self._paths.get(number))  # the same folder under an older name
        self._paths[number] = folder
        self._numbers[folder] = number
        return True

    def follow_file(self, path: str) -> bool:
        """Be told of the first reading of a file, until :meth:`leave_files`; tell whether that worked.

        It is read where something in it is, or where it is closed by someone who could not write to it: who maps a file
        reads it unseen.
        """
        if not self.working or self._libc is None or len(self._files) >= MAX_FOLDERS:
            return False
        mask = ctypes.c_uint32(ACCESS | _CLOSED_UNCHANGED | _ONCE)
        number = self._libc.inotify_add_watch(self._fd, os.fsencode(path), mask)
        if number >= 0:
            self._files[number] = path
        return bool(number >= 0)

    def leave_files(self) -> None:
        """Be told of no more readings."""
        for number in self._files:
            if self._libc is not None:
                self._libc.inotify_rm_watch(self._fd, number)
        self._files.clear()

    def follow_tree(self, root: str, seconds: float = MAX_SECONDS) -> bool:
        """Watch a folder and those below it, level by level within bounds; tell whether nothing was left out."""
        if root not in self._walked:
            self._walked[root] = self._walk(root, time.monotonic() + seconds)
        return self._walked[root]

    def _walk(self, root: str, deadline: float) -> bool:
        level = [root]
        while level:
            following: list[str] = []
            for folder in level:
                if time.monotonic() > deadline or not self.follow(folder):
                    return False
                following += self._below(folder)
            level = following
        return True

    def _below(self, folder: str) -> list[str]:
        """Return the folders in `folder`; where a link leads is watched too."""
        found: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        self._follow_link(entry.path)
                    elif entry.is_dir(follow_symlinks=False) and _is_walked(entry.name):
                        found.append(entry.path)
        except OSError:  # gone, or not ours to read: then the cell cannot read it either
            return []
        return found

    def _follow_link(self, path: str) -> None:
        target = os.path.realpath(path)
        self.follow(target if os.path.isdir(target) else os.path.dirname(target))

    def drain(self) -> list[Event]:
        """Return what happened since the last time, in order; watch folders that have come."""
        events = [*self._read()] if self.working else []
        for event in events:
            if event.what & FOLDER and event.what & (CREATE | MOVED_TO):
                self.follow_tree(event.path)
        return events

    def _read(self) -> Iterator[Event]:
        while True:
            try:
                data = os.read(self._fd, _READ)
            except BlockingIOError:
                return
            start = 0
            while start < len(data):
                number, what, _, length = _HEADER.unpack_from(data, start)
                name = data[start + _HEADER.size : start + _HEADER.size + length].rstrip(b"\0")
                start += _HEADER.size + length
                if what & OVERFLOW:
                    self.overflowed = True
                if what & (ACCESS | _CLOSED_UNCHANGED) and number in self._files:
                    yield Event(self._files[number], ACCESS)
                    continue
                folder = self._paths.get(number)
                if what & IGNORED:
                    self._files.pop(number, None)
                    self._forget(folder)
                elif folder is not None:
                    yield Event(os.path.join(folder, os.fsdecode(name)) if name else folder, what)

    def _forget(self, folder: str | None) -> None:
        if folder is not None:
            self._paths.pop(self._numbers.pop(folder, -1), None)
            self._walked = {root: whole for root, whole in self._walked.items() if not _is_in(folder, root)}


def _is_walked(name: str) -> bool:
    return not name.startswith(".") and name not in PASSED_OVER


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
