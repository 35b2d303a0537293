"""A folder appears whole or not at all, and goes the same way.

Everything is written in a draft, a private folder beside ``entries``; what must last is flushed; one
rename makes it an entry. An entry goes by one rename too, into the graveyard (from where it can come
back) or the trash (from where files are unlinked, never truncated: neighbours may have mapped them).
A process may die between any two system calls. What it leaves is a draft whose lock is free, or
trash, and both are swept.

Every system call that changes the store goes through :class:`System`, so that tests can make each fail.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from prefect_cache.errors import StoreUnwritable
from prefect_cache.store import locks
from prefect_cache.store.sharing import like_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BLOCK = 1 << 20
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
STORAGE_FAULTS = FULL | {errno.EIO, errno.EROFS, errno.EFBIG, errno.ENODEV, errno.ESTALE}
TAKEN = frozenset({errno.ENOTEMPTY, errno.EEXIST})
CANNOT_LINK = frozenset(
    {errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSYS, errno.ENOENT, errno.EINVAL}
)


def _exchange(one: Path, other: Path) -> None:
    """Let two folders have each other's names, in one step; ENOSYS where there is no such call."""
    import ctypes  # only a save that replaces an entry needs it

    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if os.name == "posix" else None
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if call(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))


AT_FDCWD, RENAME_EXCHANGE = -100, 2


class System:
    """The system calls by which a store is changed."""

    mkdir = staticmethod(os.mkdir)
    open = staticmethod(os.open)
    write = staticmethod(os.write)
    fsync = staticmethod(os.fsync)
    close = staticmethod(os.close)
    chmod = staticmethod(os.chmod)
    rename = staticmethod(os.rename)
    exchange = staticmethod(_exchange)
    link = staticmethod(os.link)
    unlink = staticmethod(os.unlink)
    rmdir = staticmethod(os.rmdir)


def write_file(system: System, path: Path, data: bytes, mode: int = 0o600) -> None:
    """Make a file that holds `data`; a write cut short goes on where it stopped."""
    descriptor = system.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[system.write(descriptor, view) :]
        system.fsync(descriptor)
    finally:
        system.close(descriptor)
    like_parent(path, system.chmod)


def flush(system: System, path: Path) -> None:
    """Have a file's content, or a folder's names, survive a loss of power."""
    descriptor = system.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        system.fsync(descriptor)
    finally:
        system.close(descriptor)


def flush_folder(system: System, path: Path) -> None:
    """Flush a folder's names where the file system can; some refuse it for folders."""
    try:
        flush(system, path)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EISDIR}:
            raise


def make_folder(system: System, path: Path, mode: int = 0o700) -> None:
    """Have a folder; it is no fault if it is there."""
    with contextlib.suppress(FileExistsError):
        system.mkdir(path, mode)
        like_parent(path, system.chmod)


def remove_tree(system: System, path: Path) -> None:
    """Unlink all below `path` and it too, as far as it is there; links are removed, not followed."""
    try:
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode):
            system.unlink(path)
            return
        inside = list(path.iterdir())
    except FileNotFoundError:
        return
    for below in inside:
        remove_tree(system, below)
    with contextlib.suppress(FileNotFoundError):
        system.rmdir(path)


def same_bytes(one: Path, other: Path) -> bool:
    """Compare two files' contents in full.

    All of both is read, though a digest vouches for one: a link to a file that has been damaged
    since would turn a good entry into a bad one.
    """
    with one.open("rb", buffering=0) as left, other.open("rb", buffering=0) as right:
        if os.fstat(left.fileno()).st_size != os.fstat(right.fileno()).st_size:
            return False
        a, b = bytearray(BLOCK), bytearray(BLOCK)
        while True:
            count = left.readinto(a)
            if right.readinto(b) != count:
                return False
            if not count:
                return True
            # Bytearrays compare by memcmp, memoryviews item by item; what is behind `count` is of the block before.
            if a != b:
                return False


def link_over(system: System, existing: Path, path: Path) -> bool:
    """Put a hard link to `existing` in the place of `path`; False where that cannot be, and `path` is as it was."""
    beside = path.with_name(f".{path.name}.link")
    try:
        system.link(existing, beside)
    except OSError as error:
        if error.errno in CANNOT_LINK:
            return False
        raise
    system.rename(beside, path)
    return True


