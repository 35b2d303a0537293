"""What Prefect's tasks and flows leave in a result storage folder: listed, explained, evicted.

Prefect writes a file for each persisted result and never deletes one. A *record* is a JSON text with metadata
(serializer, expiration, Prefect's version) and the result in it; where a cache policy has a ``key_storage`` the
metadata is a file in that folder, and the result a file of its own. The serializer "arrow" keeps a
*payload* beside the records, which equal results share.

Nothing here imports Prefect: its records are read as the JSON that they are, and of large ones the beginning.
What is no record is reported and never deleted.

Tasks that run meanwhile lose nothing: a record goes before what it names, so that a task finds either both or a
miss, and what was written in the last :data:`YOUNG` seconds stays, since its record may be on the way.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .errors import Damaged
from .model import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

PAYLOADS = "prefect_cache-payloads"
"""Where the serializer "arrow" keeps its files, beside the records."""

YOUNG = 600.0
"""Seconds after it was written in which nothing is evicted but by its own expiration."""

ENOUGH = 2**20
"""Bytes of a record that are read: the metadata come first, and a pointer is small."""

POINTER = b'{"prefect_cache"'
"""How what the serializer "arrow" writes begins."""

CELL = "prefect_cache-"
"""How the records of notebooks' cells are named: they hold an entry's digest, see ``tasks.published``."""

ARROW = b"ARROW1\x00\x00"
"""How an Arrow file begins."""

_DIGEST = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Result:
    """One persisted result.

    Attributes
    ----------
    key
        The record's path below the folder that was scanned: Prefect's cache key or storage key.
    record
        The file that makes Prefect find it.
    files
        What else belongs to it alone or with others: a result file, a payload's folder.
    serializer
        The name of the serializer that wrote it.
    task
        The task or flow that wrote it, where the record says so (the serializer "arrow" does).
    size
        Bytes of the record and its files, shared ones in full.
    written
        Seconds since the epoch.
    expires
        When Prefect stops using it; None: never.
    version
        The Prefect that wrote it.
    missing
        A file that it names and that is gone; Prefect will run the task again, or fail, depending on the serializer.
    """

    key: str
    record: Path
    files: tuple[Path, ...]
    serializer: str
    size: int
    written: float
    task: str = ""
    expires: float | None = None
    version: str = ""
    missing: Path | None = None

    def state(self, now: float | None = None) -> Literal["current", "expired", "dangling"]:
        """Tell whether Prefect would still use it."""
        if self.missing is not None:
            return "dangling"
        return "expired" if self.expires is not None and self.expires <= (now or time.time()) else "current"

    def frames(self) -> tuple[Path, ...]:
        """Return its Arrow files that are files of their own, which any tool may open."""
        inside = [path for file in self.files if file.is_dir() for path in sorted(file.glob("*.arrow"))]
        whole = [file for file in self.files if file.is_file() and _begins(file, ARROW)]
        return (*inside, *whole)

    def text(self, limit: int) -> str | None:
        """Return the beginning of a result that is JSON; None of any other, which only its serializer can read."""
        if self.serializer != "json":
            return None
        source = next((file for file in self.files if file.is_file()), self.record)
        with source.open("rb") as file:
            read = file.read(ENOUGH)
        text = read.decode(errors="replace")
        if source == self.record:
            with contextlib.suppress(Damaged):
                text = _parsed(read, whole=len(read) < ENOUGH)[1] or text
        return text[:limit]


@dataclass(frozen=True, slots=True)
class ResultPlan:
    """Results to evict, with the reason for each, and leftovers to sweep; a value to show before it is carried out."""

    evict: tuple[tuple[Result, str], ...]
    sweep: tuple[Path, ...]
    freed: int

    def __bool__(self) -> bool:
        """Tell whether there is anything to do."""
        return bool(self.evict or self.sweep)


@dataclass(frozen=True, slots=True)
class Found:
    """What a scan of a folder found; what cannot be read does not hide the rest."""

    folder: Path
    results: tuple[Result, ...]
    problems: tuple[Problem, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all results, each shared file counted once."""
        return sum(map(_size, {file for r in self.results for file in (r.record, *r.files)}))


def default_folder() -> Path:
    """Return where Prefect stores results here unless it is told otherwise."""
    given = os.environ.get("PREFECT_RESULTS_LOCAL_STORAGE_PATH") or os.environ.get("PREFECT_LOCAL_STORAGE_PATH")
    home = os.environ.get("PREFECT_HOME") or "~/.prefect"
    return Path(given or Path(home) / "storage").expanduser()


