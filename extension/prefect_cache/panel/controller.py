"""What the panel does: requests in, replies out, both plain JSON; no widget, no browser, any thread.

A request is ``{"id": 7, "op": "page", ...}`` and its reply ``{"id": 7, ...}``, or ``{"id": 7, "error": "a line"}``.
Only the operations in `OPERATIONS` exist. They take addresses, numbers and words of a small filter language:
no path, no SQL and no code ever comes from the page. What takes long (statistics, exports) runs in one
background thread and is pushed when done. JupyterLab sends these messages to a thread of their own, so that
the panel works while a cell runs: whatever is shared stands behind a lock.
"""

from __future__ import annotations

import base64
import builtins
import dataclasses
import keyword
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from prefect_cache.errors import CacheError, Damaged, NotFound, UsageProblem
from prefect_cache.panel import view
from prefect_cache.panel.jobs import Jobs
from prefect_cache.panel.kept import Kept
from prefect_cache.panel.results import Results, concerns
from prefect_cache.panel.watch import State, state_of
from prefect_cache.store.brief import is_array
from prefect_cache.units import size_text

if TYPE_CHECKING:
    from prefect_cache.model import Entry, Json, Output
    from prefect_cache.preview import Preview, Statistics
    from prefect_cache.store import Store, Usage

Message = dict[str, "Json"]
Push = Callable[[Message], None]

WINDOW_ROWS = 200
PAGE_ROWS = 200
PAGE_COLUMNS = 60
OPEN_PREVIEWS = 3
LARGEST_PICTURES = 8_000_000
LARGEST_SHOWN = 50_000_000
"""Bytes of a pickle that is opened to show what is in it."""

MOST_SHOWN = 20
LONGEST_TEXT = 10_000
PATIENCE = 2.0
"""Seconds for which a reply waits for the text of a value."""

log = logging.getLogger(__name__)

_read: dict[tuple[Path, str], tuple[State, view.Listing, Usage]] = {}


@dataclass(frozen=True)
class Host:
    """What the panel is about and where it may put things.

    Attributes
    ----------
    store
        The store that it shows.
    load
        Returns the value of one output of an entry, by the output's name.
    namespace
        Where *Load* puts it.
    notebook
        This notebook's name, for the filter "this notebook".
    text
        Returns what this notebook would show of a value as text, of at most some number of characters.
    """

    store: Store
    load: Callable[[Entry, str], object]
    namespace: MutableMapping[str, object]
    notebook: str = ""
    text: Callable[[object, int], str] = lambda value, limit: repr(value)[:limit]


class Ask:
    """A request, of which nothing is believed."""

    def __init__(self, request: Mapping[str, object]) -> None:
        self._request = request

    def text(self, name: str, default: str = "") -> str:
        """Return a text."""
        value = self._request.get(name, default)
        if not isinstance(value, str) or len(value) > 10_000:  # noqa: PLR2004 - no honest request is so long
            msg = f"{name} must be a text"
            raise UsageProblem(msg)
        return value

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        """Return an integer, moved into its bounds."""
        value = self._request.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool):
            msg = f"{name} must be a whole number"
            raise UsageProblem(msg)
        return min(max(value, low), high)

    def flag(self, name: str) -> bool:
        """Return whether a switch is on."""
        return self._request.get(name) is True

    def texts(self, name: str) -> list[str]:
        """Return a list of texts."""
        value = self._request.get(name, [])
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            msg = f"{name} must be a list of texts"
            raise UsageProblem(msg)
        return value

    def query(self) -> view.Query:
        """Return which entries are meant, in which order."""
        return view.Query(
            search=self.text("search"),
            flags=frozenset(self.texts("flags")),
            sort=self.text("sort", "used"),
            descending=self.flag("descending"),
        )


