"""The store: entries found by key, saved whole, evicted and brought back.

::

    <root>/CACHEDIR.TAG  .gitignore  FORMAT
    <root>/entries/<digest>[-1..-7]/manifest.json  signature  00-orders.arrow ...
                                 [hits]  [pinned]  [damaged]  [statistics]
    <root>/drafts/     what is being written; swept when its owner is dead
    <root>/graveyard/  evictions that can be undone, a folder for each
    <root>/trash/      what is being removed
    <root>/locks/      who runs which key
    <root>/index.sqlite, touched     derived, see `catalog`

The folder's name is the key's digest; up to eight runs of one key that saw different files lie side by
side and are found by probing their names, so that a hit costs the same in a store of any size.
``hits`` grows by a byte with each restore, and its time is that of the last; ``pinned`` is there or
not. Neither holds anything that could be damaged. ``damaged`` says what was found wrong with the files: such an
entry is listed as damaged and not restored, until a full check finds it whole. ``statistics`` is the panel's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import stat
import threading
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from prefect_cache.digests import PIECE
from prefect_cache.errors import Damaged, NotFound, StoreUnwritable, Untrusted
from prefect_cache.model import FORMAT, Catalog, Entry, EvictionPlan, Key, Manifest, Problem, Retention, Run
from prefect_cache.store import catalog as indexes
from prefect_cache.store import locks, publish
from prefect_cache.store import manifest as manifests
from prefect_cache.store import retention as retentions
from prefect_cache.store.brief import UNREADABLE
from prefect_cache.store.catalog import Index
from prefect_cache.store.graveyard import Graveyard
from prefect_cache.store.manifest import DAMAGED, HITS, MANIFEST, OURS, PINNED, SIGNATURE, STATISTICS
from prefect_cache.store.publish import Draft, System
from prefect_cache.store.sharing import like_parent
from prefect_cache.store.shelf import Shelf
from prefect_cache.store.trust import Trust
from prefect_cache.store.verify import check_file, check_seal, seal
from prefect_cache.units import size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from contextlib import AbstractContextManager

    from prefect_cache.model import Digest, Output
    from prefect_cache.store.brief import Brief

ROOT_VARIABLE = "PREFECT_CACHE_DIR"
VARIANTS = 8
"""Runs of one key, each with other files seen, that are kept side by side."""

HOUSEKEEPING = 3600.0
"""Seconds after which a save also looks for entries that are too old, and for leftovers."""

SHOWN = 4
"""How many digests a message names where an address could be several."""

ATTEMPTS = 100
"""How often a save tries again because a neighbour took the name it had chosen."""

CACHEDIR_TAG = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n"
    b"# This folder is a cache made by prefect_cache. See https://bford.info/cachedir/\n"
)

T = TypeVar("T")


class CacheWarning(UserWarning):
    """Something in the store is not as it should be; the cell runs instead."""


class Found(NamedTuple):
    """An entry as it was read, with the name of the key held here that signed it and the damage noted of its files."""

    entry: Entry
    signer: str
    damage: str


@dataclass(frozen=True, slots=True)
class Eviction:
    """What was evicted, each entry with the reason, the bytes freed, and whether `Store.undo` brings it back."""

    entries: tuple[tuple[Entry, str], ...] = ()
    freed: int = 0
    undoable: bool = False

    def __bool__(self) -> bool:
        """Tell whether anything was evicted."""
        return bool(self.entries)


@dataclass(frozen=True, slots=True)
class Usage:
    """What the store takes.

    Attributes
    ----------
    root
        Where it is.
    size
        Bytes of all entries, hard-linked files counted once.
    linked
        Bytes that hard links save.
    limit
        Bytes that retention lets it take.
    graveyard
        Bytes of evicted entries that can still be undone.
    free
        Bytes free on its disk.
    entries, pinned, problems
        How many there are.
    hits
        How often its entries were restored.
    saved
        Seconds of work that this spared.
    """

    root: Path
    size: int
    linked: int
    limit: int
    graveyard: int
    free: int
    entries: int
    pinned: int
    problems: int
    hits: int
    saved: float


def default_root() -> Path:
    """Return where the store is: ``PREFECT_CACHE_DIR``, else in the user's cache folder."""
    if named := os.environ.get(ROOT_VARIABLE):
        return Path(named).expanduser().absolute()
    import platformdirs

    return platformdirs.user_cache_path("prefect_cache")


def warn(problem: Problem) -> None:
    """Warn of something in the store that is not a good entry.

    The warning names no line: neither ours nor the cell's is to blame.
    """
    text = f"{problem.name or problem.path.name}: {problem.what}"
    warnings.warn_explicit(text, CacheWarning, "prefect_cache", 0)


