"""The index: what commands and retention need to know of all entries, without opening each.

It is derived from the entries' folders and never the truth. Before it answers for the whole store it is
brought in line with them: one listing of ``entries`` tells by name and inode which folders have come,
gone or been replaced, and a list of names in ``touched`` which were used or pinned since. It may be
lost, damaged, locked or unwritable at any time; then it is made again, in memory if need be. A restore
reads the entry itself.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sqlite3
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from prefect_cache.model import FORMAT, Catalog, Entry, Key, Manifest, Output, Problem, Run
from prefect_cache.store.publish import unique_name
from prefect_cache.store.retention import Candidate
from prefect_cache.store.sharing import like_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Self

    from prefect_cache.store.retention import File

T = TypeVar("T")

VERSION = 2
"""Of the tables; an index of another version is made again."""

INDEX = "index.sqlite"
TOUCHED = "touched"
# Whatever is asked of all entries at once (sizes, plans, what has changed) is answered from `entries_in_brief`
# alone, without a look at the summaries, which take most of the file.

PATIENCE = 5.0
"""Seconds to wait for a neighbour who writes the index, before going without."""

NONE: dict[int, int] = {}

LINKABLE = 4096
"""Bytes from which on a file is worth a hard link, and is counted by inode."""

TABLES = f"""
CREATE TABLE entries (
    name TEXT PRIMARY KEY, inode INTEGER, size INTEGER, last_used REAL, hits INTEGER, pinned INTEGER,
    started REAL, seconds REAL, expires REAL, title TEXT, code TEXT, signer TEXT, summary TEXT, problem TEXT
) WITHOUT ROWID;
CREATE TABLE files (name TEXT, file TEXT, digest TEXT, size INTEGER, inode INTEGER);
CREATE INDEX entries_in_brief ON entries (problem, name, inode, size, seconds, last_used, expires, pinned, hits);
CREATE INDEX entries_by_use ON entries (last_used);
CREATE INDEX entries_by_title ON entries (title);
CREATE INDEX entries_by_code ON entries (code);
CREATE INDEX files_by_name ON files (name);
CREATE INDEX files_by_content ON files (digest, size);
CREATE INDEX files_by_inode ON files (inode, size, name);
PRAGMA user_version = {VERSION};
"""


class Linked(NamedTuple):
    """A file of an entry, as it lies on disk."""

    file: str
    digest: str
    size: int
    inode: int


class Record(NamedTuple):
    """What the index keeps of one folder: an entry, or the problem with it."""

    name: str
    inode: int
    entry: Entry | None
    signer: str = ""
    files: tuple[Linked, ...] = ()
    problem: str = ""


def touch(root: Path, name: str) -> None:
    """Note that an entry's uses or pin have changed; the index looks at it before it answers next."""
    descriptor = os.open(root / TOUCHED, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, f"{name}\n".encode())
        like_parent(root / TOUCHED)
    finally:
        os.close(descriptor)


def ask(root: Path, read: Callable[[str], Record | None], question: Callable[[Index], T]) -> T:
    """Return what `question` makes of the index: of the file, of one made again, or of one in memory."""
    for damaged in (False, True):
        try:
            if damaged:
                lose(root / INDEX)
            with Index(root, read) as index:
                return question(index)
        except sqlite3.OperationalError:  # locked for too long, read-only, full
            break
        except sqlite3.DatabaseError:  # malformed, or no database at all
            continue
        except OSError:  # there is no root yet, or it may not be written
            break
    with Index(root, read, memory=True) as index:
        return question(index)