def scan(folder: Path, *, results: Path | None = None, entries: Path | None = None) -> Found:
    """Read all records of a folder.

    Parameters
    ----------
    folder
        A result storage folder, or the folder that is a cache policy's ``key_storage``.
    results
        Where the results are to which a ``key_storage`` has the keys; by default as the keys say.
    entries
        The store's entries: the record of a notebook's cell names one, and is dangling where that was evicted.
    """
    read: list[Result] = []
    problems: list[Problem] = []
    for path in _record_files(folder):
        try:
            read.append(_result(path, folder, results, entries))
        except FileNotFoundError:
            continue  # evicted meanwhile
        except (Damaged, OSError) as error:
            problems.append(Problem(path, str(error), size=_size(path)))
    owned = {file for result in read for file in result.files}
    return Found(folder, tuple(read), tuple(p for p in problems if p.path not in owned))


def plan(
    found: Found,
    *,
    max_age: float | None = None,
    max_bytes: int | None = None,
    now: float | None = None,
) -> ResultPlan:
    """Choose what goes: what is expired or broken, what is older than `max_age`, then the oldest over `max_bytes`."""
    now = now or time.time()
    reasons = {r: why for r in found.results if (why := _reason(r, max_age, now))}
    if max_bytes is not None:
        left = _Sizes(found.results)
        for result in (*reasons, *sorted(found.results, key=lambda r: r.written)):
            if result in reasons:
                left.drop(result)
            elif left.total > max_bytes and now - result.written > YOUNG:
                reasons[result] = "the oldest, over the size limit"
                left.drop(result)
    sizes = _Sizes(found.results)
    freed = sum(map(sizes.drop, reasons))
    sweep = tuple(_leftovers(found, now))
    return ResultPlan(tuple(reasons.items()), sweep, freed + sum(map(_size, sweep)))


def chosen(found: Found, results: Iterable[Result]) -> ResultPlan:
    """Return a plan to evict just these."""
    sizes = _Sizes(found.results)
    evict = tuple((result, "asked for") for result in results)
    return ResultPlan(evict, (), sum(sizes.drop(result) for result, _ in evict))


def carry_out(planned: ResultPlan, found: Found) -> tuple[Problem, ...]:
    """Evict what was planned; return what could not be deleted."""
    problems: list[Problem] = []
    kept = Counter(file for result in found.results for file in result.files)
    for result, _ in planned.evict:
        # The record first: without it Prefect runs the task; with it and nothing behind it, it may fail.
        if not _delete(result.record, problems):
            continue
        for file in result.files:
            kept[file] -= 1
            if not kept[file] and not _is_young(file, time.time()):
                _delete(file, problems)
    for path in planned.sweep:
        _delete(path, problems)
    return tuple(problems)


def explain(result: Result, now: float | None = None) -> str:
    """Say in one line what a result is and whether Prefect would use it."""
    now = now or time.time()
    what = (
        f"{result.task or 'a task'}'s result by the serializer {result.serializer!r}, Prefect {result.version or '?'}"
    )
    match result.state(now):
        case "dangling":
            return f"{what}; {result.missing} is gone, so that it cannot be read"
        case "expired":
            return f"{what}; expired, so that the task runs again"
    return f"{what}; used again " + ("until it expires" if result.expires else "for ever: it has no expiration")


# Reading. ----------------------------------------------------------------------------------------------------


def _record_files(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != PAYLOADS)
        yield from (Path(place, name) for name in sorted(files) if not name.endswith((".lock", ".gitignore")))


def _result(path: Path, folder: Path, results: Path | None, entries: Path | None) -> Result:
    status = path.stat()
    with path.open("rb") as file:
        text = file.read(ENOUGH)
    metadata, value = _parsed(text, whole=status.st_size <= ENOUGH)
    pointer = _pointer(value)
    files = list(_named(metadata, path, results))
    if "payload" in pointer:
        files.append(_payload(pointer, folder))
    needed = [*files, *([entry] if (entry := _entry(path, value, entries)) else [])]
    missing = next((file for file in needed if not file.exists()), None)
    there = tuple(file for file in files if file.exists())
    expires = metadata.get("expiration")
    return Result(
        key=str(path.relative_to(folder)),
        record=path,
        files=there,
        serializer=str((metadata.get("serializer") or {}).get("type") or "pickle"),
        size=status.st_size + sum(map(_size, there)),
        written=status.st_mtime,
        task=str(pointer.get("task") or ("a notebook's cell" if path.name.startswith(CELL) else "")),
        expires=datetime.fromisoformat(expires).timestamp() if expires else None,
        version=str(metadata.get("prefect_version") or ""),
        missing=missing,
    )


