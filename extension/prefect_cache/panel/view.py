"""What the panel shows, as plain values: rows of the list, the details of an entry, the static table.

No browser, no kernel and no widget is needed here; the same rows feed the rich panel, the basic one and
the table that stays in a notebook when nobody can click.
"""

from __future__ import annotations

import html
import io
import keyword
import re
import tokenize
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, cast

from prefect_cache.errors import UsageProblem
from prefect_cache.store.brief import Brief
from prefect_cache.units import age_text, moment_text, parse_size, parse_span, seconds_text, size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from prefect_cache.model import Entry, Json, Output, Part

FLAGS = ("pinned", "stale", "damaged", "notebook")
"""The filters that are buttons."""

SORTS = ("name", "rows", "columns", "size", "created", "used", "hits", "saved", "notebook")
"""What the list can be sorted by."""

STATIC_ROWS = 12
LONGEST_NAME = 80
LONGEST_SOURCE = 20_000
LONGEST_TABLE = 200


Record = Brief
"""One line of the list."""


@dataclass(frozen=True, slots=True)
class Query:
    """Which records to show, in which order."""

    search: str = ""
    flags: frozenset[str] = frozenset()
    sort: str = "used"
    descending: bool = True


@dataclass(frozen=True, slots=True)
class Listing:
    """A catalog, made ready to be searched and sorted again and again."""

    records: Sequence[Record]
    notebook: str = ""
    place: dict[str, Record] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Sequence[Record], notebook: str = "") -> Listing:
        """Return a listing of what a store, or anything else, holds in brief."""
        return cls(records, notebook, {r.address: r for r in records})

    def select(self, query: Query, now: float) -> list[Record]:
        """Return the records that a query asks for; UsageProblem says what it cannot read."""
        tests = [*_searches(query.search, now), *(_flag(f, self.notebook, now) for f in sorted(query.flags))]
        found = [r for r in self.records if all(test(r) for test in tests)]
        return _sorted(found, query.sort, descending=query.descending)


def in_order(outputs: Sequence[Output]) -> list[Output]:
    """Return outputs as people want to see them: the largest frame first, what is no frame last, mere parts not."""
    return sorted((o for o in outputs if not o.is_part), key=lambda o: ("rows" not in o.meta, -o.size))


def _searches(search: str, now: float) -> list[Callable[[Record], bool]]:
    """Return a test for each word of a search: ``size>1GB``, ``unused>7d``, else a part of any name."""
    return [_search(word, now) for word in re.sub(r"\s*([<>])\s*", r"\1", search).split()]


def _search(word: str, now: float) -> Callable[[Record], bool]:
    match = re.fullmatch(r"(size|unused|rows|hits)([<>])(.*)", word.lower())
    if match is None:
        text = word.lower()
        return lambda r: text in r.words
    what, sign, value = match.groups()
    limit = _limit(what, value)
    measure: Callable[[Record], float] = {
        "size": lambda r: r.size,
        "unused": lambda r: now - max(r.used, r.created),
        "rows": lambda r: r.rows or 0,
        "hits": lambda r: r.hits,
    }[what]
    return (lambda r: measure(r) > limit) if sign == ">" else (lambda r: measure(r) < limit)


def _limit(what: str, value: str) -> float:
    if what == "size":
        return parse_size(value)
    if what == "unused":
        return parse_span(value)
    try:
        return float(value.replace(",", "").replace("_", ""))
    except ValueError:
        msg = f"{value!r} is no number; write {what}>1000"
        raise UsageProblem(msg) from None


def _flag(flag: str, notebook: str, now: float) -> Callable[[Record], bool]:
    tests: dict[str, Callable[[Record], bool]] = {
        "pinned": lambda r: r.pinned,
        "stale": lambda r: r.expires is not None and r.expires <= now,
        "damaged": lambda r: bool(r.damage),
        "notebook": lambda r: bool(notebook) and r.notebook == notebook,
    }
    if flag not in tests:
        msg = f"{flag!r} is no filter"
        raise UsageProblem(msg)
    return tests[flag]


