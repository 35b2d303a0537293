"""Statistics of columns, kept beside the entry that they are of: worked out once, gone when it goes.

The file is derived and not signed: it may be lost, and what cannot be read in it is worked out again.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from prefect_cache.model import Digest, Entry, Json, Output
    from prefect_cache.preview import Statistics
    from prefect_cache.store import Store

VERSION = 1
"""Of the file; one of another version is not read."""

LARGEST = 4_000_000
"""Bytes that are read, or written, of a file."""

REMEMBERED = 64
"""Entries whose statistics are held in memory."""

Columns = dict[int, "Statistics"]


class Kept:
    """What is known of the columns of a store's frames, by the digest of the file and the column's number."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: OrderedDict[str, dict[Digest, Columns]] = OrderedDict()

    def of(self, entry: Entry, output: Output) -> Columns:
        """Return what is known of an output's columns."""
        with self._lock:
            return dict(self._of(entry).get(output.digest, {}))

    def add(self, entry: Entry, output: Output, column: int, found: Statistics) -> None:
        """Know one column more."""
        with self._lock:
            self._of(entry).setdefault(output.digest, {})[column] = found

    def keep(self, entry: Entry) -> None:
        """Write what is known of an entry beside it, with what others have written there since."""
        with self._lock:
            known = self._of(entry)
            for digest, columns in _parsed(self._store.statistics(entry)).items():
                known[digest] = columns | known.get(digest, {})
            told = {d: {str(n): dataclasses.asdict(s) for n, s in c.items()} for d, c in known.items()}
        data = json.dumps({"version": VERSION, "files": told}).encode()
        if told and len(data) <= LARGEST:
            self._store.keep_statistics(entry, data)

    def _of(self, entry: Entry) -> dict[Digest, Columns]:
        if entry.digest not in self._known:
            self._known[entry.digest] = _parsed(self._store.statistics(entry))
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(entry.digest)
        return self._known[entry.digest]


def _parsed(data: bytes) -> dict[Digest, Columns]:
    """Return what a file says; nothing where it is not what we wrote."""
    try:
        told = json.loads(data) if 0 < len(data) <= LARGEST else {}
        if not isinstance(told, dict) or told.get("version") != VERSION:
            return {}
        return {
            str(digest): {int(number): _statistics(one) for number, one in columns.items()}
            for digest, columns in told["files"].items()
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _statistics(told: dict[str, Json]) -> Statistics:
    from prefect_cache.preview import Statistics

    found = Statistics(
        missing=_whole(told["missing"]),
        minimum=_text(told["minimum"]),
        maximum=_text(told["maximum"]),
        distinct=None if told["distinct"] is None else _whole(told["distinct"]),
        exact=bool(told["exact"]),
        histogram=tuple(map(_whole, cast("list[Json]", told["histogram"]))),
        labels=tuple(str(_text(label)) for label in cast("list[Json]", told["labels"])),
    )
    if found.labels and len(found.labels) != len(found.histogram):
        raise ValueError(told)
    return found


def _whole(value: Json) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(value)
    return value


def _text(value: Json) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(value)
    return value
