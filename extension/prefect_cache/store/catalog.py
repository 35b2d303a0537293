"""The index: what commands and retention need to know of all entries, without opening each.

It is derived from the entries' folders and never the truth. Before it answers for the whole store it is
brought in line with them: one listing of ``entries`` tells by name and inode which folders have come,
gone or been replaced, and a list of names in ``touched`` which were used or pinned since. It may be
lost, damaged, locked or unwritable at any time; then it is made again, in memory if need be. A restore
reads the entry itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

from prefect_cache.model import FORMAT, Catalog, Entry, Key, Manifest, Output, Problem, Run
from prefect_cache.store import brief
from prefect_cache.store.brief import Brief
from prefect_cache.store.publish import unique_name
from prefect_cache.store.retention import Candidate
from prefect_cache.store.sharing import like_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import Self

    from prefect_cache.store.retention import File

T = TypeVar("T")

VERSION = 3
"""Of the tables; an index of another version is made again."""

INDEX = "index.sqlite"
TOUCHED = "touched"

PATIENCE = 5.0
"""Seconds to wait for a neighbour who writes the index, before going without."""

NONE: dict[int, int] = {}

UNTOLD = frozenset({"pieces", "runs"})
"""What of an output's meta a short entry lacks: only who reads the file asks for it."""

LINKABLE = 4096
"""Bytes from which on a file is worth a hard link, and is counted by inode."""

TABLES = f"""
CREATE TABLE entries (
    name TEXT PRIMARY KEY, inode INTEGER, size INTEGER, last_used REAL, hits INTEGER, pinned INTEGER,
    started REAL, seconds REAL, expires REAL, title TEXT, code TEXT, signer TEXT, problem TEXT,
    outputs TEXT, rows INTEGER, columns INTEGER, notebook TEXT, words TEXT
) WITHOUT ROWID;
CREATE TABLE summaries (name TEXT PRIMARY KEY, summary TEXT) WITHOUT ROWID;
CREATE TABLE files (name TEXT, file TEXT, digest TEXT, size INTEGER, inode INTEGER);
CREATE TABLE runs (name TEXT, file TEXT, sample TEXT, start INTEGER);
CREATE INDEX runs_by_name ON runs (name);
CREATE INDEX runs_by_sample ON runs (sample);
CREATE INDEX entries_in_brief ON entries (problem, name, inode, size, seconds, last_used, expires, pinned, hits);
CREATE INDEX entries_by_use ON entries (last_used);
CREATE INDEX entries_by_title ON entries (title);
CREATE INDEX entries_by_code ON entries (code);
CREATE INDEX files_by_name ON files (name);
CREATE INDEX files_by_content ON files (digest, size);
CREATE INDEX files_by_inode ON files (inode, size, name);
PRAGMA user_version = {VERSION};
"""
"""Sums and plans come from `entries_in_brief` alone, lists do without the summaries, which take most of the file."""


class Linked(NamedTuple):
    """A file of an entry, as it lies on disk."""

    file: str
    digest: str
    size: int
    inode: int


class Record(NamedTuple):
    """What the index keeps of one folder: an entry, the problem with it, or both where its files are damaged."""

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