def unique_name() -> str:
    """Return a name that nobody else has, which sorts by the time it was made."""
    return f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}"


class Draft:
    """A private folder in which one entry is written; a context manager.

    Leaving the block without having published removes it, whatever the reason. A storage fault
    that ends the block comes out as `StoreUnwritable`.

    Attributes
    ----------
    path
        The folder. Write the entry's files into it, nothing else.
    key
        The digest of the key that it is for.
    published
        Whether it has become an entry.
    """

    def __init__(
        self, system: System, folder: Path, key: str, mode: int, explain: Callable[[OSError], StoreUnwritable]
    ) -> None:
        name = unique_name()
        self.key = key
        self.path = folder / name
        self.published = False
        self._system = system
        self._explain = explain
        # The lock comes first: a draft without one is a leftover by definition.
        self._lock = _lock(lock_of(self.path))
        try:
            system.mkdir(self.path, mode)
            like_parent(self.path, system.chmod)
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.discard()
        if isinstance(error, OSError) and not isinstance(error, StoreUnwritable) and self._is_storage_fault(error):
            raise self._explain(error) from error

    def _is_storage_fault(self, error: OSError) -> bool:
        # A cell's own objects may raise OSError while they are pickled: that is theirs to explain.
        named = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
        inside = any(Path(name).is_relative_to(self.path) for name in named)
        return inside or error.errno in STORAGE_FAULTS

    def discard(self) -> None:
        """Remove what was written, unless it was published, and free the lock."""
        try:
            if os.path.lexists(self.path):
                with contextlib.suppress(OSError):  # what cannot be removed now is swept later
                    remove_tree(self._system, self.path)
        finally:
            self._close()

    def _close(self) -> None:
        if self._lock is not None:
            self._lock.close()
        else:
            lock_of(self.path).unlink(missing_ok=True)


def move_in(system: System, draft: Draft, place: Path, occupant: int | None, trash: Path) -> bool:
    """Rename a draft to its place; False where a neighbour has changed the place meanwhile.

    `occupant` is the inode of what the caller has found there and means to replace: it goes to the
    trash, and nothing else does.
    """
    try:
        if occupant is None:
            system.rename(draft.path, place)  # fails where a folder with something in it has come by now
        elif not _replace(system, draft.path, place, occupant, trash / unique_name()):
            return False
    except OSError as error:
        if error.errno in TAKEN or (error.errno == errno.ENOENT and draft.path.is_dir() and place.parent.is_dir()):
            return False
        raise
    draft.published = True
    with contextlib.suppress(OSError):  # it is there; that its name outlives a loss of power is not worth its life
        flush_folder(system, place.parent)
    draft.discard()
    return True


def _replace(system: System, new: Path, place: Path, occupant: int, grave: Path) -> bool:
    if inode_of(place) != occupant:
        return False
    make_folder(system, grave.parent)
    try:
        # In one step where the system can: no moment without an entry, not even for a process that dies.
        system.exchange(new, place)
    except OSError as error:
        if error.errno not in CANNOT_EXCHANGE:
            raise
        return _replace_in_two(system, new, place, occupant, grave)
    if inode_of(new) != occupant:  # a neighbour's entry, come in the last moment: it stays
        system.exchange(new, place)
        return False
    with contextlib.suppress(OSError):  # it lies where drafts do, and is swept there at the latest
        system.rename(new, grave)
    return True


def _replace_in_two(system: System, new: Path, place: Path, occupant: int, grave: Path) -> bool:
    system.rename(place, grave)
    ours = inode_of(grave) == occupant
    try:
        if ours:
            system.rename(new, place)
    except OSError:
        with contextlib.suppress(OSError):
            system.rename(grave, place)
        raise
    if not ours:
        system.rename(grave, place)
    return ours


def inode_of(path: Path) -> int | None:
    """Return what tells one folder from another that takes its name; None where there is nothing."""
    try:
        return path.lstat().st_ino
    except OSError:
        return None