def _sorted(records: list[Record], sort: str, *, descending: bool) -> list[Record]:
    """Sort by a column, then by name; what has no value stands last in either direction."""
    if sort not in SORTS:
        msg = f"the list cannot be sorted by {sort!r}"
        raise UsageProblem(msg)
    records.sort(key=attrgetter("words"))  # which begin with the name
    if sort in {"name", "notebook"}:
        records.sort(key=lambda r: getattr(r, sort).lower(), reverse=descending)
        return records
    value = attrgetter(sort)
    there = [r for r in records if value(r) is not None]
    there.sort(key=value, reverse=descending)
    return there if len(there) == len(records) else there + [r for r in records if value(r) is None]


def row(record: Record, now: float) -> list[Json]:
    """Return a record as the front end takes it: few bytes, every cell already text."""
    marks = "p" * record.pinned + "x" * (record.expires is not None and record.expires <= now)
    if record.damage:
        size = size_text(record.size) if record.size else ""
        return [record.address, _short(record.name), _short(record.damage, 160), "!", record.size, size, *[""] * 7]
    return [
        record.address,
        _short(record.name),
        _short(record.outputs) if record.outputs != record.name else "",
        marks,
        record.size,
        size_text(record.size),
        "" if record.rows is None else f"{record.rows:,}",
        "" if record.columns is None else f"{record.columns:,}",
        age_text(record.created, now),
        age_text(record.used, now),
        f"{record.hits:,}",
        seconds_text(record.saved) if record.saved else "",
        _short(_notebook(record.notebook)),
    ]


