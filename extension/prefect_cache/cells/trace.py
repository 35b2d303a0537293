"""What happened to files while a cell ran, and what follows for the next time.

Of each path the state *before* the cell touched it counts where the cell read it, and the
state *after* where the cell wrote it. A second run gives the same result if all that was read is as it was
before, and need not happen if all that was written is as it was left. Where the two
contradict each other (a counter that a cell reads and raises) no later run can be spared.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefect_cache import digests
from prefect_cache.cells import disk, places
from prefect_cache.model import Observed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from prefect_cache.cells.disk import Look, Sample
    from prefect_cache.model import Digest, Json

RACY_NS = 50_000_000
"""A file younger than this when it is first read is read at once: its stamp might not tell of a change."""


class Contradiction(Exception):
    """Why the run cannot stand for another one."""


@dataclass(slots=True)
class Seen:
    """All that is known of one path."""

    path: str
    name: str
    before: Look
    digest_before: Digest = ""
    read: bool = False
    written: bool = False
    asked: bool = False
    dated: bool = False
    changed: bool = False
    asked_isdir: bool = False
    """Whether somebody asked if it is a folder, which a file that comes there is no more than nothing is."""
    sample: Sample | None = None
    """Of a file that was there and that the cell names: then the kernel tells of its first reading as well."""
    replaced: bool = False
    """Whether a native program wrote to that file without having read it: all of it, or more at its end."""
    marked: bool = False
    """Whether the cell set the mode, owner or dates of what was there before."""
    listed: Digest = ""
    names: Json = None
    """What was listed, for people to read."""

    def take(self, names: dict[str, bool] | None) -> None:
        """Take down what the folder held when it was listed."""
        self.listed, self.names = disk.listing_digest(names), disk.listing_detail(names)

    @property
    def came_and_went(self) -> bool:
        """Whether the path is as absent as it was: a temporary file."""
        return self.written and self.before.kind == "absent" and not os.path.lexists(self.path)


class Trace:
    """The log of a run, by path."""

    def __init__(self, literals: Collection[str], ignored: tuple[str, ...]) -> None:
        self.cwd = places.working_folder()
        self.spawned = False
        self.seen: dict[str, Seen] = {}
        self._ignored = ignored
        self._literals = tuple(text for text in literals if os.path.isabs(text))
        self._roots: list[str] = []  # folders that the cell made: all in them is its own

    # what happens

    def ignores(self, path: str) -> bool:
        """Tell whether a path (from the root) is of no account."""
        return path.startswith(self._ignored) or places.is_passing(path)

    def of(self, path: str, given: str | None = None) -> Seen | None:
        """Return the record of a path, made at its first mention; None where it is of no account."""
        seen = self.seen.get(path)
        if seen is None and not self.ignores(path):
            name = self._name(path, path if given is None else given)
            seen = self.seen[path] = Seen(path, name, disk.look(path), written=self._is_own(path))
        return seen

    def found(self, path: str) -> Seen | None:
        """Return the record of a path that nobody spelled for us: relative where it lies in the working folder."""
        return self.of(path, os.path.relpath(path, self.cwd))

    def _is_own(self, path: str) -> bool:
        return any(path.startswith(root) for root in self._roots)

    def _name(self, path: str, given: str) -> str:
        """Return the name under which the path is found again: relative where the program said so."""
        return os.path.relpath(path, self.cwd) if not os.path.isabs(given) and self.contains(path) else path

    def contains(self, path: str) -> bool:
        """Tell whether a path lies in the folder where the cell began."""
        return path.startswith(self.cwd.rstrip(os.sep) + os.sep) or path == self.cwd

    def read(self, seen: Seen) -> None:
        """Note that the content was read."""
        if seen.written or seen.read:
            return
        seen.read = True
        stamp = seen.before.stamp
        if stamp is not None and time.time_ns() - max(stamp.ctime_ns, stamp.mtime_ns) < RACY_NS:
            self._keep_digest(seen)

    def write(self, seen: Seen, *, keeping: bool = False) -> None:
        """Note that the content is about to be written; `keeping`: what was there stays a part of it."""
        if keeping and not seen.written:
            seen.read = True
        if seen.read and not seen.written:
            self._keep_digest(seen)
        seen.written = True

    def make_folder(self, seen: Seen, *, tolerant: bool) -> None:
        """Note that a folder is about to be made; `tolerant`: unless it is there, and then with what lies in it."""
        if seen.before.kind == "absent" and not tolerant:
            self._roots.append(seen.path + os.sep)
            seen.asked = True
        seen.written = True

    def remove(self, seen: Seen) -> None:
        """Note that the path is about to go; it must have been there."""
        seen.asked = seen.asked or not seen.written
        seen.written = True

    def mark(self, seen: Seen) -> None:
        """Note that the mode, the owner or the dates of the path are about to be set."""
        if not seen.written:
            seen.asked = True
            seen.marked = seen.before.kind != "absent"

    def list(self, seen: Seen) -> None:
        """Note that the names in a folder were read."""
        if not seen.listed and not self._is_own(seen.path + os.sep):
            seen.take(disk.listing(seen.path))

    def ask(self, seen: Seen, *, dated: bool) -> None:
        """Note that somebody asked whether the path is there; `dated`: or when it changed, how large it is."""
        if not seen.written:
            seen.asked = True
            seen.dated = seen.dated or dated

    def ask_isdir(self, seen: Seen) -> None:
        """Note that somebody asked whether the path is a folder."""
        if not seen.written:
            seen.asked_isdir = True

    def _keep_digest(self, seen: Seen) -> None:
        if seen.digest_before or seen.before.kind != "file":
            return
        try:
            seen.digest_before, _ = disk.content(seen.path)
        except OSError as error:
            raise Contradiction(f"{seen.name} could not be read twice ({error})") from error

    # what follows

    def observed(self) -> Iterator[Observed]:
        """Return what a later run depends on.

        Raises
        ------
        Contradiction
            Where no later run can be spared.
        """
        for seen in sorted(self.seen.values(), key=lambda seen: seen.name):
            if seen.marked:
                raise Contradiction(f"it sets the mode, owner or dates of {seen.name}, which a hit could not do again")
            if not seen.came_and_went:
                yield from self._before(seen)
                yield from self._after(seen)
            elif not self._is_own(seen.path):
                # Were there a file of this name, a run would overwrite or remove it.
                yield Observed("absent", seen.name, disk.kind_digest(disk.ABSENT))
        if moved := next((seen for seen in self.seen.values() if self._hangs_on_cwd(seen)), None):
            yield Observed("cwd", self.cwd, digests.combine("cwd", self.cwd), moved.name)

    def _hangs_on_cwd(self, seen: Seen) -> bool:
        """Tell whether the path was put together from the working folder, as far as can be seen."""
        used = seen.read or seen.written or seen.asked or bool(seen.listed)
        return (
            used and os.path.isabs(seen.name) and self.contains(seen.path) and not seen.name.startswith(self._literals)
        )

    def _before(self, seen: Seen) -> Iterator[Observed]:
        if seen.read:
            yield self._content_before(seen)
        elif seen.asked:
            kind = "absent" if seen.before.kind == "absent" else "exists"
            yield Observed(kind, seen.name, disk.kind_digest(seen.before))
        elif seen.asked_isdir:
            yield Observed("isdir", seen.name, disk.isdir_digest(seen.before))
        if seen.replaced and seen.sample is not None and disk.continues(seen.path, seen.sample):
            raise Contradiction(f"{seen.name} was written to, and may keep what it held before")
        if seen.dated and seen.before.kind != "absent":
            yield Observed("dates", seen.name, disk.dates_digest(seen.before))
        if seen.listed:
            yield Observed("folder", seen.name, seen.listed, seen.names)

    def _content_before(self, seen: Seen) -> Observed:
        if seen.before.kind != "file":
            kind = "absent" if seen.before.kind == "absent" else "exists"
            if seen.before.kind == "other":
                raise Contradiction(f"{seen.name} is no file with a content that stays")
            return Observed(kind, seen.name, disk.kind_digest(seen.before))
        try:
            digest, stamp = disk.content(seen.path)
        except OSError as error:
            raise Contradiction(f"{seen.name} changed while the cell ran") from error
        if seen.changed or (seen.digest_before and seen.digest_before != digest):
            raise Contradiction(
                f"{seen.name} {'was read and rewritten' if seen.written else 'changed'} while the cell ran"
            )
        if not seen.digest_before and disk.look(seen.path).stamp != seen.before.stamp:
            raise Contradiction(f"{seen.name} changed while the cell ran")
        return Observed("file", seen.name, digest, disk.told(seen.path, stamp))

    def _after(self, seen: Seen) -> Iterator[Observed]:
        if not seen.written:
            return
        try:
            digest, stamp = disk.state(seen.path)
        except OSError as error:
            raise Contradiction(f"{seen.name} changes after the cell wrote it") from error
        if os.path.islink(seen.path) and not os.path.exists(seen.path):
            raise Contradiction(f"{seen.name} is a link to nothing")
        yield Observed("written", seen.name, digest, disk.told(seen.path, stamp))