CANNOT_EXCHANGE = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP})


def lock_of(draft: Path) -> Path:
    """Return the lock file that says whether the draft's owner lives."""
    return draft.with_name(f"{draft.name}.lock")


def _lock(path: Path) -> locks.FileLock | None:
    try:
        return locks.acquire(path, note=locks.describe_holder(), wait=True)  # a sweeper may look at it for a moment
    except OSError as error:
        if error.errno in locks.NO_LOCKS:
            path.touch(mode=0o600)  # its age tells, where no lock can
            return None
        raise


NO_LOCK_PATIENCE = 7 * 86400.0
"""Seconds after which a draft is a leftover on a file system without locks."""


def leftovers(drafts: Path) -> list[Path]:
    """Return the drafts whose owners are dead."""
    return [draft for draft in _drafts(drafts) if _is_leftover(draft)]


def _drafts(drafts: Path) -> list[Path]:
    try:
        names = {path.name.removesuffix(".lock") for path in drafts.iterdir()}
    except OSError:
        return []
    return [drafts / name for name in sorted(names)]


def _is_leftover(draft: Path) -> bool:
    with contextlib.suppress(OSError), _sweepers_lock(draft):
        return os.path.lexists(draft) or os.path.lexists(lock_of(draft))
    return False


@contextlib.contextmanager
def _sweepers_lock(draft: Path) -> Iterator[None]:
    """Hold a dead owner's lock; `locks.Busy` where the owner lives."""
    lock = lock_of(draft)
    try:
        held = locks.acquire(lock, make=False)
    except FileNotFoundError:  # an owner makes the lock before the draft, and removes it after
        yield
        return
    except OSError as error:
        if error.errno not in locks.NO_LOCKS:
            raise
        if time.time() - lock.stat().st_mtime < NO_LOCK_PATIENCE:
            raise locks.Busy("someone, as far as one can tell") from error
        yield
        return
    try:
        yield
    finally:
        held.drop()


def sweep_drafts(system: System, drafts: Path) -> int:
    """Remove what dead processes left; return how many drafts that were."""
    swept = 0
    for draft in _drafts(drafts):
        with contextlib.suppress(locks.Busy, FileNotFoundError), _sweepers_lock(draft):
            swept += os.path.lexists(draft)
            remove_tree(system, draft)
            remove_tree(system, lock_of(draft))
    return swept


def explain(error: OSError, root: Path) -> StoreUnwritable:
    """Say in words why the store cannot be written, and what would change that."""
    known = error.errno or 0
    reason, remedy = _REASONS.get(known, (error.strerror or str(error), ELSEWHERE))
    if known in (errno.EACCES, errno.EPERM) and not os.access(root if root.exists() else root.parent, os.W_OK):
        reason = "its folder may not be written"
    unwritable = StoreUnwritable(f"the store {root} cannot be written: {reason}", remedy=remedy)
    unwritable.errno = error.errno
    return unwritable


ELSEWHERE = "set PREFECT_CACHE_DIR to another folder"
_CLEAR = f"free some space, for example by `prefect-cache prune --max-size`, or {ELSEWHERE}"
_OWN = f"make the folder yours (chown, chmod u+rwx), or {ELSEWHERE}"
_REASONS = {
    errno.ENOSPC: ("the disk is full", _CLEAR),
    errno.EDQUOT: ("your disk quota is used up", _CLEAR),
    errno.EROFS: ("the file system is read-only", ELSEWHERE),
    errno.EACCES: ("permission denied", _OWN),
    errno.EPERM: ("not permitted", _OWN),
    errno.ENOTDIR: ("a part of its path is a file, not a folder", ELSEWHERE),
    errno.EEXIST: ("a file is in the place of a folder", f"move that file away, or {ELSEWHERE}"),
    errno.ENOENT: ("it was removed meanwhile, or the folder above it is not there", "run the cell again"),
    errno.EIO: ("the disk reports an error", f"check the disk, or {ELSEWHERE}"),
    errno.ELOOP: ("its path is a link that leads nowhere", ELSEWHERE),
    errno.EMFILE: ("this process has too many files open", "close some, or restart the kernel"),
}
