"""What happened and why, in words: pure functions from outcomes, keys and changes to text.

A `Table` and `Lines` are all that the commands show; how they look in a notebook and in a terminal is said once, here.
"""

from __future__ import annotations

import difflib
import html
import re
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, cast

from .model import Bypass, Change, Failed, Hit, Miss, Part
from .units import moment_text, seconds_text, size_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .model import Entry, Json, Key, Observed, Outcome

SHOWN_NAMES: Final = 4
"""How many names a status line spells out before it says how many more there are."""

SHOWN_DETAILS: Final = 3
"""How many columns, keys or parts one clause spells out."""

NEVER_RUN: Final = "this cell has not run with these inputs yet"
"""Why there is no hit where nothing that is stored resembles the cell."""


# Status lines


def status_line(outcome: Outcome, now: float | None = None) -> str:
    """Return one line on what became of a cell, such as ``restored orders (48 MB) in 8 ms; ran 3.2 s on 12 Nov``."""
    head, *rest = _clauses(outcome, time.time() if now is None else now)
    return "; ".join([head, *rest])


def status_html(outcome: Outcome, now: float | None = None) -> str:
    """Return the status line for a notebook: the same words, the outcome in bold, what is to be done set apart."""
    head, *rest = _clauses(outcome, time.time() if now is None else now)
    verb, _, details = head.partition(" ")
    words = "; ".join(html.escape(clause) for clause in rest)
    return (
        f'<div class="prefect-cache-status" style="opacity:.75;font-size:90%">{_MARKS[type(outcome)]} '
        f"<b>{html.escape(verb)}</b> {html.escape(details)}{'; ' + words if words else ''}</div>"
    )


_MARKS: Final[Mapping[type, str]] = {Hit: "&#8635;", Miss: "&#9679;", Bypass: "&#9651;", Failed: "&#10005;"}


def _clauses(outcome: Outcome, now: float) -> list[str]:
    match outcome:
        case Hit(entry=entry, seconds=seconds, notes=notes):
            run = entry.manifest.run
            restored = f"restored {contents(entry)} in {took(seconds)}"
            return [restored, f"ran {took(run.seconds)} {day(run.started, now)}", *notes]
        case Miss(entry=entry, because=because, refreshed=refreshed, notes=notes):
            ran = f"ran in {took(entry.manifest.run.seconds)}, stored {stored(entry)}"
            why = "refreshed as asked" if refreshed else f"missed because {because}" if because else ""
            return [ran, *([why] if why else []), *notes]
        case Bypass(reason=reason, seconds=seconds, remedy=remedy, notes=notes):
            ran = f"ran in {took(seconds)}, not stored: {clause(reason)}"
            return [ran, *([clause(remedy)] if remedy else []), *notes]
        case Failed(error=error, seconds=seconds):
            return [f"failed after {took(seconds)}, nothing stored: {type(error).__name__}"]


def clause(sentence: str) -> str:
    """Return a sentence as a part of a longer one."""
    text = sentence.strip().removesuffix(".")
    begins_with_a_word = text[:2].istitle() and text[1:2].islower()
    return text[:1].lower() + text[1:] if begins_with_a_word else text


def took(seconds: float) -> str:
    """Return how long something took; what is too short for a number is said to be so."""
    return seconds_text(seconds) if seconds >= 0.0005 else "under 1 ms"  # noqa: PLR2004 - what rounds to none


def names(entry: Entry) -> tuple[str, ...]:
    """Return the variables that an entry gives back: those that it binds, then those that it changes in place."""
    return entry.manifest.names