class Controller:
    """The panel's behaviour over one store.

    Parameters
    ----------
    host
        The store and the notebook.
    push
        Called with what was not asked for just now: finished statistics and exports. May be called from another thread.
    folder
        Where exports are written; the working folder unless given.
    """

    def __init__(self, host: Host, push: Push = lambda _: None, folder: Path | None = None) -> None:
        self.host = host
        self.push = push
        self.folder = folder
        self._lock = threading.RLock()
        self._listing: view.Listing | None = None
        self._usage: Usage | None = None
        self._previews: OrderedDict[tuple[str, str], Preview] = OrderedDict()
        self._statistics = Kept(host.store)
        self._jobs = Jobs()
        self._results = Results(host.store)

    def handle(self, request: Mapping[str, object]) -> Message:
        """Return the reply to a request; whatever goes wrong is a line in it."""
        number = request.get("id")
        reply: Message = {"id": number if isinstance(number, int | str) else None}
        try:
            reply |= self._answer(request)
        except CacheError as error:
            reply["error"] = " ".join(filter(None, (error.message, error.remedy)))
        except OSError as error:
            reply["error"] = f"the store cannot be used: {error.strerror or error}"
        except Exception as error:
            # A fault of ours: told in the panel, with the traceback in the log, and the panel lives on.
            log.debug("the panel failed at %r", request.get("op"), exc_info=True)
            reply["error"] = f"the panel failed: {type(error).__name__}: {str(error)[:300]}"
        return reply

    def _answer(self, request: Mapping[str, object]) -> Message:
        operation = _operation(request)
        if concerns(request):
            return self._results.answer(str(request["op"]), Ask(request))
        return operation(self, Ask(request))

    def close(self) -> None:
        """Let go of files and end the background work; the controller can be used again."""
        self._jobs.stop()
        self._results.close()
        with self._lock:
            for preview in self._previews.values():
                preview.close()
            self._previews.clear()

    # The list ------------------------------------------------------------------------------------------------------

    def listing(self, *, fresh: bool = False) -> view.Listing:
        """Return the records of the store; read again when asked to.

        Panels of one store share what was read: a store in whose folders nothing has moved since has nothing
        new to say.
        """
        with self._lock:
            if self._listing is None or fresh:
                place = (self.host.store.root, self.host.notebook)
                state = state_of(self.host.store.root)
                known = _read.get(place)
                if fresh or known is None or known[0] != state:
                    records = self.host.store.briefs()
                    known = (state, view.Listing.of(records, self.host.notebook), self.host.store.usage())
                    _read[place] = known
                _, self._listing, self._usage = known
            return self._listing

    def usage(self) -> Usage:
        """Return how full the store is, as of the last reading."""
        self.listing()
        return self._usage or self.host.store.usage()

    def rows(self, ask: Ask) -> Message:
        """Return a window of the sorted and filtered list, and how full the store is."""
        listing = self.listing(fresh=ask.flag("fresh"))
        now = time.time()
        found = listing.select(ask.query(), now)
        count = ask.whole("count", 40, 0, WINDOW_ROWS)
        first = ask.whole("first", 0, 0, max(0, len(found) - 1))
        return {
            "rows": [view.row(r, now) for r in found[first : first + count]],
            "first": first,
            "total": len(found),
            "time": now,
            "all": len(listing.records),
            **self._fullness(),
        }

    def _fullness(self) -> Message:
        usage = self.usage()
        return {
            "usage": view.usage_text(usage.size, usage.limit),
            "full": usage.size / usage.limit if usage.limit else 0.0,
            "where": home_text(str(self.host.store.root)),
        }

    # One entry -----------------------------------------------------------------------------------------------------

    def entry(self, ask: Ask) -> Message:
        """Return what an entry consists of."""
        entry = self._entry(ask)
        return {
            "key": entry.digest,
            "name": entry.manifest.name,
            "pinned": entry.pinned,
            "outputs": [self._output(o) for o in view.in_order(entry.manifest.outputs)],
            "pictures": len(_pictures(entry)),
        }

    def _output(self, output: Output) -> Message:
        return {
            "name": output.name,
            "kind": output.kind,
            "file": output.file,
            "size": size_text(output.size),
            "frame": "rows" in output.meta and not is_array(output),
        }

    def page(self, ask: Ask) -> Message:
        """Return a page of a stored frame."""
        return page_of(self._preview(ask), ask)

    def cell(self, ask: Ask) -> Message:
        """Return one value of a frame in full."""
        return {"text": self._preview(ask).cell(ask.whole("row", 0, 0, 2**62), ask.whole("column", 0, 0, 2**31))}

    def value(self, ask: Ask) -> Message:
        """Return what can be said of a value that is no frame: its text, or its shape and corner."""
        entry, output = self._entry_and_output(ask)
        corner = self._corner(entry, output) if is_array(output) else []
        shown, note = self._shown(entry, output) if output.codec == "pickle" else ({}, "")
        return view.document(view.value(output, corner, shown, note))

    def _shown(self, entry: Entry, output: Output) -> tuple[dict[str, str], str]:
        """Return what the notebook would show of the values in a pickle, by variable; or why that is not known."""
        told = output.meta.get("summaries")
        names = [name for name in (told if isinstance(told, dict) else ()) if name in entry.manifest.names]
        if not entry.trusted:
            return {}, "not signed by a key held here: the pickle stays closed"
        if output.size > LARGEST_SHOWN:
            return {}, f"not shown of pickles over {size_text(LARGEST_SHOWN)}: Load puts it into a variable"
        found: dict[str, str] = {}

        def look() -> None:
            for name in names[:MOST_SHOWN]:
                try:
                    found[name] = self.host.text(self.host.load(entry, name), LONGEST_TEXT)
                except Exception as error:  # noqa: BLE001 - of the value's own class, or it lives in another notebook
                    found[name] = f"cannot be shown here: {type(error).__name__}: {str(error)[:300]}"

        # A thread of its own, since nothing can end a `__repr__` that takes for ever: it is left behind.
        thread = threading.Thread(target=look, name="prefect-cache-text", daemon=True)
        thread.start()
        thread.join(PATIENCE)
        slow = "takes long to open or to show: Load puts it into a variable" if thread.is_alive() else ""
        return dict(found), slow

    def _corner(self, entry: Entry, output: Output) -> list[list[str]]:
        """Return the first rows and columns of an array, which is mapped and not read."""
        from prefect_cache import codecs
        from prefect_cache.preview import corner  # NumPy comes with it

        array = codecs.codec(output.codec).read(entry.path / output.file, output.meta, trusted=False)
        return corner.corner(array)

    def figures(self, ask: Ask) -> Message:
        """Return the pictures that the cell showed."""
        return view.document(
            [{"kind": "picture", "url": p, "text": "What the cell showed"} for p in _pictures(self._entry(ask))]
        )

    def schema(self, ask: Ask) -> Message:
        """Return all columns with the statistics known so far; those that are not are worked out in the background."""
        entry, output = self._entry_and_output(ask)
        preview = self._preview(ask)
        first = ask.whole("first", 0, 0, 2**31)
        numbers = range(len(preview.columns))[first : first + 100]
        found = self._statistics.of(entry, output)
        known = [found.get(n) for n in numbers]
        if ask.flag("statistics"):
            missing = [n for n, s in zip(numbers, known, strict=True) if s is None]
            self._jobs.put(lambda stop: self._describe(entry.digest, output, missing, stop), instead_of="statistics")
        columns = [
            [n, preview.columns[n].name, preview.columns[n].dtype, preview.nulls(n), _statistics(told)]
            for n, told in zip(numbers, known, strict=True)
        ]
        return {
            "columns": cast("Json", columns),
            "rows": preview.total,
            "all": len(preview.columns),
            "first": first,
        }

    def _describe(self, key: str, output: Output, columns: Sequence[int], stop: Callable[[], bool]) -> None:
        entry = self.host.store.get(key)
        preview = self._open(entry, output)
        try:
            for number in columns:
                found = preview.statistics(number, stop)
                if found is None:
                    return
                self._statistics.add(entry, output, number, found)
                told = _statistics(found)
                self.push({"push": "statistics", "key": key, "file": output.file, "column": number, "statistics": told})
        finally:
            self._statistics.keep(entry)

    def provenance(self, ask: Ask) -> Message:
        """Return where an entry comes from."""
        return view.document(*view.provenance(self._entry(ask)))

    def files(self, ask: Ask) -> Message:
        """Return an entry's files, with code that opens each."""
        entry = self._entry(ask)
        return view.document(view.files(entry, home_text(str(entry.path))))

    def check(self, ask: Ask) -> Message:
        """Read an entry's files in full and compare them with their digests."""
        entry = self._entry(ask)
        try:
            self.host.store.check_files(entry, full=True)
        except Damaged as error:
            return {"checked": entry.digest, "good": False, "what": error.message}
        return {"checked": entry.digest, "good": True, "what": "every byte is as it was written"}

    # What is done to entries ---------------------------------------------------------------------------------------

    def plan(self, ask: Ask) -> Message:
        """Return what evicting the chosen entries would free; does nothing."""
        records = self._targets(ask)
        size, freed = sum(r.size for r in records), self.host.store.freed_by(r.address for r in records)
        names = ", ".join(r.name for r in records[:3]) + (" and others" if len(records) > 3 else "")  # noqa: PLR2004
        pinned = sum(r.pinned for r in records)
        told = [f"Evict {names}? That is {view.counted(records, 'entry')} and frees {size_text(freed)}."]
        if freed < size:
            told.append(f"{size_text(size - freed)} more is shared with entries that stay, or between these.")
        if pinned:
            told.append(f"{pinned:,} pinned.")
        return {"count": len(records), "size": size_text(freed), "text": " ".join(told)}

    def evict(self, ask: Ask) -> Message:
        """Evict the chosen entries; they can be brought back for a while."""
        records = self._targets(ask)
        self._forget(r.address for r in records)
        done = self.host.store.evict(self.host.store.short(r.address for r in records))
        self.listing(fresh=True)
        return {
            "text": f"Evicted {_named(records)} ({size_text(done.freed)}).",
            "undo": self.host.store.retention.grace,
        }

    def undo(self, ask: Ask) -> Message:
        """Bring back what was evicted last."""
        del ask
        entries = self.host.store.undo()
        self.listing(fresh=True)
        return {
            "text": f"Brought back {view.counted(entries, 'entry')}." if entries else "There is nothing to bring back."
        }

    def pin(self, ask: Ask) -> Message:
        """Keep the chosen entries whatever retention says, or leave them to it again."""
        records = [r for r in self._targets(ask) if not r.damage]
        act = self.host.store.pin if ask.flag("on") else self.host.store.unpin
        for entry in self.host.store.short(r.address for r in records):
            act(entry)
        self.listing(fresh=True)
        return {"text": f"{'Pinned' if ask.flag('on') else 'Unpinned'} {_named(records)}."}

    def load(self, ask: Ask) -> Message:
        """Put an output into a variable of the notebook; one that exists is replaced only when that was asked for."""
        entry, output = self._entry_and_output(ask)
        name = ask.text("variable").strip()
        if not name.isidentifier() or keyword.iskeyword(name):
            msg = f"{name!r} cannot be the name of a variable"
            raise UsageProblem(msg)
        taken = name in self.host.namespace or hasattr(builtins, name)
        if taken and not ask.flag("overwrite"):
            what = type(self.host.namespace[name]).__name__ if name in self.host.namespace else "name of Python's own"
            return {"exists": name, "what": what}
        self.host.namespace[name] = self.host.load(entry, output.name)
        return {"text": f"Loaded {output.name} into {name}."}

    def export(self, ask: Ask) -> Message:
        """Write a stored frame as Parquet or CSV into the working folder, in the background."""
        from prefect_cache.preview import export

        entry, output = self._entry_and_output(ask)
        kind = ask.text("format")
        if kind not in export.WRITERS:
            msg = f"{kind!r} is no format to export to"
            raise UsageProblem(msg)
        preview = self._open(entry, output)
        folder = self.folder or Path.cwd()

        def work(stop: Callable[[], bool]) -> None:
            self._exported(lambda: export.export(preview, folder, output.name, kind, stop))

        self._jobs.put(work)
        return {"text": f"Exporting {output.name}…"}

    def _exported(self, act: Callable[[], Path | None]) -> None:
        try:
            path = act()
        except (CacheError, OSError) as error:
            self.push({"push": "line", "error": f"The export failed: {error}"})
            return
        if path is not None:
            text = f"Exported {path.name} ({size_text(path.stat().st_size)}) to {home_text(str(path.parent))}."
            self.push({"push": "line", "text": text})

    # Finding things ------------------------------------------------------------------------------------------------

    def _entry(self, ask: Ask) -> Entry:
        address = ask.text("key")
        record = self.listing().place.get(address)
        if record is not None and record.damage:
            msg = f"{record.name} is damaged: {record.damage}"
            raise Damaged(msg)
        try:
            return self.host.store.get(address)
        except NotFound:
            self._forget([address])
            msg = f"{record.name if record else 'the entry'} is no longer in the store"
            raise NotFound(msg) from None

    def _entry_and_output(self, ask: Ask) -> tuple[Entry, Output]:
        entry, file = self._entry(ask), ask.text("file")
        for output in entry.manifest.outputs:
            if output.file == file:
                return entry, output
        msg = f"{entry.manifest.name} has no such output any more"
        raise NotFound(msg)

    def _preview(self, ask: Ask) -> Preview:
        return self._open(*self._entry_and_output(ask))

    def _open(self, entry: Entry, output: Output) -> Preview:
        from prefect_cache.preview import Preview as Opened

        with self._lock:
            place = (entry.digest, output.digest)
            if place not in self._previews:
                self._previews[place] = Opened.of(entry, output)
                while len(self._previews) > OPEN_PREVIEWS:
                    self._previews.popitem(last=False)
            self._previews.move_to_end(place)
            return self._previews[place]

    def _forget(self, addresses: Iterable[str]) -> None:
        gone = set(addresses)
        with self._lock:
            for place in [p for p in self._previews if p[0] in gone]:
                del self._previews[place]

    def _targets(self, ask: Ask) -> list[view.Record]:
        """Return the entries that an action is for: those named, or all that a query finds."""
        listing = self.listing()
        if ask.flag("every"):
            return listing.select(ask.query(), time.time())
        found = [listing.place[key] for key in ask.texts("keys") if key in listing.place]
        if not found:
            msg = "no entry is chosen, or those chosen are gone"
            raise UsageProblem(msg)
        return found