class Index:
    """The derived index of one store; open it for one piece of work, in one thread.

    Parameters
    ----------
    root
        The store.
    read
        Reads one folder of ``entries`` into a `Record`, or None where it has gone.
    """

    def __init__(self, root: Path, read: Callable[[str], Record | None], *, memory: bool = False) -> None:
        self._root = root
        self._read = read
        self._database = _in_memory(root / INDEX) if memory else _connect(root / INDEX)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._database.close()

    def refresh(self) -> None:
        """Bring the index in line with the folders."""
        there = folders(self._root / "entries")
        known = dict(self._database.execute("SELECT name, inode FROM entries INDEXED BY entries_in_brief"))
        stale = [name for name, inode in there.items() if known.get(name) != inode]
        gone = known.keys() - there.keys()
        with self._touched() as touched:
            stale += [name for name in touched if name in there and known.get(name) == there[name]]
            if stale or gone:
                self._update(stale, gone)

    @contextlib.contextmanager
    def _touched(self) -> Iterator[set[str]]:
        """Yield the names noted by `touch`; the notes are dropped once the block has used them."""
        with contextlib.suppress(OSError):  # nothing noted, or a store that is read-only
            (self._root / TOUCHED).rename(self._root / f"{TOUCHED}-{unique_name()}")
        # Notes that a dead process took and did not use are here as well.
        notes = list(self._root.glob(f"{TOUCHED}-*"))
        names: set[str] = set()
        for note in notes:
            with contextlib.suppress(OSError):
                names.update(note.read_text(errors="replace").split())
        yield names
        for note in notes:
            with contextlib.suppress(OSError):
                note.unlink(missing_ok=True)

    def _update(self, stale: Sequence[str], gone: Iterable[str]) -> None:
        # In small transactions, so that a neighbour need not wait for a hundred thousand folders.
        with self._database:
            self._forget(gone)
        for first in range(0, len(stale), 500):
            names = stale[first : first + 500]
            records = [record for name in names if (record := self._read(name)) is not None]
            with self._database:
                self._forget(names)
                self._put(records)

    def _forget(self, names: Iterable[str]) -> None:
        rows = [(name,) for name in names]
        self._database.executemany("DELETE FROM entries WHERE name = ?", rows)
        self._database.executemany("DELETE FROM files WHERE name = ?", rows)

    def _put(self, records: Iterable[Record]) -> None:
        records = list(records)
        self._database.executemany(
            "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", map(_row, records)
        )
        self._database.executemany(
            "INSERT INTO files VALUES (?, ?, ?, ?, ?)",
            [
                (record.name, file.file, file.digest, file.size, file.inode)
                for record in records
                for file in record.files
                if file.size >= LINKABLE
            ],
        )

    def put(self, record: Record) -> None:
        """Know one more entry."""
        with self._database:
            self._forget([record.name])
            self._put([record])

    def forget(self, names: Iterable[str]) -> None:
        """Know some entries no more."""
        with self._database:
            self._forget(names)

    def size(self) -> int:
        """Return the bytes of all entries, hard-linked files counted once."""
        (size,) = self._database.execute(
            "SELECT (SELECT total(size) FROM entries INDEXED BY entries_in_brief) - (SELECT total(size) FROM files)"
            " + (SELECT total(size) FROM (SELECT max(size) AS size FROM files GROUP BY inode))"
        ).fetchone()
        return int(size)

    def full_size(self) -> int:
        """Return the bytes of all entries, each hard-linked file counted in full."""
        (size,) = self._database.execute("SELECT total(size) FROM entries").fetchone()
        return int(size)

    def counts(self) -> tuple[int, int, int]:
        """Return how many entries there are, how many of them are pinned, and how many folders have problems."""
        entries, pinned, problems = self._database.execute(
            "SELECT total(problem = ''), total(pinned AND problem = ''), total(problem != '') FROM entries"
        ).fetchone()
        return int(entries), int(pinned), int(problems)

    def saved(self) -> tuple[int, float]:
        """Return how often the entries of the store were restored, and the seconds of work that this spared."""
        hits, seconds = self._database.execute("SELECT total(hits), total(hits * seconds) FROM entries").fetchone()
        return int(hits), float(seconds)

    def same_content(self, digest: str, size: int) -> list[tuple[str, str]]:
        """Return folder and file names that are said to hold a content."""
        query = "SELECT name, file FROM files WHERE digest = ? AND size = ? LIMIT 4"
        return [(name, file) for name, file in self._database.execute(query, (digest, size))]

    def candidates(self) -> tuple[list[Candidate], Mapping[str, Sequence[File]]]:
        """Return what retention needs: every entry, and the files that several share."""
        shared: dict[str, dict[int, int]] = {}
        for name, inode, size in self._database.execute(
            "SELECT name, inode, size FROM files WHERE inode IN"
            " (SELECT inode FROM files GROUP BY inode HAVING count(DISTINCT name) > 1)"
        ):
            shared.setdefault(name, {})[inode] = size
        rows = self._database.execute(
            "SELECT name, size, seconds, last_used, expires, pinned FROM entries WHERE problem = ''"
        )
        candidates = [
            Candidate(name, size - sum(shared.get(name, NONE).values()), size, *rest) for name, size, *rest in rows
        ]
        return candidates, {name: list(files.items()) for name, files in shared.items()}

    def names(self, address: str) -> list[str]:
        """Return the entries whose digest begins with `address` or whose title it is, newest first."""
        return self._names("name >= ? AND name < ? OR title = ?", (address, address + "\x7f", address))

    def alike(self, title: str, code: str, limit: int) -> list[str]:
        """Return the entries that share a title or a cell's code, newest first."""
        return self._names("(title = ? OR code = ?)", (title, code), limit)

    def _names(self, condition: str, values: tuple[str, ...], limit: int = -1) -> list[str]:
        rows = self._database.execute(
            f"SELECT name FROM entries WHERE problem = '' AND ({condition}) ORDER BY started DESC LIMIT ?",  # noqa: S608 - ours
            (*values, limit),
        )
        return [name for (name,) in rows]

    def catalog(self, trusted: frozenset[str], *, limit: int = -1) -> Catalog:
        """Return entries in short, the last used first, and all problems."""
        folder = self._root / "entries"
        query = "SELECT name, problem, title, size FROM entries WHERE problem != '' ORDER BY name"
        problems = self._database.execute(query)
        with _no_garbage_collection():
            entries = [_short(folder, row, trusted) for row in self._last_used(limit)]
        return Catalog(tuple(entries), tuple(Problem(folder / name, *what) for name, *what in problems))

    def _last_used(self, limit: int) -> list[tuple[Any, ...]]:
        query = f"SELECT {', '.join(SHORT)} FROM entries WHERE problem = ''"  # noqa: S608 - ours
        if limit >= 0:
            names = "SELECT name FROM entries WHERE problem = '' ORDER BY last_used DESC LIMIT ?"
            rows = self._database.execute(f"{query} AND name IN ({names})", (limit,)).fetchall()
        else:
            rows = self._database.execute(query).fetchall()
        # Not by SQLite, which would carry whole rows through its sort.
        rows.sort(key=itemgetter(SHORT.index("last_used")), reverse=True)
        return rows

    def short(self, names: Iterable[str], trusted: frozenset[str]) -> list[Entry]:
        """Return some entries in short, in the order in which they are named."""
        folder = self._root / "entries"
        query = f"SELECT {', '.join(SHORT)} FROM entries WHERE problem = '' AND name = ?"  # noqa: S608 - ours
        rows = (self._database.execute(query, (name,)).fetchone() for name in names)
        return [_short(folder, row, trusted) for row in rows if row is not None]


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Let a great many values be made without being searched for cycles again and again: twice as fast."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