def _notebook(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def _short(text: str, limit: int = LONGEST_NAME) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def usage_text(size: int, limit: int | None) -> str:
    """Return how full the store is in words."""
    return f"{size_text(size)} of {size_text(limit)} ({100 * size / limit:.0f} %)" if limit else size_text(size)


# The cell's source, coloured ---------------------------------------------------------------------------------------

_KINDS = {tokenize.STRING: "s", tokenize.NUMBER: "n", tokenize.COMMENT: "c", tokenize.OP: "o"}


def coloured(source: str) -> list[tuple[str, str]]:
    """Return source code cut in pieces, each with its kind: k, s, n, c, o, m, or nothing.

    The pieces put together are the source. Where Python's own tokenizer gives up (magics, a cell cut
    short), the rest is one plain piece.
    """
    source = source if len(source) <= LONGEST_SOURCE else source[:LONGEST_SOURCE] + "\n…"
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    pieces: list[tuple[str, str]] = []
    done = 0
    for kind, start, end in _marks(source, lines):
        first, last = starts[start[0] - 1] + start[1], starts[end[0] - 1] + end[1]
        if first < done or last <= first:
            continue
        if first > done:
            pieces.append(("", source[done:first]))
        pieces.append((kind, source[first:last]))
        done = last
    return [*pieces, ("", source[done:])] if done < len(source) else pieces


Mark = tuple[str, tuple[int, int], tuple[int, int]]


def _marks(source: str, lines: Sequence[str]) -> list[Mark]:
    found: list[Mark] = []
    plain = "".join(_without_magic(line) for line in lines)
    found += [("m", (n, 0), (n, len(line.rstrip()))) for n, line in enumerate(lines, 1) if _is_magic(line)]
    try:
        for token in tokenize.generate_tokens(io.StringIO(plain).readline):
            kind = "k" if token.type == tokenize.NAME and keyword.iskeyword(token.string) else _kind(token.type)
            if kind:
                found.append((kind, token.start, token.end))
    except (tokenize.TokenError, SyntaxError):
        pass  # half a string or bracket: what was read so far keeps its colours, the rest is shown plain
    del source
    return sorted(found, key=lambda mark: mark[1])


def _kind(token: int) -> str:
    # f-strings are three tokens and more from Python 3.12 on
    return _KINDS.get(token) or ("s" if tokenize.tok_name[token].startswith("FSTRING") else "")


def _is_magic(line: str) -> bool:
    return line.lstrip()[:1] in {"%", "!"}


def _without_magic(line: str) -> str:
    """Return blanks for a line that is not Python, so that the others keep their places."""
    return " " * (len(line) - 1) + "\n" if _is_magic(line) and line.endswith("\n") else "" if _is_magic(line) else line


# An entry's details ------------------------------------------------------------------------------------------------


Block = dict[str, "Json"]
"""A piece of a document: a table, code, a link, a picture, snippets, or plain text."""


def document(*columns: list[Block]) -> dict[str, Json]:
    """Return blocks that stand one below another, in columns side by side; empty tables are left out."""
    kept = [[cast("Json", b) for b in blocks if b.get("rows", True)] for blocks in columns]
    return {"columns": cast("Json", kept)}


def table(title: str, rows: Iterable[Sequence[str]]) -> Block:
    """Return a table whose first column names what stands in the others."""
    return {"kind": "plain", "title": title, "rows": [list(r) for r in list(rows)[:LONGEST_TABLE]]}


def provenance(entry: Entry) -> tuple[list[Block], list[Block]]:
    """Return where an entry comes from: its source; then its run, what went in and what it looked at."""
    manifest = entry.manifest
    parts = manifest.key.parts
    prefect = {str(k): str(v) for k, v in manifest.run.prefect.items() if v not in (None, "", [], {})}
    url = prefect.pop("url", "")
    link: list[Block] = [{"kind": "link", "url": url, "text": "Open the run in Prefect"}] if url else []
    return [{"kind": "code", "pieces": [list(piece) for piece in coloured(manifest.source)]}], [
        table("Run", _facts(entry)),
        *link,
        table("Inputs", ((p.name, _described(p.detail), p.digest[:12]) for p in parts if p.kind == "input")),
        table("Looked at while it ran", ((o.name, o.kind, o.digest[:12]) for o in manifest.observed)),
        table("Prefect", prefect.items()),
        table("Also depends on", ((p.kind, p.name, _fact_of(p)) for p in parts if p.kind not in UNTOLD)),
    ]


def value(output: Output, corner: list[list[str]], shown: Mapping[str, str], note: str = "") -> list[Block]:
    """Return what is known of a value that is no frame; `shown` is what a notebook would show, by variable."""
    facts = [(k, _fact(v)) for k, v in output.meta.items() if k in {"shape", "dtype", "type", "length"}]
    told = output.meta.get("summaries")
    texts: dict[str, str] = {str(k): str(v) for k, v in told.items()} | {**shown} if isinstance(told, dict) else {}
    text = output.meta.get("repr") or "\n".join(_named_text(name, text, texts) for name, text in texts.items())
    blocks: list[Block] = [
        table("Value", [("type", output.kind), *facts, *([("text", note)] if note else [])]),
        {"kind": "grid", "title": "First rows and columns", "rows": cast("Json", corner)},
    ]
    return [*blocks, {"kind": "code", "pieces": [["", str(text)]]}] if text else blocks


def _named_text(name: str, text: str, texts: Mapping[str, str]) -> str:
    """Return a value's text as it stands alone, or after its name where there are several."""
    if len(texts) == 1:
        return text
    return f"{name} =\n{text}" if "\n" in text else f"{name} = {text}"


def _fact(value: Json) -> str:
    return " x ".join(map(str, value)) if isinstance(value, list) else str(value)


def files(entry: Entry, folder: str) -> list[Block]:
    """Return an entry's files, each with code that opens it without this package."""
    blocks: list[Block] = [{"kind": "check", "text": folder}]
    for output in entry.manifest.outputs:
        path = entry.path / output.file
        arrow = path.suffix == ".arrow"
        facts = (
            ("File", output.file),
            ("Size", f"{size_text(output.size)} ({output.size:,} bytes)"),
            ("Format", "Arrow IPC" if arrow else output.codec),
            ("Digest", f"{output.digest} (xxh3 tree)"),
        )
        blocks.append(table(output.name, facts))
        if arrow:
            blocks.append({"kind": "snippets", "codes": cast("Json", snippets(path, output))})
    return blocks


def _facts(entry: Entry) -> list[tuple[str, str]]:
    run = entry.manifest.run
    restored = f"{entry.hits:,} times, {seconds_text(entry.hits * run.seconds)} saved" if entry.hits else "not yet"
    facts = [
        ("Ran", f"{moment_text(run.started)}, for {seconds_text(run.seconds)}"),
        ("Where", " on ".join(filter(None, (run.notebook, run.host))) or "unknown"),
        ("By", run.user),
        ("Missed because", str(entry.manifest.options.get("because") or "")),
        ("Restored", restored),
        ("Expires", moment_text(entry.expires) if entry.expires is not None else ""),
        ("With", ", ".join(f"{name} {version}" for name, version in run.versions.items())),
        ("Signed", "by you" if entry.trusted else "no: pickled outputs are not opened"),
    ]
    return [(name, value) for name, value in facts if value]


UNTOLD = frozenset({"input", "code", "format"})
"""Kinds of parts that are told elsewhere, or that every key has."""


def _fact_of(part: Part) -> str:
    """Return a version where there is one, what is known of a value, or a digest."""
    return _described(part.detail) or part.digest[:12]


def _described(detail: Json) -> str:
    """Return what is known of an input's value in a few words; digests, which tell nobody anything, are left out."""
    if not isinstance(detail, dict):
        return "" if detail is None else _short(str(detail), 120)
    counts = {"rows": "rows", "columns": "columns", "length": "elements", "keys": "keys", "attributes": "attributes"}
    facts = [str(detail.get("type", ""))]
    for name, noun in counts.items():
        number = len(told) if isinstance(told := detail.get(name), dict) else told
        facts += (
            [f"{number:,} {noun}"] if isinstance(number, int) and not (name == "length" and "keys" in detail) else []
        )
    facts += [
        str(detail[name]) for name in ("shape", "dtype", "value") if isinstance(detail.get(name), str | int | float)
    ]
    return _short(", ".join(filter(None, facts)), 120)


def snippets(path: Path, output: Output) -> dict[str, str]:
    """Return code that opens a stored file without this package."""
    name = re.sub(r"\W", "_", output.name) or "table"
    name = f"_{name}" if name[0].isdigit() or keyword.iskeyword(name) else name
    where = repr(str(path))
    return {
        "pyarrow": f"import pyarrow as pa\n\nwith pa.memory_map({where}) as source:\n"
        f"    {name} = pa.ipc.open_file(source).read_all()",
        "pandas": f"import pandas as pd\n\n{name} = pd.read_feather({where})",
        "polars": f"import polars as pl\n\n{name} = pl.read_ipc({where})",
        "DuckDB": f"import duckdb, pyarrow as pa\n\n"
        f"{name} = pa.ipc.open_file(pa.memory_map({where})).read_all()\n"
        f'duckdb.sql("from {name} limit 10")',
    }


# Without a front end -----------------------------------------------------------------------------------------------

_HEAD = ("Name", "Rows", "Columns", "Size", "Created", "Used", "Hits", "Saved", "Notebook")


def _cells(record: Record, now: float) -> list[str]:
    if record.damage:
        return [_short(f"{record.name} (damaged: {record.damage})"), "", "", size_text(record.size), "", "", "", "", ""]
    values = row(record, now)
    label = f"{values[1]}{' (pinned)' if record.pinned else ''}"
    return [label, str(values[6]), str(values[7]), str(values[5]), *(str(v) for v in values[8:])]


def _title(records: Sequence[Record], usage: str, where: str) -> str:
    count = f"{len(records):,} {'entry' if len(records) == 1 else 'entries'}"
    return f"Prefect cache: {count}, {usage}, in {where}"


def static_text(records: Sequence[Record], usage: str, where: str, now: float, limit: int = STATIC_ROWS) -> str:
    """Return the list as aligned text."""
    table = [list(_HEAD), *(_cells(r, now) for r in records[:limit])]
    widths = [max(len(line[i]) for line in table) for i in range(len(_HEAD))]
    lines = [_title(records, usage, where)]
    for line in table if records else []:
        cells = [c.ljust(w) if i in {0, 8} else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    if len(records) > limit:
        lines.append(f"... and {len(records) - limit:,} more")
    return "\n".join(lines)


def static_html(records: Sequence[Record], usage: str, where: str, now: float, limit: int = STATIC_ROWS) -> str:
    """Return the list as a table that needs no script, for exported and untrusted notebooks."""
    head = "".join(f"<th>{name}</th>" for name in _HEAD)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in _cells(r, now)) + "</tr>" for r in records[:limit]
    )
    more = f"<p>and {len(records) - limit:,} more</p>" if len(records) > limit else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if records else ""
    return f"<p><b>{html.escape(_title(records, usage, where))}</b></p>{table}{more}"


def counted(mapping: Mapping[str, object] | Sequence[object], noun: str) -> str:
    """Return ``1 entry`` or ``3 entries``."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{len(mapping):,} {noun if len(mapping) == 1 else plural}"