def contents(entry: Entry) -> str:
    """Return what an entry keeps as ``orders, model (1.2 GB)``; ``its output`` where it only showed something."""
    found = names(entry)
    if not found:
        return "its output" if entry.manifest.displays else "nothing but its effects"
    more = len(found) - SHOWN_NAMES
    listed = ", ".join(found[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
    return listed + _size(entry)


def stored(entry: Entry) -> str:
    """Return how much an entry keeps as ``2 outputs (48 MB)``."""
    count = len(names(entry))
    if not count:
        return "its output" if entry.manifest.displays else "nothing but its effects"
    return f"{count} output{'s' if count > 1 else ''}{_size(entry)}"


def _size(entry: Entry) -> str:
    """Return the bytes of an entry's files in brackets; nothing where its values stand in the manifest itself."""
    size = sum(output.size for output in entry.manifest.outputs)
    return f" ({size_text(size)})" if size else ""


def day(then: float, now: float) -> str:
    """Return a moment as one says it in a sentence: ``at 14:03`` today, ``on 12 Nov``, ``on 12 Nov 2025``."""
    moment = datetime.fromtimestamp(then, UTC).astimezone()
    today = datetime.fromtimestamp(now, UTC).astimezone()
    if moment.date() == today.date():
        return f"at {moment:%H:%M}"
    return f"on {moment.day} {moment:%b}" + ("" if moment.year == today.year else f" {moment.year}")


def status(outcome: Outcome) -> str:
    """Return the outcome's one word: hit, miss, refresh, bypass or failed."""
    match outcome:
        case Hit():
            return "hit"
        case Miss(refreshed=refreshed):
            return "refresh" if refreshed else "miss"
        case Bypass():
            return "bypass"
        case Failed():
            return "failed"


def reason(outcome: Outcome) -> str:
    """Return why the outcome is what it is, one clause; empty for a hit."""
    match outcome:
        case Miss(because=because):
            return because
        case Bypass(reason=text):
            return text
        case Failed(error=error):
            return f"{type(error).__name__}: {error}"
        case Hit():
            return ""


# Why


def because(change: Change) -> str:
    """Return one difference as a clause that follows *because*, such as ``orders[price] changed``."""
    say = _CLAUSES.get(change.kind)
    return say(change) if say is not None else f"{change.name} {_VERBS[change.how]}"


def because_all(changes: Sequence[Change], limit: int = 2) -> str:
    """Return several differences as one clause, the most telling first; `NEVER_RUN` where there are none."""
    if not changes:
        return NEVER_RUN
    ranked = sorted(_telling(changes), key=lambda change: _RANK.get(change.kind, len(_RANK)))
    more = len(ranked) - limit
    said = ", ".join(dict.fromkeys(because(change) for change in ranked[:limit]))
    return said + (f" and {more} more thing{'s' if more > 1 else ''} changed" if more > 0 else "")


def nearest(key: Key, entries: Iterable[Entry], source: str = "") -> Entry | None:
    """Return the entry that differs least from `key`: the same code first, then the most similar one.

    An entry that has less than half of its parts in common with `key`, and another source, is none.
    """
    mine = {(part.kind, part.name): part for part in key.parts}

    def likeness(entry: Entry) -> tuple[bool, float, float]:
        theirs = {(part.kind, part.name): part for part in entry.manifest.key.parts}
        same = sum(_likeness(theirs[name], part) for name, part in mine.items() if name in theirs)
        code = [part.digest for (kind, _), part in mine.items() if kind == "code"]
        same_code = any(part.kind == "code" and part.digest in code for part in entry.manifest.key.parts)
        text = difflib.SequenceMatcher(None, source, entry.manifest.source).quick_ratio() if source else 0.0
        return same_code, text + same / max(1, len(mine.keys() | theirs.keys())), entry.manifest.run.started

    best = max(entries, key=likeness, default=None)
    if best is None:
        return None
    same_code, score, _ = likeness(best)
    return best if same_code or score > (1.0 if source else 0.5) else None


def _likeness(older: Part, newer: Part) -> float:
    """Return 1 for equal parts; less for values that have some columns or keys in common, the more of them the more."""
    if older.digest == newer.digest:
        return 1.0
    was, now = _leaves(older.detail), _leaves(newer.detail)
    return 0.5 * len(was & now) / max(1, len(was | now))


def _leaves(detail: Json) -> set[tuple[str, str, str]]:
    named = ((kind, parts) for kind, parts in as_dict(detail).items() if isinstance(parts, dict))
    return {(kind, name, str(told)) for kind, parts in named for name, told in parts.items()}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A run beside the earlier one that it resembles most; `older` is None where there is none."""

    older: Entry | None = None
    changes: tuple[Change, ...] = ()
    source: str = ""

    def lines(self) -> list[str]:
        """Return what differs, as a person reads it; nothing where no earlier run resembles this one."""
        if self.older is None:
            return []
        older = self.older.manifest
        since = f"compared with the run of {moment_text(older.run.started)} ({older.name}, {self.older.digest[:8]}):"
        told = why(self.changes, older_source=older.source, source=self.source)
        return [since, *(f"  {line}" for line in told or ["the same code, inputs and files"])]


def compare(
    key: Key, source: str, entries: Iterable[Entry], *, than: Entry | None = None, observed: Iterable[Change] = ()
) -> Comparison:
    """Return how a key differs from that of the nearest of `entries`.

    Parameters
    ----------
    key, source
        What is asked about.
    entries
        The earlier runs that come into question.
    than
        The entry that the key belongs to: only runs before its own are looked at, and where those saw other
        files (or whatever else a run observes) that is said as well.
    observed
        Where there is no such entry: how the files are now, compared with the nearest run.
    """
    before = entries
    if than is not None:
        started = than.manifest.run.started
        before = [e for e in entries if e.digest != than.digest and e.manifest.run.started <= started]
    older = nearest(key, before, source)
    if older is None:
        return Comparison(source=source)
    changes = key.changes(older.manifest.key)
    seen = tuple(observed) if than is None else observations(older.manifest.observed, than.manifest.observed)
    told = {(change.kind, change.name) for change in changes}
    # What only one of the runs looked at is told where nothing else is: as a rule it follows from the rest.
    seen = tuple(s for s in seen if (s.kind, s.name) not in told and ((s.older and s.newer) or not changes))
    return Comparison(older, (*changes, *seen), source)


def ran_because(entry: Entry, compared: Comparison) -> list[str]:
    """Return a ``why`` for a stored run: what was said of it then, and how it differs from the run before."""
    noted = entry.manifest.options.get("because")
    said = noted if isinstance(noted, str) and noted else because_all(compared.changes)
    return [f"{entry.manifest.name} ran because {said}", *compared.lines()]


AT_A_PATH: Final = frozenset({"file", "absent", "exists", "written"})
"""Kinds of observations that say what stands at a path."""


def observations(older: Iterable[Observed], newer: Iterable[Observed]) -> tuple[Change, ...]:
    """Return how what one run observed differs from what an earlier one did.

    What only one of them looked at is told where there is no other difference.
    """

    def placed(all_: Iterable[Observed]) -> dict[tuple[str, str], Observed]:
        return {("path" if seen.kind in AT_A_PATH else seen.kind, seen.name): seen for seen in all_}

    was, now = placed(older), placed(newer)
    both = [_observation(was[place], now[place]) for place in now if place in was]
    changed = tuple(change for change in both if change is not None)
    if changed:
        return changed
    new = (Change(now[p].kind, now[p].name, "new", None, _part(now[p])) for p in now if p not in was)
    gone = (Change(was[p].kind, was[p].name, "gone", _part(was[p]), None) for p in was if p not in now)
    return (*new, *gone)


def _observation(was: Observed, now: Observed) -> Change | None:
    if was.digest == now.digest:
        return None
    kind = "input" if was.kind == "name" else was.kind
    if was.kind == "absent":
        return Change(kind, now.name, "new", None, _part(now))
    return Change(kind, now.name, "gone" if now.kind == "absent" else "changed", _part(was), _part(now))


def _part(seen: Observed) -> Part:
    return Part(seen.kind, seen.name, seen.digest, seen.detail)


def why(changes: Iterable[Change], *, older_source: str = "", source: str = "") -> list[str]:
    """Return what differs, in as many lines as a person needs to see how."""
    lines: list[str] = []
    for change in _telling(changes):
        lines.append(f"{_title(change)}: {_how(change)}")
        if change.kind == "code" and older_source and source:
            lines += _diff(older_source, source)
        elif change.older is not None and change.newer is not None:
            lines += _diff(_source(change.older), _source(change.newer))
    return lines


def _telling(changes: Iterable[Change]) -> list[Change]:
    """Return the changes without those that follow from another: a module's state from its source."""
    found = list(changes)
    modules = {f"module {change.name}" for change in found if change.kind == "module"}
    return [change for change in found if not (change.kind == "state" and change.name in modules)]


_VERBS: Final[Mapping[str, str]] = {"changed": "changed", "new": "is new", "gone": "is gone"}

_RANK: Final[Mapping[str, int]] = {
    kind: rank
    for rank, kind in enumerate(
        (
            "format", "code", "expired", "options", "input", "function", "module", "file", "files", "written",
            "exists", "isdir", "dates", "folder", "absent", "environ", "cwd", "state", "random", "numpy.random",
            "torch", "sharing", "python", "package",
        )
    )
}  # fmt: skip


def _say_code(change: Change) -> str:  # noqa: ARG001 - one signature for all
    return "the cell's code changed"


def _say_input(change: Change) -> str:
    if _is_helper(change):
        return f"helper {change.name} {_VERBS[change.how]}"
    if change.how == "new":
        return f"{change.name} is an input that it did not have"
    if change.how == "gone":
        return f"{change.name} is no longer an input"
    differences = _differences(change)
    columns = [d.name for d in differences if d.name]
    if columns and len(columns) == len(differences) and len(columns) <= SHOWN_DETAILS:
        return f"{change.name}[{', '.join(columns)}] changed"
    return f"{change.name} changed"


def _is_helper(change: Change) -> bool:
    """Tell whether an input is a function or class of the notebook rather than data."""
    detail = (change.newer or change.older or Part("", "", "")).detail
    return isinstance(detail, dict) and detail.get("type") in ("function", "class")


def _say_function(change: Change) -> str:
    return f"helper {change.name} {_VERBS[change.how]}"


def _say_module(change: Change) -> str:
    return f"module {change.name} {_VERBS[change.how]}"


def _say_package(change: Change) -> str:
    older, newer = _version(change.older), _version(change.newer)
    if older and newer:
        return f"{change.name} {older} -> {newer}"
    return f"package {change.name} {_VERBS[change.how]}"


def _say_environ(change: Change) -> str:
    return f"${change.name} {_VERBS[change.how]}"


def _say_file(change: Change) -> str:
    when = _written_on(change)
    return f"{change.name} {_VERBS[change.how]}{' ' + when if when else ''}"


def _written_on(change: Change) -> str:
    """Return when a file was written last, where that is since the earlier run had seen it."""
    was, now = _fact(change.older, "mtime_ns"), _fact(change.newer, "mtime_ns")
    return day(now / 1e9, time.time()) if now > was else ""


def _fact(part: Part | None, name: str) -> int:
    """Return a number that is known of a file, 0 where it is not."""
    told = as_dict(part.detail).get(name) if part is not None else None
    return told if isinstance(told, int) else 0


def _say_written(change: Change) -> str:
    return f"{change.name}, which it wrote, {'is missing' if change.how == 'gone' else 'changed'}"


def _say_absent(change: Change) -> str:
    when = _written_on(change)
    return f"{change.name} now exists{', written ' + when if when else ''}"


def _say_folder(change: Change) -> str:
    was, now = (as_dict(part.detail) if part is not None else {} for part in (change.older, change.newer))
    came, went = [name for name in now if name not in was], [name for name in was if name not in now]
    if not was or not now or len(came) + len(went) > SHOWN_DETAILS:
        return f"the files in {change.name} changed"
    told = [(came, "new in"), (went, "gone from")]
    said = [f"{', '.join(names)} {_be(names)} {where} {change.name}" for names, where in told if names]
    return ", ".join(said) or f"the files in {change.name} changed"


def _be(named: Sequence[str]) -> str:
    return "are" if len(named) > 1 else "is"


def _say_state(change: Change) -> str:
    what = "how the shell runs cells" if change.name == "shell" else change.name
    return f"{what} {_VERBS[change.how]}"


def _say_cwd(change: Change) -> str:  # noqa: ARG001 - one signature for all
    return "the working directory changed"


def _say_random(change: Change) -> str:
    return f"the state of {change.name or change.kind} changed"


def _say_sharing(change: Change) -> str:
    return f"what shares memory or objects changed ({change.name})"


def _say_python(change: Change) -> str:
    older, newer = _version(change.older), _version(change.newer)
    return f"Python {older} -> {newer}" if older and newer else "Python's version changed"


def _say_expired(change: Change) -> str:  # noqa: ARG001 - one signature for all
    return "its stored run has expired"


def _say_files(change: Change) -> str:
    differences = _differences(change)
    return f"{differences[0].text}" if len(differences) == 1 else f"files that {change.name} names changed"


def _say_exists(change: Change) -> str:
    return f"{change.name}, which it looked for, {'is gone' if change.how == 'gone' else 'is not as it was'}"


def _say_isdir(change: Change) -> str:
    return f"whether {change.name} is a folder changed"


def _say_dates(change: Change) -> str:
    return f"{change.name} was written since"


def _say_options(change: Change) -> str:
    return f"--{change.name} {_VERBS[change.how]}"


def _say_format(change: Change) -> str:  # noqa: ARG001 - one signature for all
    return "the format of the store changed"


_CLAUSES: Final = {
    "code": _say_code,
    "input": _say_input,
    "function": _say_function,
    "module": _say_module,
    "package": _say_package,
    "environ": _say_environ,
    "file": _say_file,
    "written": _say_written,
    "absent": _say_absent,
    "folder": _say_folder,
    "state": _say_state,
    "cwd": _say_cwd,
    "random": _say_random,
    "numpy.random": _say_random,
    "torch": _say_random,
    "sharing": _say_sharing,
    "python": _say_python,
    "format": _say_format,
    "expired": _say_expired,
    "files": _say_files,
    "exists": _say_exists,
    "isdir": _say_isdir,
    "dates": _say_dates,
    "options": _say_options,
}

_TITLES: Final[Mapping[str, str]] = {
    "code": "the cell's code",
    "function": "helper",
    "module": "module",
    "package": "package",
    "file": "file",
    "files": "files",
    "exists": "file that the cell looked for",
    "isdir": "whether it is a folder",
    "dates": "date of",
    "options": "option",
    "expired": "stored run",
    "written": "file that the cell wrote",
    "folder": "folder",
    "absent": "file that was not there",
    "environ": "environment variable",
    "state": "process state",
    "cwd": "working directory",
    "random": "random generator",
    "numpy.random": "random generator",
    "torch": "random generator",
    "sharing": "sharing",
    "python": "Python",
    "format": "format of the store",
}


def _title(change: Change) -> str:
    title = "helper" if _is_helper(change) else _TITLES.get(change.kind, "")
    name = "" if change.kind in ("code", "python", "format") else change.name
    return f"{title} {name}".strip()


def _how(change: Change) -> str:
    if change.how == "new":
        return "new" if change.kind != "input" else "an input that the earlier run did not have"
    if change.how == "gone":
        return {"input": "no longer an input", "expired": "has expired"}.get(change.kind, "gone")
    older, newer = _version(change.older), _version(change.newer)
    if older and newer and older != newer:
        return f"{older} -> {newer}"
    if change.kind in ("file", "written", "absent"):
        return _how_file(change)
    differences = _differences(change)
    return ", ".join(d.text for d in differences) if differences else "changed"


def _how_file(change: Change) -> str:
    """Return when a file was written, and how large it was and is."""
    known = [size_text(size) for part in (change.older, change.newer) if (size := _fact(part, "size"))]
    when = _written_on(change)
    first = f"changed {when}" if when else "changed"
    return ", ".join([first, *([" -> ".join(dict.fromkeys(known))] if known else [])])


def _version(part: Part | None) -> str:
    detail = part.detail if part is not None else None
    if isinstance(detail, dict):
        detail = detail.get("version")
    return detail if isinstance(detail, str) and part is not None and part.kind in ("package", "python") else ""


def _source(part: Part) -> str:
    detail = part.detail
    source = detail.get("source") if isinstance(detail, dict) else None
    return source if isinstance(source, str) else ""


def _diff(older: str, newer: str) -> list[str]:
    """Return the changed lines of a source, indented, each with its sign."""
    if not older or not newer or older == newer:
        return []
    lines = difflib.unified_diff(older.splitlines(), newer.splitlines(), lineterm="", n=1)
    return [f"    {line}" for line in lines if line.strip() and not line.startswith(("---", "+++", "@@"))]


# How two fingerprints differ


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference inside a value: in words, and the column or key concerned where there is one."""

    text: str
    name: str = ""


def _differences(change: Change) -> list[Difference]:
    older = change.older.detail if change.older is not None else None
    newer = change.newer.detail if change.newer is not None else None
    if not isinstance(older, dict) or not isinstance(newer, dict):
        return []
    if change.kind in ("files", "folder"):
        return _parts("files", older, newer)
    return [] if change.kind in AT_A_PATH else differences(older, newer)


def differences(older: Mapping[str, Json], newer: Mapping[str, Json]) -> list[Difference]:
    """Return how two fingerprints' details differ; empty where they do not say."""
    if older.get("type") != newer.get("type"):
        return [Difference(f"was {older.get('type')}, is {newer.get('type')}")]
    found: list[Difference] = []
    other_rows = older.get("rows") != newer.get("rows")
    for name in [*newer, *(k for k in older if k not in newer)]:
        was, now = older.get(name), newer.get(name)
        if name in ("digest", "source") or (was == now and _order(was) == _order(now)):
            continue
        if name in _DIGESTS:
            # Another number of rows is another index, and other columns are other labels: that is said already.
            said = other_rows if name == "index" else bool(found)
            found += [] if said else [Difference(f"{name} {'differ' if name != 'index' else 'differs'}")]
        else:
            found += _difference(name, was, now, rows_too=other_rows)
    return found


_DIGESTS: Final = ("index", "labels", "values")
"""Names in a detail whose value is a digest: all that can be told is that they differ."""


def _order(value: Json) -> list[str]:
    """Return the order of named parts, which equality of mappings leaves out."""
    return list(value) if isinstance(value, dict) else []


def _difference(name: str, was: Json, now: Json, *, rows_too: bool) -> list[Difference]:
    if isinstance(was, dict) and isinstance(now, dict):
        return _parts(name, was, now, all_differ=rows_too)
    if name in ("rows", "length") and isinstance(was, int) and isinstance(now, int):
        many = abs(now - was)
        thing = "row" if name == "rows" else "element"
        return [Difference(f"{many} {thing}{'s' if many != 1 else ''} {'added' if now > was else 'removed'}")]
    if isinstance(was, list) or isinstance(now, list):
        return [Difference(f"{name} changed")]
    what = "" if name == "value" else f"{name} "
    return [Difference(f"{what}{_short(was)} -> {_short(now)}")]


def _parts(
    kind: str, was: Mapping[str, Json], now: Mapping[str, Json], *, all_differ: bool = False
) -> list[Difference]:
    """Return how two maps of named parts (columns, keys, attributes) differ.

    `all_differ`: something else, such as another number of rows, makes each part differ; then that is not told again.
    """
    noun = kind.removesuffix("s")
    added = [name for name in now if name not in was]
    removed = [name for name in was if name not in now]
    renamed = _renamed(was, now, removed, added)
    common = [name for name in now if name in was]
    retyped = {name: types for name in common if (types := _types(was[name], now[name]))}
    changed = [name for name in common if was[name] != now[name] and name not in retyped]
    if all_differ and len(changed) + len(retyped) == len(common):
        changed = []
    equal = len(common) - len(changed) - len(retyped)
    found = [Difference(f"{noun} {name} was {old}, is {new}", name) for name, (old, new) in retyped.items()]
    if changed:
        others = f" ({equal} other{'s' if equal != 1 else ''} equal)" if equal else ""
        single = changed[0] if len(changed) == 1 else ""
        found.append(Difference(f"{_listed(noun, changed)} differ{'s' if single else ''}{others}", ", ".join(changed)))
    found += [Difference(f"{noun} {old} renamed to {new}") for old, new in renamed.items()]
    if added := [name for name in added if name not in renamed.values()]:
        found.append(Difference(f"{_listed(noun, added)} added"))
    if removed := [name for name in removed if name not in renamed]:
        found.append(Difference(f"{_listed(noun, removed)} removed"))
    return found or ([] if all_differ else [Difference(f"order of {noun}s changed")])


def _renamed(
    was: Mapping[str, Json], now: Mapping[str, Json], removed: Sequence[str], added: Sequence[str]
) -> dict[str, str]:
    """Return the parts that went under one name and came under another, where only one can be meant."""
    contents = Counter(str(was[name]) for name in removed) | Counter(str(now[name]) for name in added)
    return {
        old: new
        for old in removed
        for new in added
        if was[old] == now[new] and str(was[old]).strip() and contents[str(was[old])] == 1
    }


def _types(was: Json, now: Json) -> tuple[str, str] | None:
    """Return the types of a column (its detail is type and digest), where they differ."""
    old, new = (str(told).rpartition(" ")[0] for told in (was, now))
    return (old, new) if old and new and old != new else None


def _listed(noun: str, found: Sequence[str]) -> str:
    more = len(found) - SHOWN_DETAILS
    listed = ", ".join(found[:SHOWN_DETAILS]) + (f" and {more} more" if more > 0 else "")
    return f"{noun}{'s' if len(found) > 1 else ''} {listed}"


def _short(value: Json) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."  # noqa: PLR2004 - a line's width is for more than one value


# Tables


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a header, as text for a terminal and as HTML (escaped) for a notebook.

    `right` are the numbers of the columns that are set to the right; `caption` is a line above, `footer` lines below.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[int, ...] = ()
    caption: str = ""
    footer: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the table as aligned text."""
        lines = [self.caption] if self.caption else []
        if self.rows:
            widths = [max(len(row[i]) for row in (self.header, *self.rows)) for i in range(len(self.header))]
            lines += [self._line(row, widths) for row in (self.header, *self.rows) if any(row)]
        return "\n".join([*lines, *self.footer])

    __repr__ = __str__

    def _line(self, row: tuple[str, ...], widths: list[int]) -> str:
        cells = (
            text.rjust(width) if i in self.right else text.ljust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    def _repr_html_(self) -> str:
        head = "".join(f"<th{self._side(i)}>{html.escape(text)}</th>" for i, text in enumerate(self.header))
        body = "".join(
            "<tr>" + "".join(f"<td{self._side(i)}>{html.escape(text)}</td>" for i, text in enumerate(row)) + "</tr>"
            for row in self.rows
        )
        caption = f"<p>{html.escape(self.caption)}</p>" if self.caption else ""
        footer = "".join(f"<p>{html.escape(line)}</p>" for line in self.footer)
        headed = f"<thead><tr>{head}</tr></thead>" if any(self.header) else ""
        table = f'<table class="prefect-cache-table">{headed}<tbody>{body}</tbody></table>' if self.rows else ""
        return caption + table + footer

    def _side(self, column: int) -> str:
        # What is set to the right are numbers with their units, which belong on one line.
        return ' style="text-align:right;white-space:nowrap"' if column in self.right else ' style="text-align:left"'


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of text, shown as they are: set in one width, lines of a diff in colour; the first bold where `headed`."""

    lines: tuple[str, ...]
    headed: bool = False

    def __str__(self) -> str:
        """Return the lines as one text."""
        return "\n".join(self.lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        shown = [_coloured(line) for line in self.lines]
        if self.headed and shown:
            shown[0] = f"<b>{shown[0]}</b>"
        return f'<pre style="margin:0;padding:0;line-height:1.4">{NEWLINE.join(shown)}</pre>'


NEWLINE: Final = "\n"

_CHANGED_LINE: Final = re.compile(r" {4}(?: {2})?([+-])")
"""A line of a diff, which `why` indents by four, and by two more under what it is compared with."""


def _coloured(line: str) -> str:
    sign = _CHANGED_LINE.match(line)
    text = html.escape(line)
    return f'<span style="color:{_COLOURS[sign[1]]}">{text}</span>' if sign else text


_COLOURS: Final = {"+": "#2da44e", "-": "#cf222e"}


def as_dict(value: Json) -> Mapping[str, Json]:
    """Return a manifest's value as a mapping, an empty one where it is something else."""
    return cast("Mapping[str, Json]", value) if isinstance(value, dict) else {}
