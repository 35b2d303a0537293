"""What stands at a path, and whether it still does.

Content counts, not dates. Size, modification time, inode, device and the time of the last change of the
inode (which no program can set) spare a second reading only where the last change lies a while before the
first one: a change within the clock's grain would leave no trace, as git says of "racily clean" files.
"""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Literal, cast

from prefect_cache import digests

if TYPE_CHECKING:
    from prefect_cache.model import Digest, Json

SETTLED_NS = 2_000_000_000
"""How old the last change must be: the coarsest clock of any file system in use ticks every two seconds."""

MAX_KNOWN = 20_000

# The cell may replace os.stat while we look; these stay what they are.
_stat, _scandir = os.stat, os.scandir

Kind = Literal["file", "folder", "other", "absent"]


@dataclass(frozen=True, slots=True)
class Stamp:
    """What changes when a file's content does, as far as clocks can tell."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int

    def settled(self, now_ns: int) -> bool:
        """Tell whether any change after `now_ns` makes another stamp."""
        return max(self.mtime_ns, self.ctime_ns) < now_ns - SETTLED_NS

    def to_json(self) -> Json:
        """Return it as a manifest holds it."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, told: Json) -> Stamp | None:
        """Return what a manifest holds; None where there is none."""
        if not isinstance(told, dict) or told.keys() != set(cls.__slots__):
            return None
        return cls(**cast("dict[str, int]", told))


@dataclass(frozen=True, slots=True)
class Look:
    """What stands at a path: what kind of thing, and for a file its stamp."""

    kind: Kind
    stamp: Stamp | None = None


ABSENT = Look("absent")

LISTED = 500
"""Names of a folder that a manifest holds at most."""


def look(path: str) -> Look:
    """Return what stands at a path, links followed; what cannot be reached is absent."""
    try:
        found = _stat(path)
    except (OSError, ValueError):
        return ABSENT
    if stat.S_ISREG(found.st_mode):
        return Look("file", Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev))
    return Look("folder" if stat.S_ISDIR(found.st_mode) else "other")


_known: dict[str, tuple[Stamp, Digest]] = {}


def content(path: str) -> tuple[Digest, Stamp | None]:
    """Return the digest of a file's content, and its stamp where that may spare the next reading.

    Raises
    ------
    OSError
        Where the file cannot be read, or changes while it is.
    """
    now, before = time.time_ns(), look(path).stamp
    if before is None:
        raise FileNotFoundError(path)
    known = _known.get(path)
    if known is not None and known[0] == before:
        return known[1], before
    digest, _ = digests.file_digest(path)
    if look(path).stamp != before:
        raise OSError(f"{path} changes while it is read")
    if not before.settled(now):
        return digest, None
    if len(_known) >= MAX_KNOWN:
        _known.clear()
    _known[path] = before, digest
    return digest, before


def listing(folder: str) -> dict[str, bool] | None:
    """Return the names in a folder, and of each whether it is a folder; None where it cannot be listed."""
    try:
        with _scandir(folder) as entries:
            return {entry.name: entry.is_dir() for entry in entries}
    except OSError:
        return None


def listing_digest(names: dict[str, bool] | None) -> Digest:
    """Return the digest of a listing."""
    if names is None:
        return digests.combine("listing", "unreadable")
    return digests.combine("listing", *(f"{name}{'/' if names[name] else ''}" for name in sorted(names)))


def listing_detail(names: dict[str, bool] | None) -> Json:
    """Return the names of a listing, for a person to be told which came and went; None where they are too many."""
    if names is None or len(names) > LISTED:
        return None
    return {f"{name}{'/' if names[name] else ''}": "" for name in sorted(names)}


def told(path: str, stamp: Stamp | None) -> Json:
    """Return what a manifest says of a file: its stamp; without one, what people want to know, which proves nothing."""
    if stamp is not None:
        return stamp.to_json()
    now = look(path).stamp
    return {"size": now.size, "mtime_ns": now.mtime_ns} if now is not None else None


def state(path: str) -> tuple[Digest, Stamp | None]:
    """Return the digest of whatever stands at a path: a file's content, or that there is a folder, or nothing."""
    found = look(path)
    if found.kind == "file":
        return content(path)
    return kind_digest(found), None


def kind_digest(found: Look) -> Digest:
    """Return the digest of what kind of thing there is."""
    return digests.combine("kind", found.kind)


def isdir_digest(found: Look) -> Digest:
    """Return the digest of whether there is a folder."""
    return digests.combine("isdir", str(found.kind == "folder"))


@dataclass(frozen=True, slots=True)
class Sample:
    """The size of a file and its bytes at both ends, `SAMPLED` of each at most."""

    size: int
    head: bytes
    tail: bytes


SAMPLED = 2**16


def sample(path: str) -> Sample | None:
    """Return a sample of a file; None where it cannot be read."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            return Sample(size, file.read(SAMPLED), _at(file, size))
    except OSError:
        return None


def continues(path: str, older: Sample) -> bool:
    """Tell whether a file may be what it was when the sample was taken, with more at its end or with less."""
    now = sample(path)
    if now is None or now.size == older.size or not older.size:
        return False
    shared = min(now.size, older.size, SAMPLED)
    if now.head[:shared] != older.head[:shared]:
        return False
    with open(path, "rb") as file:
        return now.size < older.size or _at(file, older.size) == older.tail


def _at(file: IO[bytes], end: int) -> bytes:
    file.seek(max(end - SAMPLED, 0))
    return file.read(min(end, SAMPLED))


def dates_digest(found: Look) -> Digest:
    """Return the digest of what ``os.stat`` tells a program: kind, size and modification time."""
    if found.stamp is None:
        return kind_digest(found)
    return digests.combine("dates", found.kind, found.stamp.size, found.stamp.mtime_ns)