def _operation(request: Mapping[str, object]) -> Callable[[Controller, Ask], Message]:
    name = str(request.get("op"))
    if name not in OPERATIONS:
        msg = f"the panel has no operation {name[:40]!r}"
        raise UsageProblem(msg)
    return OPERATIONS[name]


OPERATIONS: Mapping[str, Callable[[Controller, Ask], Message]] = {
    "list": Controller.rows,
    "entry": Controller.entry,
    "page": Controller.page,
    "cell": Controller.cell,
    "value": Controller.value,
    "figures": Controller.figures,
    "schema": Controller.schema,
    "provenance": Controller.provenance,
    "files": Controller.files,
    "check": Controller.check,
    "plan": Controller.plan,
    "evict": Controller.evict,
    "undo": Controller.undo,
    "pin": Controller.pin,
    "load": Controller.load,
    "export": Controller.export,
}
"""All that a page can ask for."""


_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml")


def _pictures(entry: Entry) -> list[str]:
    """Return what the cell showed that is a picture, as addresses for an image: there, an SVG runs no script."""
    found: list[str] = []
    room = LARGEST_PICTURES
    for display in entry.manifest.displays:
        data = display.get("data")
        shown = ((k, data[k]) for k in _PICTURES if k in data) if isinstance(data, dict) else iter(())
        kind, picture = next(shown, ("", None))
        if isinstance(picture, str) and len(picture) <= room:
            found.append(f"data:{kind};base64,{_base64(kind, picture)}")
            room -= len(picture)
    return found