_decode = json.JSONDecoder().raw_decode

SHORT = ("name", "size", "last_used", "hits", "pinned", "signer", "title", "started", "seconds", "summary")


def _row(record: Record) -> tuple[object, ...]:
    entry = record.entry
    if entry is None:
        return (record.name, record.inode, 0, 0.0, 0, 0, 0.0, 0.0, None, "", "", "", "", record.problem or "unreadable")
    manifest = entry.manifest
    return (
        record.name,
        record.inode,
        entry.size,
        entry.last_used,
        entry.hits,
        int(entry.pinned),
        manifest.run.started,
        manifest.run.seconds,
        entry.expires,
        manifest.name,
        code_of(manifest.key),
        record.signer,
        _summary(manifest),
        "",
    )


def code_of(key: Key) -> str:
    """Return the digest of the cell's own code, the part by which runs of one cell are found again."""
    return next((part.digest for part in key.parts if part.kind == "code"), "")


def _summary(manifest: Manifest) -> str:
    outputs = [
        [o.name, o.kind, o.codec, o.file, o.digest, o.size, {k: v for k, v in o.meta.items() if k != "pieces"}]
        for o in manifest.outputs
    ]
    run = manifest.run
    return json.dumps([manifest.key.digest, dict(manifest.options), run.notebook, run.host, run.user, outputs])


def _short(folder: Path, row: tuple[Any, ...], trusted: frozenset[str]) -> Entry:
    name, size, last_used, hits, pinned, signer, title, started, seconds, summary = row
    key, options, notebook, host, user, outputs = _decode(summary)[0]
    manifest = Manifest(
        format=FORMAT,
        name=title,
        source="",
        key=Key(key, ()),
        observed=(),
        outputs=tuple(Output(*output) for output in outputs),
        effects={},
        displays=(),
        run=Run(started, seconds, notebook, host, user),
        options=options,
    )
    return Entry(manifest, folder / name, size, last_used, hits, bool(pinned), signer in trusted)


def folders(entries: Path) -> dict[str, int]:
    """Return name and inode of each folder; a listing tells both without a look at each."""
    try:
        with os.scandir(entries) as listing:
            return {item.name: item.inode() for item in listing}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def lose(path: Path) -> None:
    """Remove an index file; it will be made again."""
    for name in (path, path.with_name(f"{path.name}-journal")):
        name.unlink(missing_ok=True)


def _connect(path: Path) -> sqlite3.Connection:
    if not path.exists():
        # SQLite would make it with the umask's rights.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        like_parent(path)
    database = sqlite3.connect(path, timeout=PATIENCE)
    try:
        # Killed processes leave a journal that the next reader rolls back. A loss of power may damage
        # the file, which is then made again: not worth a flush per save.
        database.execute("PRAGMA synchronous = OFF")
        if database.execute("PRAGMA user_version").fetchone() != (VERSION,):
            _make_tables(database)
    except BaseException:
        database.close()
        raise
    return database


def _make_tables(database: sqlite3.Connection) -> None:
    database.execute("BEGIN IMMEDIATE")
    try:
        if database.execute("PRAGMA user_version").fetchone() != (VERSION,):  # else a neighbour was first
            for kind, name in database.execute("SELECT type, name FROM sqlite_master WHERE sql NOT NULL").fetchall():
                database.execute(f'DROP {kind} IF EXISTS "{name}"')
            for statement in TABLES.split(";"):
                database.execute(statement)
        database.commit()
    except BaseException:
        database.rollback()
        raise


def _in_memory(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(":memory:")
    with contextlib.suppress(sqlite3.DatabaseError):
        copied = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            copied.backup(database)
        finally:
            copied.close()
    if database.execute("PRAGMA user_version").fetchone() != (VERSION,):
        database.close()
        database = sqlite3.connect(":memory:")
        database.executescript(TABLES)
    return database