class Store:
    """The entries below one folder, which any number of processes may share.

    Making one touches nothing; the folder is made by the first save.

    Parameters
    ----------
    root
        The store's folder.
    retention
        What it may keep.
    trust
        The keys that sign, and are believed.
    system
        The system calls by which it is changed.

    Attributes
    ----------
    on_problem
        Called with what is damaged where it is met.
    on_evict
        Called with what retention evicted after a save.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        retention: Retention = Retention(),  # noqa: B008 - frozen
        *,
        trust: Trust | None = None,
        system: System | None = None,
    ) -> None:
        self.root = Path(root).expanduser().absolute()
        self.retention = retention
        self.trust = trust or Trust()
        self.on_problem: Callable[[Problem], None] = warn
        self.on_evict: Callable[[Eviction], None] = lambda _: None
        self._system = system or System()
        self._entries = self.root / "entries"
        self._drafts = self.root / "drafts"
        self._graveyard = Graveyard(self._system, self.root)
        self._locks = self.root / "locks"
        self._index = indexes.Indexes(self.root, self._record)
        self._kept_house = 0.0
        self._verified: set[tuple[str, float]] = set()
        self._size = 0

    # Finding

    def variants(self, key: Digest) -> tuple[Entry, ...]:
        """Return the whole entries of a key, the last used first; what is damaged is reported and left out."""
        found = [entry for name in _slots(key) if (entry := self._try(name)) is not None]
        return tuple(sorted(found, key=lambda entry: entry.last_used, reverse=True))

    def brief(self, address: str) -> Brief | None:
        """Return what lists show of an entry, as of the last look at the whole store; None where it was not there."""
        return self._ask(lambda index: index.brief(address))

    def get(self, address: str) -> Entry:
        """Return the one entry that a digest, the beginning of one, or a name addresses.

        Raises
        ------
        NotFound
            There is none, or there are several.
        Damaged
            It is there and not whole.
        """
        if _is_name(address) and (self._entries / address).is_dir():
            return self._read(address)
        names = self._ask(lambda index: index.names(address)) if address else []
        if not names:
            raise NotFound(f"no entry is called {address!r}", remedy="`list` shows what there is")
        if len(names) > 1:
            several = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
            message = f"{address!r} could be any of {len(names)} entries: {several}"
            raise NotFound(message, remedy="give more of the digest")
        return self._read(names[0])

    def find(self, address: str) -> tuple[Entry, ...]:
        """Return all entries that an address could mean, the newest first."""
        return self._entries_of(self._ask(lambda index: index.names(address)))

    def alike(self, name: str, code: Digest = "", limit: int = 5) -> tuple[Entry, ...]:
        """Return the newest entries with this name or this code, by which a miss can be explained."""
        return self._entries_of(self._ask(lambda index: index.alike(name, code, limit)))

    def _entries_of(self, names: Iterable[str]) -> tuple[Entry, ...]:
        return tuple(entry for name in names if (entry := self._try(name)) is not None)

    def _try(self, name: str) -> Entry | None:
        try:
            return self._read(name)
        except NotFound:
            return None
        except manifests.OtherFormat:
            return None
        except Damaged as error:
            self._report(Problem(self._entries / name, error.message))
            return None

    def _report(self, problem: Problem) -> None:
        with contextlib.suppress(OSError):  # a store that is read-only: the index need not know
            indexes.touch(self.root, problem.path.name)
        self.on_problem(problem)

    def _read(self, name: str) -> Entry:
        found = self._find(name)
        if found.damage:
            raise Damaged(found.damage)
        return found.entry

    def _find(self, name: str) -> Found:
        return self._read_folder(self._entries / name, name)

    def _read_folder(self, folder: Path, name: str) -> Found:
        # All through one descriptor of the folder: a neighbour may put another entry in its place meanwhile.
        descriptor = _open_folder(folder)
        try:
            return self._read_at(descriptor, folder, name)
        except FileNotFoundError:
            if not _is_at(descriptor, folder):
                raise NotFound(f"{name!r} was evicted meanwhile") from None
            raise Damaged(f"{MANIFEST} is missing") from None
        except (Damaged, Untrusted):
            raise
        except OSError as error:
            raise Damaged(f"{MANIFEST} cannot be read: {error.strerror}") from error
        finally:
            os.close(descriptor)

    def _read_at(self, descriptor: int, folder: Path, name: str) -> Found:
        data = _read(descriptor, MANIFEST)
        made = os.stat(MANIFEST, dir_fd=descriptor).st_mtime
        manifest = manifests.from_bytes(data)
        if name not in _slots(manifest.key.digest):
            raise Damaged(f"the folder holds an entry of another key, {manifest.key.digest}")
        # Without a signature the entry is nobody's, which is all that can follow from its being gone or odd.
        signature = _if_there(lambda: _read(descriptor, SIGNATURE), b"")
        signer = self._signer(data, signature)
        # An entry never restored was last used when it was made.
        used, hits = _if_there(lambda: _uses(descriptor), (made, 0))
        pinned = _if_there(lambda: bool(os.stat(PINNED, dir_fd=descriptor)), otherwise=False)
        size = sum(output.size for output in manifest.outputs) + len(data) + len(signature)
        entry = Entry(manifest, folder, size, used, hits, pinned, bool(signer))
        return Found(entry, signer, _if_there(lambda: _damage(descriptor), ""))

    def _signer(self, data: bytes, signature: bytes) -> str:
        try:
            return self.trust.signer(data, signature)
        except Untrusted as refused:
            # A key that is refused must not end the cell: nothing is trusted, and it is said.
            self.on_problem(Problem(self.root, f"{refused.message}; {refused.remedy}"))
            return ""

    # Verifying

    def check_files(
        self, entry: Entry, *, full: bool | None = None, progress: Callable[[int], None] | None = None
    ) -> None:
        """Verify an entry's files: small ones whole, large ones by pieces, or all of all.

        Parameters
        ----------
        entry
            The entry.
        full
            True: read everything. False: sizes, the first, the last and a few other pieces. None:
            files of up to a piece (4 MiB) in full, larger ones as with False.
        progress
            Called with the bytes read, file by file or piece by piece.

        Raises
        ------
        Damaged
            A file is not what the manifest says. That is noted beside it, so that lists show it and nobody restores it.
        """
        try:
            self._check_outputs(entry, full=full, progress=progress or (lambda _: None))
        except Damaged as error:
            self._note_damage(entry, error.message)
            raise
        except FileNotFoundError as error:
            if not entry.path.is_dir():
                raise Damaged("it was evicted meanwhile") from error
            what = f"{Path(error.filename).name} is missing"
            self._note_damage(entry, what)
            raise Damaged(what) from error
        except OSError as error:  # this process's trouble or the disk's: another reader may fare better
            raise Damaged(f"{Path(error.filename or entry.path).name} cannot be read: {error.strerror}") from error
        if full:
            self._clear_damage(entry)

    def _check_outputs(self, entry: Entry, *, full: bool | None, progress: Callable[[int], None]) -> None:
        for output in entry.manifest.outputs:
            check_file(entry.path / output.file, output, full=bool(full), progress=progress)
            if entry.trusted:
                check_seal(entry.path, output)

    def _note_damage(self, entry: Entry, what: str) -> None:
        def note(folder: int) -> None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(DAMAGED, flags, 0o600, dir_fd=folder)
            try:
                os.write(descriptor, what.encode("utf-8", "replace")[:LONGEST_NOTE])
            finally:
                os.close(descriptor)
            like_parent(entry.path / DAMAGED)

        self._if_the_same(entry, note)

    def _clear_damage(self, entry: Entry) -> None:
        if (entry.path / DAMAGED).exists():
            self._if_the_same(entry, lambda folder: os.unlink(DAMAGED, dir_fd=folder))

    def _if_the_same(self, entry: Entry, act: Callable[[int], object]) -> bool:
        """Do something to an entry's folder, unless a neighbour has put another entry in its place.

        What the index must know of it is noted. A store that is read-only keeps no notes.
        """
        with contextlib.suppress(OSError, NotFound, Damaged):
            folder = _open_folder(entry.path)
            try:
                if self._read_at(folder, entry.path, entry.digest).entry.manifest == entry.manifest:
                    act(folder)
                    indexes.touch(self.root, entry.digest)
                    return True
            finally:
                os.close(folder)
        return False

    def verify_later(self, entry: Entry) -> threading.Thread | None:
        """Verify in the background, once for each process, what a hit has only sampled.

        Damage is removed, so that nobody restores it again, and reported to `on_problem`: what was
        restored from it may be wrong. Returns the thread; None where there is nothing left to verify.
        """
        made = (entry.digest, entry.manifest.run.started)
        if made in self._verified or all(output.size <= PIECE for output in entry.manifest.outputs):
            return None
        self._verified.add(made)
        # A daemon: nobody waits for it at the end of a notebook.
        thread = threading.Thread(target=self._verify, args=(entry,), name=f"verify {entry.digest}", daemon=True)
        thread.start()
        return thread

    def _verify(self, entry: Entry) -> None:
        try:
            self.check_files(entry, full=True)
        except Damaged as error:
            if not self._if_the_same(entry, lambda _: None):
                return  # evicted or replaced meanwhile: what was read may have been a neighbour's
            what = f"{error.message}. What was restored from {entry.manifest.name!r} may be wrong: run that cell again"
            problem = Problem(entry.path, what, entry.manifest.name, entry.size)
            with contextlib.suppress(StoreUnwritable):  # it is said in any case
                self.discard([problem])
            self.on_problem(problem)

    # Saving

    def draft(self, key: Digest) -> Draft:
        """Return a private folder in which the entry for a key can be written.

        Raises
        ------
        StoreUnwritable
            The store cannot be written.
        """
        try:
            self._make_ready()
            return Draft(self._system, self._drafts, key, 0o700, self.unwritable)
        except OSError as error:
            raise self.unwritable(error) from error

    def shelf(self) -> Shelf:
        """Return what the entries hold, which a draft's files may share."""
        return Shelf(self._system, lambda samples: self._ask(lambda index: index.runs(samples)), self._of_name)

    def _of_name(self, name: str) -> Entry | None:
        return self._try_quietly(name) if _is_name(name) else None

    def publish(self, draft: Draft, manifest: Manifest, *, signed: tuple[bytes, bytes] | None = None) -> Entry:
        """Make a draft an entry: signed, flushed, and there by one rename; then apply retention.

        An entry that comes from elsewhere keeps its own manifest's bytes and signature, given as `signed`.

        It takes the place of the run of the same key that saw the same files, else a free place, else
        that of the run longest unused. Files whose content is in the store already become hard links.

        Raises
        ------
        StoreUnwritable
            It could not be stored; nothing has changed.
        """
        try:
            self._check_draft(draft, manifest)
            self._write(draft, manifest, signed)
            written = self._read_folder(draft.path, draft.key).entry
            name = self._move_in(draft, manifest)
        except OSError as error:
            raise self.unwritable(error) from error
        self._after_save(name)
        # Not read again: a neighbour may have evicted it by now, and the save was none the worse.
        path = self._entries / name
        return dataclasses.replace(written, path=path, pinned=(path / PINNED).exists())

    def _check_draft(self, draft: Draft, manifest: Manifest) -> None:
        manifests.check_names(manifest.outputs)
        if manifest.key.digest != draft.key:
            message = "the manifest is of another key than the draft"
            raise ValueError(message)
        listed = {output.file: output for output in manifest.outputs}
        if unlisted := {path.name for path in draft.path.iterdir()} - listed.keys():
            message = f"the manifest does not list {', '.join(sorted(unlisted))}"
            raise ValueError(message)
        for file, output in listed.items():
            if (size := os.lstat(draft.path / file).st_size) != output.size:
                raise StoreUnwritable(f"{file} has {size} bytes and not {output.size}", remedy="run the cell again")
        self._check_size(sum(output.size for output in manifest.outputs))

    def _check_size(self, size: int) -> None:
        limit = self.retention.max_entry_bytes
        if limit is not None and size > limit:
            what = "the limit per entry"
        elif size > (limit := self.limit()):
            what = "the store's limit"
        else:
            return
        message = f"{size_text(size)} is over {what} of {size_text(limit)}"
        raise StoreUnwritable(message, remedy="store fewer outputs (--outputs), or raise the limit")

    def _write(self, draft: Draft, manifest: Manifest, signed: tuple[bytes, bytes] | None) -> None:
        system = self._system
        for output in manifest.outputs:
            like_parent(draft.path / output.file, system.chmod)
            if not self._link_existing(draft.path / output.file, output):
                publish.flush(system, draft.path / output.file)
        data, signature = signed or self._signed(draft, manifest)
        publish.write_file(system, draft.path / MANIFEST, data)
        publish.write_file(system, draft.path / SIGNATURE, signature)
        if manifest.options.get("pin"):
            publish.write_file(system, draft.path / PINNED, b"")
        publish.flush_folder(system, draft.path)

    def _signed(self, draft: Draft, manifest: Manifest) -> tuple[bytes, bytes]:
        outputs = tuple(seal(draft.path, output) for output in manifest.outputs)
        data = manifests.to_bytes(dataclasses.replace(manifest, outputs=outputs))
        try:
            return data, self.trust.sign(data)
        except Untrusted as refused:
            raise StoreUnwritable(refused.message, remedy=refused.remedy) from refused

    def _link_existing(self, path: Path, output: Output) -> bool:
        """Put a link in the place of a file whose content the store has; False where it stays itself."""
        if output.size < indexes.LINKABLE:
            return False
        for name, file in self._ask(lambda index: index.same_content(output.digest, output.size)):
            if not _is_name(name) or file in OURS or "/" in file:
                continue  # a damaged index must not lead anywhere else
            existing = self._entries / name / file
            try:
                status = existing.lstat()
                if os.path.samestat(status, path.lstat()):
                    return True
                same = stat.S_ISREG(status.st_mode) and publish.same_bytes(existing, path)
            except OSError:  # evicted meanwhile, or unreadable: it is no loss to keep our own
                continue
            if same and publish.link_over(self._system, existing, path):
                return True
        return False

    def _move_in(self, draft: Draft, manifest: Manifest) -> str:
        """Rename a draft to where its entry belongs; neighbours may do the same at once."""
        for _ in range(ATTEMPTS):
            there = {name: publish.inode_of(self._entries / name) for name in _slots(draft.key)}
            name, old = self._choose_slot(manifest)
            if old is not None and old.pinned and not (draft.path / PINNED).exists():
                publish.write_file(self._system, draft.path / PINNED, b"")
            if publish.move_in(self._system, draft, self._entries / name, there[name], self._graveyard.trash):
                return name
        message = f"other processes took its place {ATTEMPTS} times"
        raise StoreUnwritable(message, remedy="run the cell again")

    def _choose_slot(self, manifest: Manifest) -> tuple[str, Entry | None]:
        """Return the name under which an entry goes, and the entry that it replaces."""
        seen = _seen(manifest)
        free = ""
        taken: list[Entry] = []
        for name in _slots(manifest.key.digest):
            entry = self._try_quietly(name)
            if entry is None:
                free = free or name
            elif _seen(entry.manifest) == seen:
                return name, entry
            else:
                taken.append(entry)
        if free:
            return free, None
        loose = [entry for entry in taken if not entry.pinned]
        if not loose:
            message = f"all {VARIANTS} runs of this cell that are kept are pinned"
            raise StoreUnwritable(message, remedy="unpin one of them")
        oldest = min(loose, key=lambda entry: entry.last_used)
        return oldest.digest, oldest

    def _try_quietly(self, name: str) -> Entry | None:
        """Return an entry as far as it can be read, whatever is known of its files."""
        try:
            return self._find(name).entry
        except (NotFound, Damaged):
            return None

    def _after_save(self, name: str) -> None:
        """Let the index know, and keep the limit; none of it can undo the save."""
        try:
            size = self._ask(lambda index: self._put_and_size(index, name))
            overdue = time.time() - self._kept_house > HOUSEKEEPING
            if size > self.limit(size) or overdue:
                self._kept_house = time.time()
                self.sweep()
                if eviction := self.prune(self.plan(keep={name})):
                    self.on_evict(eviction)
        except OSError as error:
            self.on_problem(Problem(self.root, f"saved, but retention could not be applied: {error}"))

    def _put_and_size(self, index: Index, name: str) -> int:
        if record := self._record(name):
            index.put(record)
        return index.size()

    # State beside the manifest

    def touch(self, entry: Entry) -> None:
        """Count a restore of an entry; where that cannot be (read-only, evicted meanwhile), let it be."""
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(entry.path / HITS, flags, 0o600)
            try:
                os.write(descriptor, b".")
                like_parent(entry.path / HITS)
            finally:
                os.close(descriptor)
            indexes.touch(self.root, entry.digest)

    def pin(self, entry: Entry) -> None:
        """Keep retention from evicting an entry."""
        with contextlib.suppress(FileExistsError):
            self._mark(entry, lambda: publish.write_file(self._system, entry.path / PINNED, b""))

    def unpin(self, entry: Entry) -> None:
        """Let retention evict an entry again."""
        if (entry.path / PINNED).exists():
            self._mark(entry, lambda: self._system.unlink(entry.path / PINNED))

    def _mark(self, entry: Entry, act: Callable[[], object]) -> None:
        try:
            act()
            indexes.touch(self.root, entry.digest)
        except FileExistsError:
            raise
        except OSError as error:
            if not entry.path.is_dir():
                raise NotFound(f"{entry.digest!r} was evicted meanwhile") from error
            raise self.unwritable(error) from error

    def _change(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except OSError as error:
            raise self.unwritable(error) from error

    # Evicting

    def evict(self, entries: Iterable[Entry], *, undoable: bool = True, reason: str = "asked for") -> Eviction:
        """Take entries out, each by one rename; those that are gone already are passed over.

        Values restored from them stay as they are: their files are unlinked at most.

        Raises
        ------
        StoreUnwritable
            The store cannot be written.
        """
        return self._evict([(entry, reason) for entry in entries], undoable=undoable)

    def _evict(self, victims: Collection[tuple[Entry, str]], *, undoable: bool) -> Eviction:
        before = self._ask(lambda index: index.size())
        try:
            names = [entry.digest for entry, _ in victims]
            if undoable:
                moved = set(self._graveyard.bury(names))
            else:
                moved = set(self._graveyard.throw(self._entries / name for name in names))
            after = self._ask(lambda index: self._forget_and_size(index, moved))
            self._graveyard.empty_trash()
        except OSError as error:
            raise self.unwritable(error) from error
        evicted = tuple((entry, reason) for entry, reason in victims if entry.digest in moved)
        return Eviction(evicted, max(before - after, 0), undoable and bool(evicted))

    def _forget_and_size(self, index: Index, names: Collection[str]) -> int:
        index.forget(names)
        return index.size()

    def discard(self, problems: Iterable[Problem]) -> int:
        """Remove the folders that problems name, for good; return how many there were."""
        paths = [problem.path for problem in problems if problem.path.parent == self._entries]
        moved = self._change(lambda: self._graveyard.throw(paths))
        self.sweep()
        self._ask(lambda index: index.refresh())
        return len(moved)

    def undo(self) -> tuple[Entry, ...]:
        """Bring back what was evicted last, as far as the grace period has not ended.

        Where a newer run has taken an entry's place, the newer one stays.
        """
        if not self._graveyard.folder.is_dir():
            return ()
        self._change(self._make_ready)
        self._change(self._end_grace)
        names = self._change(self._graveyard.bring_back)
        self._ask(Index.refresh)
        return tuple(entry for name in names if (entry := self._try_quietly(name)) is not None)

    # Retention

    def limit(self, used: int | None = None) -> int:
        """Return the bytes that the store may take; `used` is what it takes now (None: as when last looked at)."""
        if self.retention.max_bytes is not None:
            return self.retention.max_bytes
        self._size = self._size if used is None else used
        return retentions.default_limit(self.root, self._size)

    def plan(self, now: float | None = None, *, keep: Collection[str] = ()) -> EvictionPlan:
        """Return what retention would evict now; `keep` names entries that stay in any case."""
        return self._ask(lambda index: self._plan(index, time.time() if now is None else now, keep))

    def _plan(self, index: Index, now: float, keep: Collection[str]) -> EvictionPlan:
        index.refresh()
        candidates, shared = index.candidates()
        candidates = [c if c.name not in keep else c._replace(pinned=True) for c in candidates]
        total = index.size()
        victims, freed = retentions.choose(
            candidates, shared, total=total, limit=self.limit(total), retention=self.retention, now=now
        )
        # A pin whose note to the index was lost counts as well.
        loose = [v for v in victims if not os.path.lexists(f"{self._entries}/{v.candidate.name}/{PINNED}")]
        entries = {entry.digest: entry for entry in index.short([v.candidate.name for v in loose], self._trusted())}
        planned = [(entries[v.candidate.name], v.reason) for v in loose if v.candidate.name in entries]
        return EvictionPlan(tuple(planned), freed)

    def prune(self, plan: EvictionPlan | None = None) -> Eviction:
        """Carry out a plan, by default the one of now; it can be undone as long, and as far, as evictions are kept."""
        plan = self.plan() if plan is None else plan
        eviction = self._evict(plan.evict, undoable=True) if plan else Eviction()
        self._end_grace()
        kept = self._graveyard.names()
        return replace(eviction, undoable=any(entry.digest in kept for entry, _ in eviction.entries))

    def sweep(self) -> int:
        """Remove what dead processes left and what can no longer be undone; return how many drafts were swept."""
        try:
            swept = publish.sweep_drafts(self._system, self._drafts)
            self._end_grace()
            self._graveyard.empty_trash()
        except OSError as error:
            raise self.unwritable(error) from error
        return swept

    def _end_grace(self) -> None:
        self._graveyard.end_grace(self.retention.grace, retentions.grace_bytes(self.retention, self.limit()))

    # Seeing

    def catalog(self, limit: int | None = None, *, sort: str = "used") -> Catalog:
        """Return entries in short, and all problems.

        The entries' manifests hold names, outputs, options and the run; their source, parts,
        observations, effects and displays are empty. `get` reads one in full.

        Parameters
        ----------
        limit
            How many entries; None: all.
        sort
            What comes first: the last "used", the last "made", the largest ("size"), what has "saved" most
            time, or by "name".
        """
        return self._ask(lambda index: self._catalog(index, limit, sort))

    def _catalog(self, index: Index, limit: int | None, sort: str) -> Catalog:
        index.refresh()
        return index.catalog(self._trusted(), sort=sort, limit=-1 if limit is None else limit)

    def briefs(self) -> list[Brief]:
        """Return what lists show: every entry and every damaged folder, in no order."""
        return self._ask(Index.briefs)

    def short(self, addresses: Iterable[str]) -> list[Entry]:
        """Return some entries in short, as far as they can be read; of a folder that cannot, no more than its path."""
        names = list(addresses)
        found = {entry.digest: entry for entry in self._ask(lambda index: index.short(names, self._trusted()))}
        return [found.get(name) or _unreadable(self._entries / name) for name in names]

    def freed_by(self, addresses: Iterable[str]) -> int:
        """Return the bytes that evicting some entries gives back; what others hold as well stays."""
        names = list(addresses)
        return self._ask(lambda index: index.freed_by(names))

    # Notes that others keep beside an entry

    def statistics(self, entry: Entry) -> bytes:
        """Return what was last kept by `keep_statistics`; empty where nothing is."""
        return _if_there((entry.path / STATISTICS).read_bytes, b"")

    def keep_statistics(self, entry: Entry, data: bytes) -> None:
        """Keep derived facts of an entry's columns beside it until it goes; where that cannot be, let it be."""
        beside = self._drafts / publish.unique_name()
        with contextlib.suppress(OSError):
            publish.write_file(self._system, beside, data)
            try:
                self._system.rename(beside, entry.path / STATISTICS)
            except BaseException:
                self._system.unlink(beside)
                raise

    def _trusted(self) -> frozenset[str]:
        try:
            return self.trust.names()
        except Untrusted as refused:
            self.on_problem(Problem(self.root, f"{refused.message}; {refused.remedy}"))
            return frozenset()

    def usage(self) -> Usage:
        """Return what the store takes."""
        return self._ask(self._usage)

    def _usage(self, index: Index) -> Usage:
        index.refresh()
        size = index.size()
        entries, pinned, problems = index.counts()
        hits, saved = index.saved()
        return Usage(
            root=self.root,
            size=size,
            linked=index.full_size() - size,
            limit=self.limit(size),
            graveyard=self._graveyard.size(),
            free=retentions.free_bytes(self.root),
            entries=entries,
            pinned=pinned,
            problems=problems,
            hits=hits,
            saved=saved,
        )

    def where(self) -> Path:
        """Return the store's folder."""
        return self.root

    def check(self, progress: Callable[[int, int], None] | None = None, *, fix: bool = False) -> list[Problem]:
        """Verify everything: each entry's manifest, signature and every byte of its files; and leftovers.

        Parameters
        ----------
        progress
            Called with the bytes read so far and the bytes to read.
        fix
            Remove what is damaged, and sweep leftovers. The problems are returned all the same.
        """
        names = sorted(indexes.folders(self._entries))
        found: list[Problem] = []
        total = self._ask(self._full_size)
        done = 0

        def step(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(done, max(total, done))

        for name in names:
            problem = self._check_entry(name, step)
            if problem is not None:
                found.append(problem)
                with contextlib.suppress(OSError):  # a store that is read-only: the index need not know
                    indexes.touch(self.root, name)
        damaged = [problem.path for problem in found if not problem.what.startswith(OTHER_FORMAT)]
        found += [Problem(path, "left by a process that died") for path in publish.leftovers(self._drafts)]
        if fix and found:
            self._change(lambda: self._graveyard.throw(damaged))
            self.sweep()
        if fix:
            self._rebuild_index()
        return found

    def _full_size(self, index: Index) -> int:
        index.refresh()
        return index.full_size()

    def _check_entry(self, name: str, step: Callable[[int], None]) -> Problem | None:
        folder = self._entries / name
        try:
            entry = self._find(name).entry
        except manifests.OtherFormat as error:
            return Problem(folder, f"{OTHER_FORMAT}: {error.message}")
        except NotFound:
            return None
        except Damaged as error:
            return Problem(folder, error.message)
        try:
            self.check_files(entry, full=True, progress=step)
        except Damaged as error:
            return Problem(folder, error.message, entry.manifest.name, entry.size) if folder.is_dir() else None
        listed = OURS | {output.file for output in entry.manifest.outputs}
        if foreign := sorted({path.name for path in folder.iterdir()} - listed):
            what = f"holds {', '.join(foreign)}, which its manifest does not list"
            return Problem(folder, what, entry.manifest.name, entry.size)
        return None

    def _rebuild_index(self) -> None:
        with contextlib.suppress(OSError):
            indexes.lose(self.root / indexes.INDEX)
        self._ask(lambda index: index.refresh())

    # Neighbours

    def lock(
        self, key: Digest, *, on_wait: Callable[[str], None] = lambda _: None, notebook: str = ""
    ) -> AbstractContextManager[bool]:
        """Hold a key through a block, so that neighbours who want to run it wait and then restore.

        `on_wait` is called with who holds it, once, before waiting. The lock is freed when the
        holder dies. Yields whether it is held; where it cannot be (no locks, an unwritable store)
        cells may run twice, and nothing worse.
        """
        with contextlib.suppress(OSError):  # the save will say it
            self._make_ready()
        note = locks.describe_holder(notebook=notebook)
        return locks.one_at_a_time(self._locks / f"{key}.lock", note=note, on_wait=on_wait)

    # The house

    def _make_ready(self) -> None:
        """Have the folders, as after the first save; a store deleted in mid-session is made again."""
        if not self.root.is_dir():
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self._entries, self._drafts, self._locks):
            if not folder.is_dir():
                publish.make_folder(self._system, folder)
        for name, data in (("CACHEDIR.TAG", CACHEDIR_TAG), (".gitignore", b"*\n"), ("FORMAT", f"{FORMAT}\n".encode())):
            if not (self.root / name).exists():
                with contextlib.suppress(FileExistsError):
                    publish.write_file(self._system, self.root / name, data)

    def unwritable(self, error: OSError) -> StoreUnwritable:
        """Say in words why the store cannot be written; a full disk also ends the grace of what was evicted."""
        if isinstance(error, StoreUnwritable):
            return error
        if error.errno in publish.FULL:
            with contextlib.suppress(OSError):
                self._graveyard.end_grace(0.0, 0)
        return publish.explain(error, self.root)

    def _ask(self, question: Callable[[Index], T]) -> T:
        return self._index.ask(question)

    def _record(self, name: str) -> indexes.Record | None:
        """Return what the index keeps of one folder."""
        folder = self._entries / name
        try:
            inode = folder.lstat().st_ino
            entry, signer, damage = self._find(name)
        except (NotFound, FileNotFoundError):
            return None
        except Damaged as error:
            return indexes.Record(name, inode, None, problem=error.message)
        files: list[indexes.Linked] = []
        for output in entry.manifest.outputs:
            try:
                files.append(
                    indexes.Linked(output.file, output.digest, output.size, (folder / output.file).lstat().st_ino)
                )
            except OSError as error:
                if not os.path.lexists(folder):
                    return None
                damage = damage or f"{output.file}: {error.strerror}"
        return indexes.Record(name, inode, entry, signer, tuple(files), damage)


OTHER_FORMAT = "another version's"
LONGEST_NOTE = 1000


def _unreadable(folder: Path) -> Entry:
    return Entry(Manifest(FORMAT, UNREADABLE, "", Key("", ()), (), (), {}, (), Run(0.0, 0.0)), folder, 0, 0.0)


def _slots(key: Digest) -> list[str]:
    return [key, *(f"{key}-{number}" for number in range(1, VARIANTS))]


def _is_name(text: str) -> bool:
    """Tell whether a text is a folder's name as we make them: never a path."""
    digest, _, number = text.partition("-")
    return len(digest) == manifests.DIGITS and not digest.strip("0123456789abcdef") and len(number) <= 1


def _seen(manifest: Manifest) -> list[tuple[str, str, str]]:
    return sorted((seen.kind, seen.name, seen.digest) for seen in manifest.observed)


def _open_folder(folder: Path) -> int:
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:  # also where a neighbour puts one there in this very moment
        raise NotFound(f"no entry is called {folder.name!r}") from None
    except OSError as error:
        if not os.path.lexists(folder):
            raise NotFound(f"no entry is called {folder.name!r}") from None
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise Damaged("is no folder") from error
        raise Damaged(f"cannot be read: {error.strerror}") from error


def _is_at(descriptor: int, folder: Path) -> bool:
    """Tell whether an open folder still has its name."""
    return _if_there(lambda: os.path.samestat(os.fstat(descriptor), folder.lstat()), otherwise=False)


def _read(folder: int, name: str) -> bytes:
    # Never waits: whatever lies there under the name, a pipe included, is opened without blocking and refused.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, dir_fd=folder), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise Damaged(f"{name} is not a regular file")
        return file.read()


def _damage(folder: int) -> str:
    """Return what was noted of an entry's damage; a process that died at it may have left no words."""
    noted = _read(folder, DAMAGED)[:LONGEST_NOTE].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in noted).strip() or "its files are damaged"


def _uses(folder: int) -> tuple[float, int]:
    """Return when an entry was last restored and how often."""
    status = os.stat(HITS, dir_fd=folder)
    return status.st_mtime, status.st_size


def _if_there(look: Callable[[], T], otherwise: T) -> T:
    try:
        return look()
    except (OSError, Damaged):
        return otherwise