class Indexes:
    """The index of one store, opened for each question: the file, one made again, or else one in memory.

    The one in memory is kept until the file can be used: a read-only store is not read from the start each time.
    """

    def __init__(self, root: Path, read: Callable[[str], Record | None]) -> None:
        self._root = root
        self._read = read
        self._lock = threading.Lock()
        self._spare: Index | None = None

    def ask(self, question: Callable[[Index], T]) -> T:
        """Return what `question` makes of the index."""
        for damaged in (False, True):
            try:
                if damaged:
                    lose(self._root / INDEX)
                with Index(self._root, self._read) as index:
                    answer = question(index)
                self._spare = None
            except sqlite3.OperationalError:  # locked for too long, read-only, full
                break
            except (sqlite3.DatabaseError, UnicodeDecodeError):  # malformed, or no database at all
                continue
            except OSError:  # there is no root yet, or it may not be written
                break
            else:
                return answer
        with self._lock:
            self._spare = spare = self._spare or Index(self._root, self._read, memory=True)
            return question(spare)


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
        if memory:
            weakref.finalize(self, self._database.close)  # it lives as long as somebody asks it

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
        for table in ("entries", "summaries", "files", "runs"):
            self._database.executemany(f"DELETE FROM {table} WHERE name = ?", rows)  # noqa: S608 - ours

    def _put(self, records: Iterable[Record]) -> None:
        records = list(records)
        marks = ", ".join("?" * COLUMNS)
        self._database.executemany(f"INSERT OR REPLACE INTO entries VALUES ({marks})", map(_row, records))  # noqa: S608
        self._database.executemany(
            "INSERT OR REPLACE INTO summaries VALUES (?, ?)",
            [(record.name, _summary(record.entry.manifest)) for record in records if record.entry is not None],
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
        self._database.executemany(
            "INSERT INTO runs VALUES (?, ?, ?, ?)", [row for record in records for row in _runs(record)]
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

    def freed_by(self, names: Iterable[str]) -> int:
        """Return the bytes that evicting some entries gives back: a shared file counts once, with its last owner."""
        chosen = "(SELECT value FROM json_each(?1))"
        shared = "(SELECT count(*) FROM files AS every WHERE every.inode = files.inode)"
        (size,) = self._database.execute(
            f"SELECT (SELECT total(size) FROM entries WHERE name IN {chosen})"  # noqa: S608 - ours
            f" - (SELECT total(size) FROM files WHERE name IN {chosen})"
            f" + (SELECT total(size) FROM (SELECT max(size) AS size FROM files WHERE name IN {chosen}"
            f" GROUP BY inode HAVING count(*) = {shared}))",
            (json.dumps(list(names)),),
        ).fetchone()
        return int(size)

    def runs(self, samples: Iterable[str]) -> list[tuple[str, str, str, int]]:
        """Return sample, folder, file and place of the runs that are said to have these samples."""
        query = "SELECT sample, name, file, start FROM runs WHERE sample = ? ORDER BY rowid DESC LIMIT 8"
        return [row for sample in samples for row in self._database.execute(query, (sample,))]

    def candidates(self) -> tuple[list[Candidate], Mapping[str, Sequence[File]]]:
        """Return what retention needs: every entry, and the files that several share.

        What is damaged is worth nothing.
        """
        shared: dict[str, list[File]] = {}
        linked: dict[str, int] = {}
        for name, inode, size, links in self._database.execute(
            "SELECT name, inode, size, count(*) FROM files"
            " WHERE inode IN (SELECT inode FROM files GROUP BY inode HAVING count(*) > 1) GROUP BY name, inode"
        ):
            shared.setdefault(name, []).append((inode, size))
            linked[name] = linked.get(name, 0) + links * size  # equal outputs of one entry may be one file too
        rows = self._database.execute(
            "SELECT name, size, size, CASE problem WHEN '' THEN seconds ELSE 0.0 END, last_used, expires, pinned"
            " FROM entries INDEXED BY entries_in_brief WHERE size > 0"
        )
        candidates = list(map(Candidate._make, rows))
        for at, candidate in enumerate(candidates):
            if candidate.name in linked:
                candidates[at] = candidate._replace(alone=candidate.size - linked[candidate.name])
        return candidates, shared

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

    def briefs(self) -> list[Brief]:
        """Return what lists show of every folder, as it is now."""
        self.refresh()
        return list(map(Brief._make, self._database.execute(BRIEFS)))

    def brief(self, name: str) -> Brief | None:
        """Return what lists show of one folder."""
        row = self._database.execute(f"{BRIEFS} WHERE name = ?", (name,)).fetchone()
        return None if row is None else Brief._make(row)

    def catalog(self, trusted: frozenset[str], *, sort: str = "used", limit: int = -1) -> Catalog:
        """Return entries in short, sorted as one of `SORTS`, and all problems."""
        folder = self._root / "entries"
        problems = self._database.execute(
            "SELECT name, problem, title, size FROM entries WHERE problem != '' ORDER BY name"
        )
        found = tuple(Problem(folder / name, *what) for name, *what in problems)
        # The order is made of the light columns; SQLite would else carry the summaries through its sort.
        order = f"SELECT name FROM entries WHERE problem = '' ORDER BY {SORTS[sort]} LIMIT {int(limit)}"  # noqa: S608
        names = [name for (name,) in self._database.execute(order)]
        query = SHORT if limit < 0 else f"{SHORT} AND name IN ({order})"
        rows = {row[0]: row for row in self._database.execute(query)}
        (total,) = self._database.execute("SELECT count(*) FROM entries WHERE problem = ''").fetchone()
        return Catalog(Shorts([rows[name] for name in names if name in rows], folder, trusted), found, total)

    def short(self, names: Iterable[str], trusted: frozenset[str]) -> list[Entry]:
        """Return some entries in short, in the order in which they are named, damaged ones too if they can be read."""
        folder = self._root / "entries"
        query = SHORT.replace("problem = ''", "name IN (SELECT value FROM json_each(?))")
        wanted = list(names)
        rows = {row[0]: row for row in self._database.execute(query, (json.dumps(wanted),))}
        return [_short(folder, rows[name], trusted) for name in wanted if name in rows]


class Shorts(Sequence[Entry]):
    """Entries in short, each made when it is looked at: a list of a hundred thousand shows fifty."""

    def __init__(self, rows: Sequence[tuple[Any, ...]], folder: Path, trusted: frozenset[str]) -> None:
        self._rows = rows
        self._folder = folder
        self._trusted = trusted

    @overload
    def __getitem__(self, at: int) -> Entry: ...
    @overload
    def __getitem__(self, at: slice) -> Shorts: ...
    def __getitem__(self, at: int | slice) -> Entry | Shorts:
        """Return one entry, or some."""
        if isinstance(at, slice):
            return Shorts(self._rows[at], self._folder, self._trusted)
        return _short(self._folder, self._rows[at], self._trusted)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._rows)

    def __eq__(self, other: object) -> bool:
        """Tell whether another sequence holds the same entries."""
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def __repr__(self) -> str:
        """Return what is in it."""
        return repr(tuple(self))


SORTS = {
    "used": "last_used DESC",
    "made": "started DESC",
    "size": "size DESC",
    "saved": "hits * seconds DESC",
    "name": "words",  # which begin with it
}
"""By what a catalog can be sorted."""

BRIEFS = f"""
SELECT name, CASE WHEN title != '' THEN title WHEN outputs != '' THEN outputs WHEN size = 0 THEN '{brief.UNREADABLE}'
  ELSE '{brief.NAMELESS}' END, outputs, rows, columns, size, started, last_used, hits, hits * seconds, notebook,
  pinned, expires, problem, words FROM entries
"""  # noqa: S608 - ours

SHORT = """
SELECT name, size, last_used, hits, pinned, signer, title, started, seconds, summary
FROM entries JOIN summaries USING (name) WHERE problem = ''
"""

COLUMNS = 18
"""Of the table of entries."""

_decode = json.JSONDecoder().raw_decode


def _row(record: Record) -> tuple[object, ...]:
    entry = record.entry
    if entry is None:
        words = f"{brief.UNREADABLE}\n{record.name}\n{record.problem}".lower()
        nothing = (0, 0.0, 0, 0, 0.0, 0.0, None, "", "", "", record.problem or "unreadable", "", None, None, "", words)
        return (record.name, record.inode, *nothing)
    manifest = entry.manifest
    told = brief.facts(manifest)
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
        _text(manifest.name),
        code_of(manifest.key),
        record.signer,
        record.problem,
        _text(told.outputs),
        told.rows,
        told.columns,
        _text(manifest.run.notebook),
        _text(f"{told.words}\n{record.problem.lower()}" if record.problem else told.words),
    )


