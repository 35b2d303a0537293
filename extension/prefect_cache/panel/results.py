"""Prefect's own results in the panel: the same questions as of entries, answered from a result storage folder.

A result is known to the page by ``result:`` and the path of its record. What a record names is read as plain
data only: an Arrow file is shown by rows, a JSON result by its text, and no pickle is ever opened.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, cast

from prefect_cache import results
from prefect_cache.errors import NotFound, UsageProblem
from prefect_cache.panel import view
from prefect_cache.store.brief import Brief
from prefect_cache.units import moment_text, size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from prefect_cache.model import Json
    from prefect_cache.panel.controller import Ask, Message
    from prefect_cache.preview import Preview
    from prefect_cache.store import Store

RESULT = "result:"
FLAG = "results"
OPEN_PREVIEWS = 3
LONGEST_TEXT = 20_000


def concerns(request: Mapping[str, object]) -> bool:
    """Tell whether a request is about results rather than entries."""
    keys, flags = request.get("keys"), request.get("flags")
    named = [request.get("key"), *(keys if isinstance(keys, list) else [])]
    return (isinstance(flags, list) and FLAG in flags) or any(
        isinstance(key, str) and key.startswith(RESULT) for key in named
    )


class Results:
    """The results in one folder, as the panel sees them.

    Parameters
    ----------
    store
        Whose entries the records of notebooks' cells name.
    folder
        Where Prefect stores results; by default where it does here.
    """

    def __init__(self, store: Store, folder: Path | None = None) -> None:
        self.folder = folder or results.default_folder()
        self._entries = store.root / "entries"
        self._lock = threading.RLock()
        self._found: results.Found | None = None
        self._listing = view.Listing.of(())
        self._by_address: dict[str, results.Result] = {}
        self._previews: OrderedDict[str, Preview] = OrderedDict()

    def answer(self, operation: str, ask: Ask) -> Message:
        """Return the reply to a request.

        Raises
        ------
        UsageProblem
            It is nothing that can be done with results.
        """
        if operation not in _OPERATIONS:
            raise UsageProblem("Prefect's results can be looked at and evicted, not changed")
        with self._lock:
            return _OPERATIONS[operation](self, ask)

    def close(self) -> None:
        """Let go of files."""
        with self._lock:
            for preview in self._previews.values():
                preview.close()
            self._previews.clear()

    # The list

    def _scanned(self, *, fresh: bool = False) -> results.Found:
        if self._found is None or fresh:
            self._found = results.scan(self.folder, entries=self._entries)
            self._by_address = {f"{RESULT}{result.key}": result for result in self._found.results}
            records = [_brief(address, result) for address, result in self._by_address.items()]
            self._listing = view.Listing.of(records)
        return self._found

    def _select(self, ask: Ask) -> list[view.Record]:
        asked = ask.query()
        query = view.Query(asked.search, asked.flags - {FLAG}, asked.sort, asked.descending)
        return self._listing.select(query, time.time())

    def rows(self, ask: Ask) -> Message:
        """Return a window of the list, and how much there is."""
        from prefect_cache.panel.controller import home_text

        found, now = self._scanned(fresh=ask.flag("fresh")), time.time()
        chosen = self._select(ask)
        count, first = ask.whole("count", 40, 0, 200), ask.whole("first", 0, 0, max(0, len(chosen) - 1))
        return {
            "rows": [_row(record, now) for record in chosen[first : first + count]],
            "first": first,
            "total": len(chosen),
            "bytes": sum(record.size for record in chosen),
            "time": now,
            "all": len(self._listing.records),
            "usage": f"{size_text(found.size)} of Prefect's results",
            "full": 0.0,
            "where": home_text(str(self.folder)),
        }

    # One result

    def entry(self, ask: Ask) -> Message:
        """Return what a result consists of."""
        address, result = self._result(ask)
        outputs: list[Json] = [
            {"name": f.stem, "kind": "Arrow", "file": f.name, "size": size_text(f.stat().st_size), "frame": True}
            for f in result.frames()
        ]
        if not outputs:
            kind = result.serializer
            outputs = [{"name": "result", "kind": kind, "file": "", "size": size_text(result.size), "frame": False}]
        return {"key": address, "name": _name(result), "pinned": False, "outputs": outputs, "pictures": 0}

    def page(self, ask: Ask) -> Message:
        """Return a page of a stored frame."""
        from prefect_cache.panel.controller import page_of

        return page_of(self._preview(ask), ask)

    def cell(self, ask: Ask) -> Message:
        """Return one value of a frame in full."""
        return {"text": self._preview(ask).cell(ask.whole("row", 0, 0, 2**62), ask.whole("column", 0, 0, 2**31))}

    def schema(self, ask: Ask) -> Message:
        """Return the columns of a frame; of results nobody keeps statistics."""
        preview = self._preview(ask)
        first = ask.whole("first", 0, 0, 2**31)
        numbers = range(len(preview.columns))[first : first + 100]
        columns = [[n, preview.columns[n].name, preview.columns[n].dtype, preview.nulls(n), None] for n in numbers]
        return {
            "columns": cast("Json", columns),
            "rows": preview.total,
            "all": len(preview.columns),
            "first": first,
        }

    def value(self, ask: Ask) -> Message:
        """Return a result that is no frame: its text where it is JSON, else why it stays closed."""
        _, result = self._result(ask)
        text = result.text(LONGEST_TEXT)
        blocks = [view.table("Result", _facts(result))]
        if text is None:
            closed = "written by a serializer whose results are opened by running code: it stays closed"
            return view.document([*blocks, view.table("Value", [("not shown", closed)])])
        return view.document([*blocks, {"kind": "code", "pieces": [["", _indented(text)]]}])

    def figures(self, ask: Ask) -> Message:
        """Return nothing: a task's result has no pictures."""
        del ask
        return view.document([])

    def provenance(self, ask: Ask) -> Message:
        """Return which serializer and task wrote a result, and whether Prefect would use it."""
        _, result = self._result(ask)
        return view.document([view.table("Result", _facts(result))])

    def files(self, ask: Ask) -> Message:
        """Return the files of a result; the record goes first when it is evicted."""
        _, result = self._result(ask)
        rows = [("Record", str(result.record)), *(("File", str(file)) for file in result.files)]
        return view.document([view.table("Files", rows)])

    def check(self, ask: Ask) -> Message:
        """Tell whether all that a result names is there."""
        address, result = self._result(ask)
        return {"checked": address, "good": result.missing is None, "what": results.explain(result)}

    # Evicting

    def plan(self, ask: Ask) -> Message:
        """Return what evicting the chosen results would free; does nothing."""
        planned = self._planned(ask)
        count = f"{len(planned.evict):,} {'result' if len(planned.evict) == 1 else 'results'}"
        told = f"Evict {count}? That frees {size_text(planned.freed)} and cannot be undone."
        return {"count": len(planned.evict), "size": size_text(planned.freed), "text": told}

    def evict(self, ask: Ask) -> Message:
        """Evict the chosen results: their records first, so that running tasks find a result whole or not at all."""
        planned, found = self._planned(ask), self._scanned()
        self.close()
        problems = results.carry_out(planned, found)
        self._scanned(fresh=True)
        if problems:
            raise UsageProblem(f"{problems[0].path.name}: {problems[0].what}")
        done = f"{len(planned.evict):,} {'result' if len(planned.evict) == 1 else 'results'}"
        return {"text": f"Evicted {done} ({size_text(planned.freed)}).", "undo": 0}

    def _planned(self, ask: Ask) -> results.ResultPlan:
        found = self._scanned()
        if ask.flag("every"):
            addresses = [record.address for record in self._select(ask)]
        else:
            addresses = [key for key in ask.texts("keys") if key in self._by_address]
        if not addresses:
            raise UsageProblem("no result is chosen, or those chosen are gone")
        return results.chosen(found, [self._by_address[address] for address in addresses])

    # Finding things

    def _result(self, ask: Ask) -> tuple[str, results.Result]:
        address = ask.text("key")
        self._scanned()
        result = self._by_address.get(address)
        if result is None or not result.record.exists():
            raise NotFound("this result is gone: it was evicted, or its task has written another")
        return address, result

    def _preview(self, ask: Ask) -> Preview:
        from prefect_cache.preview import Preview as Opened

        _, result = self._result(ask)
        name = ask.text("file")
        file = next((file for file in result.frames() if file.name == name), None)
        if file is None:
            raise NotFound("this result has no such file any more")
        place = str(file)
        if place not in self._previews:
            self._previews[place] = Opened(file)
            while len(self._previews) > OPEN_PREVIEWS:
                self._previews.popitem(last=False)[1].close()
        self._previews.move_to_end(place)
        return self._previews[place]