def _base64(kind: str, data: str) -> str:
    return base64.b64encode(data.encode()).decode() if kind == "image/svg+xml" else "".join(data.split())


def _statistics(found: Statistics | None) -> Json:
    return None if found is None else cast("Message", dataclasses.asdict(found))


def _named(records: Sequence[view.Record]) -> str:
    return records[0].name if len(records) == 1 else view.counted(records, "entry")


def page_of(preview: Preview, ask: Ask) -> Message:
    """Return a page of a frame as the front end takes it."""
    found = preview.page(
        ask.whole("first", 0, 0, 2**62),
        ask.whole("count", 50, 1, PAGE_ROWS),
        columns=(ask.whole("column", 0, 0, 2**31), ask.whole("columns", 12, 1, PAGE_COLUMNS)),
        filter=ask.text("filter"),
        sort=ask.text("sort"),
        descending=ask.flag("descending"),
    )
    return {
        "columns": [[c.name, c.dtype, c.numeric] for c in found.columns],
        "rows": [list(r) for r in found.rows],
        "numbers": list(found.numbers),
        "first": found.first,
        "total": found.total,
        "all": found.total_columns,
        "note": found.note,
    }


def home_text(path: str) -> str:
    """Return a path as people write it, with the home folder as a tilde."""
    home = str(Path.home())
    return "~" + path[len(home) :] if path == home or path.startswith(home + "/") else path
