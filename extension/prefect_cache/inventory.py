"""The entries of a storage as a person asks for them: listed, found by name, evicted, pruned.

For the magics and for the terminal alike: what is said here is said in both.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import NotFound
from .explain import Table
from .remote import Remote, RemoteCatalog, RemoteEntry, open_place
from .units import age_text, seconds_text, size_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .model import Json
    from .store import Store


@dataclass(frozen=True, slots=True)
class Done:
    """What an eviction did, or would do: in lines, and as values."""

    lines: tuple[str, ...]
    entries: tuple[RemoteEntry, ...]
    freed: int
    dry_run: bool = False

    @property
    def data(self) -> Json:
        """The same for a program."""
        entries: list[Json] = [brief(entry) for entry in self.entries]
        return {
            "evicted": [] if self.dry_run else entries,
            "would_evict": entries if self.dry_run else [],
            "freed": self.freed,
        }


def reach(storage: str, store: Store) -> Remote:
    """Return a storage by its name."""
    return Remote(open_place(storage), store)


def table(catalog: RemoteCatalog, url: str, words: Sequence[str] = (), limit: int = 50) -> Table:
    """Return a storage's entries, those that have all the words in their names, notebooks or outputs."""
    found = [entry for entry in catalog.entries if all(word.lower() in _words(entry) for word in words)]
    shown = found[:limit] if limit else found
    now = time.time()
    rows = tuple(
        (
            entry.name[:12] + entry.name[32:],
            entry.manifest.name,
            size_text(entry.size),
            age_text(entry.manifest.run.started, now),
            seconds_text(entry.manifest.run.seconds),
            "@".join(filter(None, (entry.manifest.run.user, entry.manifest.run.host))),
        )
        for entry in shown
    )
    footer = [f"damaged: {name}; evict it by this name" for name in catalog.problems]
    if len(shown) < len(found):
        footer.insert(0, f"{len(shown)} of {len(found)} entries")
    caption = f"{len(found):,} {'entry' if len(found) == 1 else 'entries'} in {url}"
    return Table(
        ("key", "name", "size", "made", "took", "by"), rows, right=(2, 4), caption=caption, footer=tuple(footer)
    )


def _words(entry: RemoteEntry) -> str:
    manifest = entry.manifest
    return " ".join([manifest.name, manifest.run.notebook, *(output.name for output in manifest.outputs)]).lower()


def brief(entry: RemoteEntry) -> dict[str, Json]:
    """Return an entry for a program."""
    run = entry.manifest.run
    return {
        "key": entry.name,
        "name": entry.manifest.name,
        "size": entry.size,
        "made": run.started,
        "seconds": run.seconds,
        "host": run.host,
        "user": run.user,
        "notebook": run.notebook,
    }


def evict(remote: Remote, keys: Sequence[str], *, every: bool = False, dry_run: bool = False) -> Done:
    """Evict entries by name or by the beginning of a digest; nothing can bring them back.

    Raises
    ------
    NotFound
        There is none, or more than one where not `every` was asked for.
    """
    catalog = remote.catalog()
    damaged = [name for name in catalog.problems if name in keys]
    found = [entry for key in keys if key not in damaged for entry in _find(catalog, key, every=every)]
    entries = tuple({entry.name: entry for entry in found}.values())
    verb = "would evict" if dry_run else "evicted"
    lines = [f"{verb} {_named(entry)}" for entry in entries] + [f"{verb} {name} (damaged)" for name in damaged]
    if dry_run:
        size = sum(entry.size for entry in entries)
        return Done((*lines, f"{size_text(size)} at most would be freed"), entries, 0, dry_run=True)
    for name in damaged:
        remote.remove_damaged(name)
    freed = remote.evict(entries)
    return Done((*lines, f"{size_text(freed)} freed in {remote.place.url}"), entries, freed)


def _find(catalog: RemoteCatalog, key: str, *, every: bool) -> list[RemoteEntry]:
    found = [entry for entry in catalog.entries if entry.name.startswith(key) or entry.manifest.name == key]
    if not found:
        raise NotFound(f"the storage has no entry {key!r}", remedy="list what it has with `list --storage`")
    exact = [entry for entry in found if entry.name == key]
    if len(found) > 1 and not (every or exact):
        listed = ", ".join(entry.name[:12] + entry.name[32:] for entry in found[:5])
        raise NotFound(f"{key!r} could be {len(found)} entries: {listed}", remedy="give more of the digest")
    return exact if exact and not every else found


def prune(remote: Remote, *, max_age: float | None, max_bytes: int | None, dry_run: bool = False) -> Done:
    """Evict what is expired, too old or too much, and sweep files that no entry names."""
    plan = remote.plan(max_age=max_age, max_bytes=max_bytes)
    entries = tuple(entry for entry, _ in plan.evict)
    would = "would " if dry_run else ""
    evict = "would evict" if would else "evicted"
    lines = [f"{evict} {_named(entry)}: {reason}" for entry, reason in plan.evict]
    lines += [f"{would}sweep {name}: no entry names it" for name in plan.sweep]
    if not lines:
        return Done(("nothing needs to go",), (), 0, dry_run)
    if dry_run:
        size = sum(entry.size for entry in entries)
        return Done((*lines, f"{size_text(size)} at most would be freed"), entries, 0, dry_run=True)
    freed = remote.carry_out(plan)
    return Done((*lines, f"{size_text(freed)} freed in {remote.place.url}"), entries, freed)


def _named(entry: RemoteEntry) -> str:
    return f"{entry.manifest.name} {entry.name[:12]} ({size_text(entry.size)})"