_OPERATIONS: Mapping[str, Callable[[Results, Ask], Message]] = {
    "list": Results.rows,
    "entry": Results.entry,
    "page": Results.page,
    "cell": Results.cell,
    "schema": Results.schema,
    "value": Results.value,
    "figures": Results.figures,
    "provenance": Results.provenance,
    "files": Results.files,
    "check": Results.check,
    "plan": Results.plan,
    "evict": Results.evict,
}


def _name(result: results.Result) -> str:
    return result.task or result.key[:12]


def _brief(address: str, result: results.Result) -> Brief:
    name = _name(result)
    return Brief(
        address=address,
        name=name,
        outputs=result.serializer,
        size=result.size,
        created=result.written,
        used=result.written,
        expires=result.expires,
        damage="" if result.missing is None else f"{result.missing.name} is gone",
        words=f"{name}\n{result.key}\n{result.serializer}".lower(),
    )


def _row(record: view.Record, now: float) -> list[Json]:
    row = view.row(record, now)
    return row if record.damage else [*row[:3], f"{row[3]}r", *row[4:]]


def _facts(result: results.Result) -> list[tuple[str, str]]:
    facts = [
        ("Task", result.task),
        ("Serializer", result.serializer),
        ("Written", moment_text(result.written)),
        ("Expires", "never" if result.expires is None else moment_text(result.expires)),
        ("Prefect", result.version),
        ("Key", result.key),
        ("Now", results.explain(result).partition("; ")[2]),
    ]
    return [(name, value) for name, value in facts if value]


def _indented(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=1)
    except ValueError:  # cut short
        return text
