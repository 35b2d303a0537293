"""What the sub-commands say: tables and lines made of the store's values, for a notebook and a terminal alike."""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import TYPE_CHECKING, Final, cast

from . import explain
from .explain import Lines, Table
from .model import Hit, Miss
from .panel import view
from .units import age_text, moment_text, seconds_text, size_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from .model import Entry, EvictionPlan, Json, Outcome, Output, Problem
    from .store import Eviction, Usage

KEY_DIGITS: Final = 8
"""How much of a digest is shown, and suffices to address an entry in all but the largest stores."""

SHOWN_COLUMNS: Final = 40
ROWS: Final = 50
"""The longest table that a command shows unasked."""


def entries(
    records: Sequence[view.Record], words: Sequence[str], sort: str, notebook: str, now: float | None = None
) -> Table:
    """Return the entries that `words` choose, the largest or newest first."""
    now = time.time() if now is None else now
    query = view.Query(search=" ".join(words), sort=sort, descending=sort not in ("name", "notebook"))
    records = view.Listing.of(records, notebook).select(query, now)
    footer = [f"and {len(records) - ROWS:,} more; words choose, as in `%prefect_cache list orders size>1GB`"]
    caption = f"{_counted(len(records), 'entry', 'entries')}, {size_text(sum(r.size for r in records))}"
    return Table(
        ("Key", "Name", "Outputs", "Rows", "Columns", "Size", "Created", "Used", "Hits", "Saved", "Notebook"),
        tuple(_row(record, now) for record in records[:ROWS]),
        right=(3, 4, 5, 6, 7, 8, 9),
        caption=caption if records else "no entries yet" if not words else "no entry fits",
        footer=tuple(footer if len(records) > ROWS else ()),
    )


def _row(record: view.Record, now: float) -> tuple[str, ...]:
    key = _key(record.address)
    if record.damage:
        return (key, record.name, f"damaged: {record.damage}", "", "", size_text(record.size), "", "", "", "", "")
    marks = " (pinned)" * record.pinned + " (expired)" * (record.expires is not None and record.expires <= now)
    return (
        key,
        record.name + marks,
        record.outputs,
        "" if record.rows is None else f"{record.rows:,}",
        "" if record.columns is None else f"{record.columns:,}",
        size_text(record.size),
        age_text(record.created, now),
        age_text(record.used, now),
        f"{record.hits:,}",
        seconds_text(record.saved) if record.saved else "",
        record.notebook.replace("\\", "/").rpartition("/")[2],
    )


def _key(address: str) -> str:
    """Return the first digits of a folder's name, with the number of its variant."""
    digest, dash, variant = address.partition("-")
    return digest[:KEY_DIGITS] if not dash else f"{digest}-{variant}"


def entry(found: Entry) -> Lines:
    """Return all about one entry, as a person reads it."""
    manifest = found.manifest
    _, facts = view.provenance(found)
    lines = [f"{manifest.name}  {found.digest}", ""]
    lines += _titled("Source", manifest.source.splitlines())
    for block in facts:
        rows = cast("list[list[str]]", block.get("rows", []))
        lines += _titled(str(block.get("title", "")), _aligned(rows))
        lines += [f"{block['text']}: {block['url']}", ""] if block["kind"] == "link" else []
    lines += _titled("Files", [line for output in manifest.outputs for line in _file(found, output)])
    return Lines((*lines, f"`%prefect_cache load {_key(found.digest)}` brings its values here."), headed=True)