def _text(value: str) -> str:
    """Return a text that SQLite takes: lone surrogates, which a column's name may hold, have no UTF-8."""
    return value.encode("utf-8", "replace").decode("utf-8")


def _runs(record: Record) -> Iterator[tuple[str, str, str, int]]:
    for output in record.entry.manifest.outputs if record.entry is not None and record.signer else ():
        runs = output.meta.get("runs")
        for run in runs if isinstance(runs, list) else ():
            match run:
                case [str() as sample, int() as start, int()]:
                    yield record.name, output.file, sample, start


def code_of(key: Key) -> str:
    """Return the digest of the cell's own code, the part by which runs of one cell are found again."""
    return next((part.digest for part in key.parts if part.kind == "code"), "")


def _summary(manifest: Manifest) -> str:
    outputs = [
        [o.name, o.kind, o.codec, o.file, o.digest, o.size, {k: v for k, v in o.meta.items() if k not in UNTOLD}]
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
    database = sqlite3.connect(":memory:", check_same_thread=False)
    with contextlib.suppress(sqlite3.DatabaseError):
        copied = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            copied.backup(database)
        finally:
            copied.close()
    if database.execute("PRAGMA user_version").fetchone() != (VERSION,):
        database.close()
        database = sqlite3.connect(":memory:", check_same_thread=False)
        database.executescript(TABLES)
    return database