def _parsed(text: bytes, *, whole: bool) -> tuple[dict[str, Any], str]:
    """Return a record's metadata and, if it is small, its value's text."""
    if text.startswith(POINTER):
        # A flow's result has no record: Prefect keeps the metadata in the state alone.
        return {"serializer": {"type": "arrow"}}, text.decode(errors="ignore")
    try:
        if whole:
            record = json.loads(text)
            if isinstance(record, dict) and "metadata" in record:
                return record["metadata"], str(record.get("result") or "")
            if isinstance(record, dict) and {"serializer", "prefect_version"} <= record.keys():
                return record, ""
        elif text.startswith(b'{"metadata":'):
            # errors="ignore": the piece may end within a character
            return json.JSONDecoder().raw_decode(text.decode(errors="ignore"), len('{"metadata":'))[0], ""
    except ValueError:
        pass
    raise Damaged("no record of a Prefect result")


def _pointer(value: str) -> Mapping[str, Any]:
    if not value.startswith(POINTER.decode()):
        return {}
    try:
        return dict(json.loads(value.partition("\n")[0]))
    except ValueError:
        return {}


def _payload(pointer: Mapping[str, Any], folder: Path) -> Path:
    name = str(pointer.get("payload") or "")
    beside = folder / PAYLOADS / name
    return beside if beside.exists() else Path(str(pointer.get("folder") or folder / PAYLOADS)) / name


def _entry(record: Path, value: str, entries: Path | None) -> Path | None:
    """Return the entry's folder that a cell's record names; it is the store's to keep or to evict."""
    if entries is None or not record.name.startswith(CELL):
        return None
    name = value.strip('"')
    return entries / name if re.fullmatch(r"[0-9a-f]{32}(-\d+)?", name) else None


def _named(metadata: Mapping[str, Any], record: Path, results: Path | None) -> Iterator[Path]:
    """Yield the result's own file, where the record holds no more than its metadata."""
    key = metadata.get("storage_key")
    if not isinstance(key, str) or Path(key) == record:
        return
    path = Path(key) if results is None else results / Path(key).name if Path(key).is_absolute() else results / key
    if path.is_absolute() and path.resolve() != record.resolve() and path.name == record.name:
        yield path


# Deciding. ---------------------------------------------------------------------------------------------------


def _reason(result: Result, max_age: float | None, now: float) -> str:
    state = result.state(now)
    if state == "expired":
        return "expired"
    if now - result.written <= YOUNG:
        return ""
    if state == "dangling":
        return f"{result.missing} is gone"
    return "older than the age limit" if max_age is not None and now - result.written > max_age else ""


class _Sizes:
    """Bytes of some results, where shared files count until the last that has them goes."""

    def __init__(self, results: Iterable[Result]) -> None:
        self._owners = Counter(file for r in results for file in (r.record, *r.files))
        self.total = sum(map(_size, self._owners))

    def drop(self, result: Result) -> int:
        """Take a result away; return the bytes that this gives back."""
        freed = 0
        for file in (result.record, *result.files):
            self._owners[file] -= 1
            freed += 0 if self._owners[file] else _size(file)
        self.total -= freed
        return freed


def _leftovers(found: Found, now: float) -> Iterator[Path]:
    """Yield payloads that no record names, and drafts of writers that died."""
    named = {file.resolve() for result in found.results for file in result.files}
    with contextlib.suppress(FileNotFoundError):
        for payload in sorted((found.folder / PAYLOADS).iterdir()):
            ours = _DIGEST.fullmatch(payload.name.removeprefix(".").removesuffix(".damaged"))
            if ours and payload.resolve() not in named and not _is_young(payload, now):
                yield payload


def _is_young(file: Path, now: float) -> bool:
    """Tell whether a task may have written this, or written it again, and its record not yet."""
    try:
        return now - file.stat().st_mtime <= YOUNG
    except FileNotFoundError:
        return False


def _begins(path: Path, magic: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(magic)) == magic
    except OSError:
        return False


def _size(path: Path) -> int:
    try:
        if path.is_dir():
            return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _delete(path: Path, problems: list[Problem]) -> bool:
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    except OSError as error:
        problems.append(Problem(path, f"cannot be deleted: {error.strerror}"))
        return False
    return True
