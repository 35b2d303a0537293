"""The words that every room shares, as frozen values.

Nothing here knows IPython, Prefect, pandas or the disk. What a value of these
types says is true for good: a run makes new ones and changes none.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    import ast
    from collections.abc import Mapping, Sequence
    from pathlib import Path

FORMAT = 1
"""The number of the format on disk and of the digests; raised when either changes."""

PART = "part"
"""The codec of files that are parts of others."""

Digest = str
"""A 128-bit content digest (xxh3_128), as 32 lower-case hexadecimal digits."""

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
"""What a manifest may hold."""

Step = tuple[str, int | str]
"""One step from an object to a part of it, see :class:`ObjectPath`."""

ObjectPath = tuple[Step, ...]
"""How to find an object again, starting at the namespace.

The first step is ``("name", "orders")``, or ``("module", "helpers")`` for what hangs on a module
alone; further steps are ``("index", 3)`` (lists, tuples, deques), ``("key", i)`` (the value under
the i-th key of a dict, in its order), ``("attr", "x")`` (an instance's, class's or module's attribute),
``("member", digest)`` (the element of a set with that fingerprint), ``("cell", "x")`` (the cell of a
captured variable, whose content is at ``("attr", "cell_contents")``), ``("default", i)``,
``("kwdefault", "x")``, ``("class", "")`` (the object's class) and ``("part", "x")`` (anything else
that a type's own walker names).
"""


@dataclass(frozen=True, slots=True)
class Cell:
    """What a reader of the source can say about a cell before it runs.

    Attributes
    ----------
    source
        The code as the user wrote it, without the ``%%prefect_cache`` line.
    python
        The same after IPython's transformation of magics and shell escapes: plain Python.
    tree
        The parsed module of `python`.
    reads
        Names that the cell may read before it assigns them, sorted; the inputs.
    writes
        Names that the cell may bind, sorted.
    deletes
        Names that the cell may delete, sorted.
    settled
        Names that the cell certainly binds or deletes if it runs to its end, sorted.
    imports
        Modules that the cell imports, dotted and sorted.
    strings
        Text constants that may name a file, sorted.
    environ
        Environment variables named as constants, sorted.
    magics
        The magics that it runs, with their signs (``"%time"``, ``"%%bash"``), sorted.
    dynamic
        Why names may be read or bound out of sight (``eval``, ``exec``, ``globals()``), in words
        that a person understands; empty where everything can be seen.
    weak
        Names among `reads` that were surely bound by this cell itself before they were read, if the
        namespace did not hold them when the run began: were such a name read too early, the run would
        have ended with a NameError. A run that began without them depends on none of them.
    """

    source: str
    python: str
    tree: ast.Module
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    deletes: tuple[str, ...] = ()
    settled: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    strings: tuple[str, ...] = ()
    environ: tuple[str, ...] = ()
    magics: tuple[str, ...] = ()
    dynamic: tuple[str, ...] = ()
    weak: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that a key depends on.

    Attributes
    ----------
    kind
        ``"code"``, ``"input"``, ``"function"``, ``"module"``, ``"package"``, ``"environ"``, ``"file"``,
        ``"state"``, ``"sharing"``, ``"python"``, ``"format"``.
    name
        Which one of its kind: a variable, a module, a path.
    digest
        Of its content.
    detail
        What a later reader needs to say *how* it differs: for a frame its columns with a digest
        each, for a function its source, for a package its version. Never needed to compare.
    """

    kind: str
    name: str
    digest: Digest
    detail: Json = None


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two keys, or between an entry and the disk.

    `how` is ``"changed"``, ``"new"`` or ``"gone"``; `older` and `newer` are the parts, where there are any.
    """

    kind: str
    name: str
    how: Literal["changed", "new", "gone"]
    older: Part | None = None
    newer: Part | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """Stage 1: everything known before the run that the cell's result depends on."""

    digest: Digest
    parts: tuple[Part, ...]

    def changes(self, older: Key) -> tuple[Change, ...]:
        """Return what differs from an older key, in the order of this key's parts."""
        before = {(p.kind, p.name): p for p in older.parts}
        found: list[Change] = []
        for part in self.parts:
            was = before.pop((part.kind, part.name), None)
            if was is None:
                found.append(Change(part.kind, part.name, "new", None, part))
            elif was.digest != part.digest:
                found.append(Change(part.kind, part.name, "changed", was, part))
        found += [Change(p.kind, p.name, "gone", p, None) for p in before.values()]
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Observed:
    """Stage 2: one thing outside the namespace that a run was seen to depend on, or to make.

    Attributes
    ----------
    kind
        ``"file"`` (read), ``"folder"`` (listed), ``"absent"`` (looked for, not there), ``"written"``
        (made by the run), ``"environ"`` (variable read), ``"state"``, ``"cwd"``, ``"random"``,
        ``"numpy.random"``, ``"torch"``.
    name
        The path as the program gave it (relative paths stay relative), or the variable's name.
    digest
        Of the content at the time of the run.
    detail
        For files ``{"size", "mtime_ns", "ctime_ns", "inode", "device"}``: may spare reading it again.
    """

    kind: str
    name: str
    digest: Digest
    detail: Json = None


@dataclass(frozen=True, slots=True)
class Output:
    """One file of an entry.

    Attributes
    ----------
    name
        The variable that it belongs to, for people (``"orders"``); not unique.
    kind
        The type's name, such as ``"DataFrame"``.
    codec
        The name of the codec that wrote it; ``"part"`` for a file of another entry that one of this entry's
        shares, see ``codecs.parts``.
    file
        The file's name inside the entry's folder: never a path.
    digest
        Tree digest of the file, see :mod:`prefect_cache.digests`.
    size
        Bytes on disk.
    meta
        What the codec tells: ``rows``, ``columns`` (name and dtype), ``shape``, ``repr`` ... and
        ``pieces``, the digests of the file's pieces of 4 MiB, in order.
    """

    name: str
    kind: str
    codec: str
    file: str
    digest: Digest
    size: int
    meta: Mapping[str, Json] = field(default_factory=dict)

    @property
    def is_part(self) -> bool:
        """Tell whether this is no value of its own, but bytes that another output's file shares."""
        return self.codec == PART


@dataclass(frozen=True, slots=True)
class Held:
    """Where a file of the store is said to hold some bytes: `offset` in the file at `path`, which is `output`."""

    path: Path
    offset: int
    output: Output


@dataclass(frozen=True, slots=True)
class Run:
    """When, where and how long the cell ran; `started` is in seconds since the epoch, UTC."""

    started: float
    seconds: float
    notebook: str = ""
    host: str = ""
    user: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    prefect: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that an entry says of itself; ``manifest.json`` is this value.

    Attributes
    ----------
    format
        The format's number; another one is a miss.
    name
        The name that a person gave the cell, or the first output's, or the first line of code.
    source
        The cell's code as the user wrote it.
    key
        Stage 1.
    observed
        Stage 2, verified before a hit.
    outputs
        The entry's files.
    effects
        How the outputs go back into a namespace; read and written by ``cells.effects`` alone.
    displays
        What the cell showed, in order; read and written by ``capture`` alone.
    run
        The run that made it.
    options
        What the user asked for that outlives the run, such as ``{"ttl": 43200.0}``.
    """

    format: int
    name: str
    source: str
    key: Key
    observed: tuple[Observed, ...]
    outputs: tuple[Output, ...]
    effects: Mapping[str, Json]
    displays: tuple[Mapping[str, Json], ...]
    run: Run
    options: Mapping[str, Json] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The variables that the entry gives back: those that it binds (imports aside), then those changed in place."""
        references = cast("Mapping[str, list[Json]]", self.effects.get("names", {}))
        bound = [name for name, reference in references.items() if reference[0] != "module"]
        changed = cast("list[Mapping[str, list[list[str]]]]", self.effects.get("changed", []))
        return tuple(dict.fromkeys([*bound, *(change["path"][0][1] for change in changed)]))


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored run of a cell, as found in the store.

    Attributes
    ----------
    manifest
        What it says of itself.
    path
        Its folder.
    size
        Bytes on disk of all its files, each hard-linked file in full.
    last_used
        Seconds since the epoch, UTC.
    hits
        How often it was restored.
    pinned
        Whether retention must leave it alone.
    trusted
        Whether its signature is this user's (or that of a key that the user trusts).
    """

    manifest: Manifest
    path: Path
    size: int
    last_used: float
    hits: int = 0
    pinned: bool = False
    trusted: bool = False

    @property
    def digest(self) -> str:
        """The folder's name, by which commands address the entry."""
        return self.path.name

    @property
    def expires(self) -> float | None:
        """When the entry's own TTL ends, in seconds since the epoch; None where it has none."""
        ttl = self.manifest.options.get("ttl")
        return self.manifest.run.started + self.manifest.run.seconds + ttl if isinstance(ttl, int | float) else None


@dataclass(frozen=True, slots=True)
class Hit:
    """The cell was restored from `entry` in `seconds`."""

    entry: Entry
    seconds: float
    key: Key
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Miss:
    """The cell ran; `entry` is what was stored, `because` says why there was no hit."""

    entry: Entry
    seconds: float
    key: Key
    because: str
    refreshed: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bypass:
    """The cell ran and nothing was stored; `reason` says why, `remedy` what would change that."""

    reason: str
    seconds: float
    key: Key | None = None
    remedy: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """The cell raised `error` (or was interrupted, or timed out); nothing was stored."""

    error: BaseException
    seconds: float
    key: Key | None = None


Outcome = Hit | Miss | Bypass | Failed


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in the store that is not a good entry: which folder, and what is wrong with it."""

    path: Path
    what: str
    name: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True)
class Catalog:
    """What a scan of the store found; one broken entry does not hide the others.

    `entries` may be some of all the good ones; `total` is how many of those there are.
    """

    entries: Sequence[Entry]
    problems: tuple[Problem, ...] = ()
    total: int = 0

    @property
    def size(self) -> int:
        """Bytes of all entries, each hard-linked file counted in full."""
        return sum(e.size for e in self.entries)


@dataclass(frozen=True, slots=True)
class Retention:
    """What the store may keep.

    Attributes
    ----------
    max_bytes
        The size limit in bytes; None: a share of the disk (see ``store.retention``).
    max_age
        Seconds since the last use after which an entry goes; None: never.
    max_entry_bytes
        The largest entry that is kept, in bytes; None: no limit of its own.
    policy
        ``"value"``: the cheapest to compute again per byte goes first, weighed by the time since
        its last use; ``"lru"``: the longest unused goes first.
    grace
        Seconds for which an eviction can be undone.
    grace_bytes
        Bytes of evicted entries kept for undoing; None: a share of `max_bytes`.
    """

    max_bytes: int | None = None
    max_age: float | None = None
    max_entry_bytes: int | None = None
    policy: Literal["value", "lru"] = "value"
    grace: float = 600.0
    grace_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class EvictionPlan:
    """Entries to evict, with the reason for each; a value to show before it is carried out."""

    evict: tuple[tuple[Entry, str], ...]
    freed: int
    """Bytes that carrying out the plan gives back (files that live on under another entry are not counted)."""

    def __bool__(self) -> bool:
        """Tell whether there is anything to evict."""
        return bool(self.evict)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a page: its name as text, its type as text, and whether numbers align right."""

    name: str
    dtype: str
    numeric: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows and columns of a stored frame, every cell already text (None: missing).

    `first` is the number of the first row shown, `total` the rows of the frame (after the filter),
    `total_columns` the columns of the frame; `numbers` are the rows' own numbers in the unfiltered, unsorted frame.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str | None, ...], ...]
    first: int
    total: int
    total_columns: int
    note: str = ""
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Options:
    """What the ``%%prefect_cache`` line asks for; one value per cell."""

    name: str = ""
    outputs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    ttl: float | None = None
    refresh: bool = False
    retries: int = 0
    retry_delay: float = 0.0
    timeout: float | None = None
    tags: tuple[str, ...] = ()
    pin: bool = False
    explain: bool = False
    storage: str = ""
    artifact: bool = False
    log_prints: bool = False
    submit: bool = False
    quiet: bool = False
    min_seconds: float = 0.0
    """A run that takes no longer is not stored: what ``%prefect_cache auto`` asks for."""
    silenced: bool = False
    """The cell ends with a semicolon: its last value is not shown."""

    def replace(self, **changes: object) -> Options:
        """Return these options with some changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]
