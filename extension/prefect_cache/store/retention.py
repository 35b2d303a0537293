"""What goes first when the store is full, as a value to show before anything is done.

The default policy ranks entries by what keeping them is worth: seconds of work saved per byte, divided
by the time since the last use, as in GreedyDual-Size (Cao and Irani, 1997) with the decay of hyperbolic
caching (Blankstein, Sen and Freedman, 2017): an entry that cost a hundred times more per byte stays
a hundred times longer unused. Unlike GreedyDual's running inflation term, time since use needs no
state that processes would have to share and a crash could lose.
"""

from __future__ import annotations

import heapq
import shutil
from typing import TYPE_CHECKING, NamedTuple

from prefect_cache.units import seconds_text, size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from prefect_cache.model import Retention

LARGEST_DEFAULT = 20 * 2**30
SHARE_OF_DISK = 0.1
"""By default a store takes up to 20 GiB, and at most a tenth of what the disk could give it."""

GRACE_SHARE = 0.1
"""Of the limit, what evicted entries that can still be undone may take."""

ROOM = 0.05
"""Of the limit, what a prune clears beyond it in small entries, so that the next save need not prune again."""

BLOCK = 4096
"""An entry takes at least this much of a disk, however small its files are."""

JUST_USED = 60.0
"""Seconds; uses more recent than this are as recent as can be."""

File = tuple[int, int]
"""A file that several entries share: inode and bytes."""


class Candidate(NamedTuple):
    """What a plan needs to know of one entry. `alone` is the bytes that no other entry shares."""

    name: str
    alone: int
    size: int
    seconds: float
    last_used: float
    expires: float | None
    pinned: bool


class Victim(NamedTuple):
    """An entry to evict, and why."""

    candidate: Candidate
    reason: str


def default_limit(root: Path, used: int) -> int:
    """Return the size limit that suits the disk of `root`, in bytes, where the store takes `used` now."""
    return min(LARGEST_DEFAULT, int(SHARE_OF_DISK * (free_bytes(root) + used)))


def free_bytes(root: Path) -> int:
    """Return the bytes free on the disk where `root` is or would be made."""
    folder = root
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def grace_bytes(retention: Retention, limit: int) -> int:
    """Return how many bytes of evicted entries are kept for undoing."""
    return int(GRACE_SHARE * limit) if retention.grace_bytes is None else retention.grace_bytes


def choose(
    candidates: Sequence[Candidate],
    shared: Mapping[str, Sequence[File]],
    *,
    total: int,
    limit: int,
    retention: Retention,
    now: float,
) -> tuple[list[Victim], int]:
    """Return what to evict, first what goes first, and the bytes that this frees.

    Parameters
    ----------
    candidates
        All entries.
    shared
        For entries that have files in common with others: those files.
    total
        Bytes of all entries, shared files counted once.
    limit
        Bytes that the store may take.
    retention
        What may be kept.
    now
        Seconds since the epoch.
    """
    freer = _Freer(shared)
    victims: list[Victim] = []
    staying: list[Candidate] = []
    for candidate in candidates:
        reason = _overdue(candidate, retention, now)
        if reason:
            freer.free(candidate)
            victims.append(Victim(candidate, reason))
        elif not candidate.pinned:
            staying.append(candidate)
    if total - freer.freed > limit:
        room = int(limit * ROOM)
        for candidate in _worst_first(staying, retention, now):
            over = total - freer.freed - limit
            if over <= -room or (over <= 0 and candidate.size > room):
                break
            freer.free(candidate)
            victims.append(Victim(candidate, _reason(candidate, retention, now)))
    return victims, freer.freed


class _Freer:
    """Adds up what evicting gives back: a shared file counts when its last owner goes."""

    def __init__(self, shared: Mapping[str, Sequence[File]]) -> None:
        self.freed = 0
        self._shared = shared
        self._owners: dict[int, int] = {}
        for files in shared.values():
            for inode, _ in files:
                self._owners[inode] = self._owners.get(inode, 0) + 1

    def free(self, candidate: Candidate) -> None:
        self.freed += candidate.alone
        for inode, size in self._shared.get(candidate.name, ()):
            self._owners[inode] -= 1
            if not self._owners[inode]:
                self.freed += size


def _overdue(candidate: Candidate, retention: Retention, now: float) -> str:
    """Return why the entry goes whether or not there is room; empty where it need not."""
    if candidate.pinned:
        return ""
    if candidate.expires is not None and candidate.expires <= now:
        return f"its TTL ended {seconds_text(now - candidate.expires)} ago"
    if retention.max_age is not None and now - candidate.last_used > retention.max_age:
        return f"unused for {seconds_text(now - candidate.last_used)}"
    if retention.max_entry_bytes is not None and candidate.size > retention.max_entry_bytes:
        return f"{size_text(candidate.size)} is over the limit of {size_text(retention.max_entry_bytes)} per entry"
    return ""


def _worst_first(candidates: Iterable[Candidate], retention: Retention, now: float) -> Iterable[Candidate]:
    """Yield the entries in the order in which they go; a heap, since few of many go."""
    worth: Callable[[Candidate], float]
    worth = (lambda c: c.last_used) if retention.policy == "lru" else (lambda c: value(c, now))
    heap = [(worth(candidate), candidate.name, candidate) for candidate in candidates]
    heapq.heapify(heap)
    while heap:
        yield heapq.heappop(heap)[2]


def value(candidate: Candidate, now: float) -> float:
    """Return the seconds of work that keeping a byte saves, per second since the entry's last use."""
    return candidate.seconds / max(candidate.size, BLOCK) / max(now - candidate.last_used, JUST_USED)


def _reason(candidate: Candidate, retention: Retention, now: float) -> str:
    unused = f"unused for {seconds_text(now - candidate.last_used)}"
    if retention.policy == "lru":
        return f"longest {unused}"
    return f"{seconds_text(candidate.seconds)} of work in {size_text(candidate.size)}, {unused}"
