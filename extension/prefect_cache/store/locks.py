"""Locks that die with their holder: ``flock`` on a small file, with a word on who holds it.

The kernel drops such a lock when the holder's last descriptor closes, however the process ends.
Nothing that must be right rests on these locks: where a file system has none, the lock is simply
not held, cells may run twice, and publishing is safe all the same.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING

from prefect_cache.store.sharing import like_parent

try:
    import fcntl
except ImportError:  # Windows: no lock is ever held there
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Self

POLL = 0.02
"""Seconds between two tries while waiting for a lock."""

LONGEST_NOTE = 1024
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
"""What a file system without locks answers."""

_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


class Busy(BlockingIOError):
    """Another holder has the lock; `holder` describes it."""

    def __init__(self, holder: str) -> None:
        super().__init__(errno.EAGAIN, f"held by {holder}")
        self.holder = holder


class FileLock:
    """One lock file that is held; closing it frees the lock and removes the file."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor
        _held.add(self)

    def close(self) -> None:
        """Free the lock. The file goes first: whoever waits for it finds that it is gone and makes another."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):  # the store may have been removed, or be read-only by now
            if _same_file(self._descriptor, self.path):
                self.path.unlink()
        self.drop()

    def drop(self) -> None:
        """Close this process's descriptor alone: in a forked child, the parent goes on holding the lock."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _drop_in_child() -> None:
    # A child that outlives its parent must not keep the parent's locks alive.
    for lock in list(_held):
        lock.drop()
    _own_keys.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_in_child)


def acquire(path: Path, *, note: str = "", wait: bool = False, make: bool = True) -> FileLock:
    """Lock the file `path`, made if need be and `make` says so.

    Raises
    ------
    Busy
        Someone else holds it and `wait` is false.
    OSError
        The file cannot be made, or its file system has no locks.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if make else 0), 0o600)
        try:
            with contextlib.suppress(FileNotFoundError):  # removed by the holder before us, see below
                like_parent(path)
            _flock(descriptor, wait=wait)
            if _same_file(descriptor, path):
                _write_note(descriptor, note)
                return FileLock(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the holder before us removed the file that we waited for: it locks nothing any more


def _flock(descriptor: int, *, wait: bool) -> None:
    if fcntl is None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    while True:
        try:
            # Asked again and again: a signal that comes just before a blocking call does not interrupt it.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise Busy(_read_note(descriptor)) from None
            time.sleep(POLL)
        else:
            return


def _same_file(descriptor: int, path: Path) -> bool:
    ours = os.fstat(descriptor)
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(ours, there)


def _write_note(descriptor: int, note: str) -> None:
    with contextlib.suppress(OSError):  # a full disk: the lock holds without a note
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, note.encode()[:LONGEST_NOTE], 0)


def _read_note(descriptor: int) -> str:
    return os.pread(descriptor, LONGEST_NOTE, 0).decode("utf-8", "replace") or "another process"


def describe_holder(*, notebook: str = "") -> str:
    """Return who holds a lock, for people: process, host and notebook."""
    where = f" ({notebook})" if notebook else ""
    return f"process {os.getpid()} on {os.uname().nodename if hasattr(os, 'uname') else 'this host'}{where}"


_own_keys: set[tuple[Path, int]] = set()


@contextlib.contextmanager
def one_at_a_time(path: Path, *, note: str, on_wait: Callable[[str], None]) -> Iterator[bool]:
    """Hold the lock file `path` through the block, after waiting for whoever has it.

    Yields whether the lock is held: it is not where the file system has no locks or cannot be
    written, nor where this thread holds it already (a cell within a cell must not wait for itself).
    """
    mine = (path, threading.get_ident())
    if mine in _own_keys:
        yield False
        return
    lock = _wait_for(path, note, on_wait)
    if lock is None:
        yield False
        return
    _own_keys.add(mine)
    try:
        with lock:
            yield True
    finally:
        _own_keys.discard(mine)


def _wait_for(path: Path, note: str, on_wait: Callable[[str], None]) -> FileLock | None:
    try:
        try:
            return acquire(path, note=note)
        except Busy as busy:
            on_wait(busy.holder)
            return acquire(path, note=note, wait=True)
    except OSError:
        # No locks here, or a store that cannot be written: the save will say so, the lock need not.
        return None