def _titled(title: str, lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    return [*([title] if title else []), *(f"  {line}" if title else line for line in lines), ""]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    table = Table(("",) * max(map(len, rows), default=0), tuple(map(tuple, rows)))
    return str(table).splitlines()


def _file(found: Entry, output: Output) -> list[str]:
    path = found.path / output.file
    shape = _shape(output)
    head = f"{output.name or output.kind}: {output.kind}{shape}, {output.codec}, {size_text(output.size)}"
    lines = [head, f"  {path}"]
    columns = output.meta.get("columns")
    if isinstance(columns, list):
        more = ", ..." if len(columns) > SHOWN_COLUMNS else ""
        lines.append("  " + ", ".join(_column(column) for column in columns[:SHOWN_COLUMNS]) + more)
    if path.suffix == ".arrow":
        lines += [f"  {tool}: {_one_line(code)}" for tool, code in view.snippets(path, output).items()]
    return lines


def _shape(output: Output) -> str:
    rows, columns, shape = (output.meta.get(name) for name in ("rows", "columns", "shape"))
    if isinstance(shape, list):
        return " " + " x ".join(f"{n:,}" for n in shape if isinstance(n, int))
    if not isinstance(rows, int):
        return ""
    width = f" x {len(columns):,}" if isinstance(columns, list) else ""
    return f" {rows:,}{width}"


def _column(column: Json) -> str:
    if isinstance(column, dict):
        return f"{column.get('name')} {column.get('dtype', '')}".strip()
    return str(column)


def _one_line(code: str) -> str:
    """Return a snippet of several statements in one line of a listing."""
    lines = [line.strip() for line in code.splitlines() if line.strip()]
    joined = [line if line.endswith(":") else f"{line};" for line in lines]
    return " ".join(joined).rstrip(";")


def loaded(names: Mapping[str, object], found: Entry) -> str:
    """Return what was brought into the notebook."""
    listed = ", ".join(f"{name} ({type(value).__name__})" for name, value in names.items())
    return f"loaded {listed} from {found.manifest.name}" if names else f"{found.manifest.name} keeps no such value"


def evicted(eviction: Eviction, grace: float) -> Lines:
    """Return what was evicted, what that freed, and how to have it back."""
    if not eviction:
        return Lines(("nothing was evicted",))
    lines = [f"evicted {found.manifest.name} ({size_text(found.size)}): {reason}" for found, reason in eviction.entries]
    undo = f"; `%prefect_cache undo` brings it back for {seconds_text(grace)}" if eviction.undoable else ""
    return Lines((*lines, f"freed {size_text(eviction.freed)}{undo}"))


def pruned(eviction: Eviction, grace: float) -> Lines:
    """Return in a line what a save has evicted to make room."""
    names = ", ".join(found.manifest.name for found, _ in eviction.entries[: explain.SHOWN_NAMES])
    more = len(eviction.entries) - explain.SHOWN_NAMES
    told = f"{names} and {more} more" if more > 0 else names
    back = f"; `%prefect_cache undo` brings it back for {seconds_text(grace)}" if eviction.undoable else ""
    return Lines((f"to keep the limit, evicted {told} ({size_text(eviction.freed)}){back}",))


def plan(planned: EvictionPlan, now: float | None = None) -> Table:
    """Return what retention would evict, and what that would free."""
    now = time.time() if now is None else now
    rows = tuple(
        (_key(found.digest), found.manifest.name, size_text(found.size), age_text(found.last_used, now), reason)
        for found, reason in planned.evict
    )
    caption = (
        f"would evict {_counted(len(rows), 'entry', 'entries')} and free {size_text(planned.freed)}"
        if rows
        else "retention has nothing to evict"
    )
    return Table(("Key", "Name", "Size", "Used", "Why"), rows, right=(2, 3), caption=caption)


def problems(found: Sequence[Problem], *, fixed: bool) -> Table:
    """Return what is wrong in the store."""
    rows = tuple((problem.path.name, problem.name, problem.what) for problem in found)
    if not rows:
        return Table(("",), (), caption="every file is what its manifest says")
    caption = f"{_counted(len(rows), 'problem')}{', removed' if fixed else ''}"
    footer = () if fixed else ("`%prefect_cache check --fix` removes what is damaged",)
    return Table(("Folder", "Name", "Problem"), rows, caption=caption, footer=footer)


def where(usage: Usage, source: str, key_file: Path) -> Table:
    """Return where the store is and how full; `source` says who named the folder."""
    share = f" ({100 * usage.size / usage.limit:.0f} %)" if usage.limit else ""
    linked = f"; hard links save {size_text(usage.linked)}" if usage.linked else ""
    return Table(
        ("", ""),
        (
            ("Folder", str(usage.root)),
            ("Named by", source),
            ("Entries", f"{usage.entries:,}, {usage.pinned:,} pinned, {usage.problems:,} damaged"),
            ("Size", f"{size_text(usage.size)} of {size_text(usage.limit)}{share}{linked}"),
            ("Can be undone", size_text(usage.graveyard)),
            ("Free on the disk", size_text(usage.free)),
            ("Signing key", str(key_file)),
        ),
    )


def stats(outcomes: Iterable[Outcome], usage: Usage) -> Table:
    """Return what this session and the whole store have seen: hits, misses by cause, time saved, bytes."""
    seen = list(outcomes)
    counts = Counter(map(explain.status, seen))
    causes = Counter(f"{explain.status(o)}: {explain.reason(o)}" for o in seen if explain.reason(o))
    saved = math.fsum(o.entry.manifest.run.seconds - o.seconds for o in seen if isinstance(o, Hit))
    written = sum(o.entry.size for o in seen if isinstance(o, Miss))
    tried = counts["hit"] + counts["miss"]
    rate = f" ({100 * counts['hit'] / tried:.0f} % of hits and misses)" if tried else ""
    rows = [
        ("Hits", f"{counts['hit']:,}{rate}"),
        *((name, f"{counts[key]:,}") for name, key in _COUNTED if counts[key]),
        *((f"  {cause}", f"{number:,}") for cause, number in causes.most_common(10)),
        ("Time saved", seconds_text(max(0.0, saved))),
        ("Stored", size_text(written)),
        ("All sessions: hits", f"{usage.hits:,}"),
        ("All sessions: time saved", seconds_text(usage.saved)),
        ("Store", f"{_counted(usage.entries, 'entry', 'entries')}, {size_text(usage.size)}"),
    ]
    return Table(("", ""), tuple(rows), right=(1,))


_COUNTED: Final = (("Misses", "miss"), ("Refreshed", "refresh"), ("Bypassed", "bypass"), ("Failed", "failed"))


def verdict(outcome: Outcome) -> list[str]:
    """Return the first lines of a `why`: what became of the cell and for which reason."""
    word = explain.status(outcome)
    cause = explain.reason(outcome)
    remedy = getattr(outcome, "remedy", "")
    first = {
        "hit": "restored: everything that the cell depends on is what it was",
        "miss": f"ran because {cause}",
        "refresh": "ran because it was asked to (--refresh)",
        "bypass": f"ran and was not stored: {cause}",
        "failed": f"raised, and nothing was stored: {cause}",
    }[word]
    return [first, *([f"what helps: {explain.clause(remedy)}"] if remedy else []), *getattr(outcome, "notes", ())]


def moment(then: float) -> str:
    """Return a moment in words."""
    return moment_text(then)


def _counted(number: int, noun: str, plural: str = "") -> str:
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
