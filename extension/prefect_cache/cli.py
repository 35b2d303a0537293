"""``prefect-cache``: the store from a terminal.

Exit codes
----------
0
    Done.
1
    ``check`` found problems, or ``undo`` had nothing to bring back.
2
    The words of the command were off.
3
    No entry, or more than one, by that address; or the entry is damaged.
4
    The store, or where an export goes, could not be written.
130
    Interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn, cast

from prefect_cache import explain, results
from prefect_cache.errors import CacheError, Damaged, NotFound, StoreUnwritable, UsageProblem
from prefect_cache.model import EvictionPlan, Retention
from prefect_cache.store import Store, default_root
from prefect_cache.store.catalog import SORTS
from prefect_cache.units import age_text, moment_text, parse_size, parse_span, seconds_text, size_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prefect_cache.model import Entry, Json, Output, Problem
    from prefect_cache.store import Usage

DONE, PROBLEMS, USAGE, NOT_FOUND, UNWRITABLE, INTERRUPTED = 0, 1, 2, 3, 4, 130

EXIT_CODES = """exit codes:
  0    done
  1    check found problems, or undo had nothing to bring back
  2    the words of the command were off
  3    no entry, or more than one, by that address; or the entry is damaged
  4    the store, or where an export goes, could not be written
  130  interrupted"""

EXAMPLES = """examples:
  prefect-cache ls --sort size
  prefect-cache show orders
  prefect-cache evict 5f2c91 --dry-run
  prefect-cache prune --max-size 5GB --dry-run
  prefect-cache prune --results --max-age 30d --dry-run
  prefect-cache prune --storage s3://bucket/cache --max-age 90d --dry-run
  prefect-cache check --fix
"""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command has to say: to a person, to a program (``--json``), and by its exit code."""

    text: str
    data: Json
    code: int = DONE


Command = Callable[[Store, argparse.Namespace], Answer]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    asked = _parser().parse_args(arguments)
    try:
        answer = cast("Command", asked.command)(_store(asked), asked)
        sys.stdout.write((json.dumps(answer.data, indent=1) if asked.json else _printable(answer.text)) + "\n")
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except CacheError as error:
        return _fail(error)
    return answer.code


def _fail(error: CacheError) -> int:
    print(_printable(f"prefect-cache: {error.message}"), file=sys.stderr)
    if error.remedy:
        print(_printable(f"  {error.remedy}"), file=sys.stderr)
    return next((code for kinds, code in _CODES.items() if isinstance(error, kinds)), PROBLEMS)


_CODES = {(NotFound, Damaged): NOT_FOUND, (StoreUnwritable,): UNWRITABLE, (UsageProblem,): USAGE}


def _printable(text: str) -> str:
    """Return the text without what could command a terminal: names in a store may come from anyone."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def _store(asked: argparse.Namespace) -> Store:
    given = vars(asked)
    policy: Literal["value", "lru"] = "lru" if given.get("policy") == "lru" else "value"
    retention = Retention(max_bytes=given.get("max_size"), max_age=given.get("max_age"), policy=policy)
    store = Store(asked.store or default_root(), retention)
    store.on_problem = lambda problem: print(_printable(f"{problem.path.name}: {problem.what}"), file=sys.stderr)
    return store


# Seeing

WIDEST_NAME = 40


def ls(store: Store, asked: argparse.Namespace) -> Answer:
    """List the entries, 50 of them unless --limit says otherwise.

    With --results what Prefect's own tasks stored, with --storage what a storage keeps.
    """
    if asked.results is not None:
        return _results(store, asked)
    if asked.storage:
        return _remote_entries(store, asked)
    catalog = store.catalog(asked.limit or None, sort=asked.sort)
    shown = tuple(catalog.entries)
    now = time.time()
    table = explain.Table(
        ("key", "name", "size", "made", "used", "hits", "took", ""),
        tuple(_row(entry, now) for entry in shown),
        right=(2, 5, 6),
        footer=tuple(_footer(len(shown), catalog.total, catalog.problems)),
    )
    data: Json = {
        "entries": [_brief(entry) for entry in shown],
        "total": catalog.total,
        "problems": [_problem(problem) for problem in catalog.problems],
    }
    return Answer(str(table), data)


def _row(entry: Entry, now: float) -> tuple[str, ...]:
    run = entry.manifest.run
    marks = " ".join(word for word, is_so in (("pinned", entry.pinned), ("foreign", not entry.trusted)) if is_so)
    key = entry.digest[:12] + entry.digest[32:]
    name = entry.manifest.name
    name = name if len(name) <= WIDEST_NAME else name[: WIDEST_NAME - 1] + "…"
    made, used = age_text(run.started, now), age_text(entry.last_used, now)
    return key, name, size_text(entry.size), made, used, str(entry.hits), seconds_text(run.seconds), marks


def _footer(shown: int, total: int, problems: Sequence[Problem]) -> Iterator[str]:
    if not total:
        yield "The store is empty."
    elif shown < total:
        yield f"{shown} of {total} entries; --limit 0 shows all"
    for problem in problems:
        yield f"damaged: {problem.path.name}: {problem.what}"
    if problems:
        yield "`prefect-cache check --fix` removes what is damaged"


UNTOLD = ("format", "python", "code")
"""Kinds of parts that every key has."""


def show(store: Store, asked: argparse.Namespace) -> Answer:
    """Show one entry: its run, files, inputs and source."""
    entry = store.get(asked.key)
    manifest, run = entry.manifest, entry.manifest.run
    by = f" by {run.notebook}" if run.notebook else ""
    signed = "signed by a key held here" if entry.trusted else "not signed by a key held here: pickles stay closed"
    lines = [
        f"{manifest.name}  {entry.digest}",
        f"  made     {moment_text(run.started)} in {seconds_text(run.seconds)}{by}",
        f"  used     {moment_text(entry.last_used)}",
        f"  hits     {entry.hits}, saving {seconds_text(entry.hits * run.seconds)}",
        f"  state    {'pinned, ' if entry.pinned else ''}{signed}",
        f"  folder   {entry.path}",
        "  files",
        *(f"    {line}" for output in manifest.outputs for line in _file_lines(entry, output)),
        "  depends on",
        *(f"    {part.kind} {part.name}".rstrip() for part in manifest.key.parts if part.kind not in UNTOLD),
        *(f"    {seen.kind} {seen.name}" for seen in manifest.observed),
        "  source",
        *(f"    {line}" for line in manifest.source.splitlines()),
    ]
    return Answer("\n".join(lines), _full(entry))


def _file_lines(entry: Entry, output: Output) -> Iterator[str]:
    rows = output.meta.get("rows")
    extent = f", {rows} rows" if isinstance(rows, int) else ""
    yield f"{output.name or '(result)'}: {output.kind}{extent}, {size_text(output.size)} in {output.file}"
    if output.file.endswith(".arrow"):
        yield f"    pyarrow.ipc.open_file({str(entry.path / output.file)!r}).read_all()"


def why(store: Store, asked: argparse.Namespace) -> Answer:
    """Say why an entry was made: what differed from the nearest one that there was."""
    entry = store.get(asked.key)
    manifest = entry.manifest
    code = next((part.digest for part in manifest.key.parts if part.kind == "code"), "")
    earlier = store.alike(manifest.name, code, limit=50)
    compared = explain.compare(manifest.key, manifest.source, earlier, than=entry)
    told: list[Json] = [{"kind": change.kind, "name": change.name, "how": change.how} for change in compared.changes]
    because = manifest.options.get("because", "")
    nearest = compared.older.digest if compared.older is not None else None
    data: Json = {"key": entry.digest, "because": because, "nearest": nearest, "changes": told}
    return Answer("\n".join(explain.ran_because(entry, compared)), data)


def stats(store: Store, asked: argparse.Namespace) -> Answer:  # noqa: ARG001 - one signature for all
    """Total what the store holds and has saved."""
    usage = store.usage()
    lines = [
        f"entries    {usage.entries} ({usage.pinned} pinned, {usage.problems} damaged)",
        f"bytes      {size_text(usage.size)} of {size_text(usage.limit)}",
        f"linked     {size_text(usage.linked)} saved by storing equal files once",
        f"hits       {usage.hits}, saving {seconds_text(usage.saved)}",
        f"evicted    {size_text(usage.graveyard)} that `undo` can still bring back",
    ]
    return Answer("\n".join(lines), _usage(usage))


def where(store: Store, asked: argparse.Namespace) -> Answer:  # noqa: ARG001 - one signature for all
    """Say where the store is, what it takes, and what it may take."""
    usage = store.usage()
    share = f" ({usage.size / usage.limit:.0%})" if usage.limit else ""
    lines = [
        str(store.root),
        f"  {size_text(usage.size)} of {size_text(usage.limit)}{share}, {usage.entries} entries",
        f"  {size_text(usage.free)} free on the disk",
    ]
    return Answer("\n".join(lines), _usage(usage))


def _usage(usage: Usage) -> Json:
    return {**dataclasses.asdict(usage), "root": str(usage.root)}


# Acting: plan, show, act


def evict(store: Store, asked: argparse.Namespace) -> Answer:
    """Evict entries; `undo` brings them back for a while, but not those of a storage."""
    if asked.storage:
        from prefect_cache import inventory

        remote = inventory.reach(asked.storage, store)
        gone = inventory.evict(remote, asked.keys, every=asked.all, dry_run=asked.dry_run)
        return Answer("\n".join(gone.lines), gone.data)
    entries = [entry for key in asked.keys for entry in _addressed(store, key, asked)]
    if not entries:
        raise NotFound(f"no entry is called {' or '.join(asked.keys)}", remedy="`prefect-cache ls` shows what there is")
    if asked.dry_run:
        freed = store.freed_by(entry.digest for entry in entries)
        lines = [*(f"would evict {_named(entry)}" for entry in entries), f"{size_text(freed)} would be freed"]
        told: Json = {
            "evicted": [],
            "would_evict": [_brief(entry) for entry in entries],
            "freed": 0,
            "would_free": freed,
        }
        return Answer("\n".join(lines), told)
    done = store.evict(entries, undoable=not asked.forever)
    lines = [f"evicted {_named(entry)}" for entry, _ in done.entries]
    lines.append(f"{size_text(done.freed)} freed" + ("; `prefect-cache undo` brings it back" if done.undoable else ""))
    return Answer("\n".join(lines), {"evicted": [_brief(entry) for entry, _ in done.entries], "freed": done.freed})


def _addressed(store: Store, key: str, asked: argparse.Namespace) -> Sequence[Entry]:
    return store.find(key) if asked.all else (store.get(key),)


def undo(store: Store, asked: argparse.Namespace) -> Answer:  # noqa: ARG001 - one signature for all
    """Bring back what was evicted last."""
    entries = store.undo()
    text = "\n".join(f"brought back {_named(entry)}" for entry in entries) or "there is nothing to bring back"
    return Answer(text, {"restored": [_brief(entry) for entry in entries]}, DONE if entries else PROBLEMS)


def pin(store: Store, asked: argparse.Namespace) -> Answer:
    """Keep an entry whatever retention says."""
    entry = store.get(asked.key)
    store.pin(entry)
    return Answer(f"pinned {_named(entry)}", {"pinned": entry.digest})


def unpin(store: Store, asked: argparse.Namespace) -> Answer:
    """Leave an entry to retention again."""
    entry = store.get(asked.key)
    store.unpin(entry)
    return Answer(f"unpinned {_named(entry)}", {"unpinned": entry.digest})


def prune(store: Store, asked: argparse.Namespace) -> Answer:
    """Apply retention now: age, TTL, and the size limit.

    With --results to what Prefect's own tasks stored, with --storage to a storage.
    """
    if asked.results is not None:
        return _prune_results(store, asked)
    if asked.storage:
        from prefect_cache import inventory

        remote = inventory.reach(asked.storage, store)
        gone = inventory.prune(remote, max_age=asked.max_age, max_bytes=asked.max_size, dry_run=asked.dry_run)
        return Answer("\n".join(gone.lines), gone.data)
    plan = store.plan()
    if asked.dry_run:
        text = _plan_text(plan, "would evict", "would be freed")
        return Answer(text, {"evicted": [], "would_evict": _planned(plan), "freed": 0, "would_free": plan.freed})
    done = store.prune(plan)
    store.sweep()
    text = _plan_text(EvictionPlan(done.entries, done.freed), "evicted", "freed")
    return Answer(text, {"evicted": [_brief(entry) for entry, _ in done.entries], "freed": done.freed})


def _plan_text(plan: EvictionPlan, verb: str, end: str) -> str:
    lines = [f"{verb} {_named(entry)}: {reason}" for entry, reason in plan.evict]
    return "\n".join([*lines, f"{size_text(plan.freed)} {end}" if plan else "nothing needs to go"])


def _planned(plan: EvictionPlan) -> list[Json]:
    return [{**_brief(entry), "reason": reason} for entry, reason in plan.evict]


def _remote_entries(store: Store, asked: argparse.Namespace) -> Answer:
    from prefect_cache import inventory

    remote = inventory.reach(asked.storage, store)
    catalog = remote.catalog()
    shown = catalog.entries[: asked.limit] if asked.limit else catalog.entries
    data: Json = {
        "entries": [inventory.brief(entry) for entry in shown],
        "total": len(catalog.entries),
        "problems": list(catalog.problems),
    }
    return Answer(str(inventory.table(catalog, remote.place.url, limit=asked.limit)), data)


def _results(store: Store, asked: argparse.Namespace) -> Answer:
    found = results.scan(asked.results, entries=store.root / "entries")
    newest = sorted(found.results, key=lambda result: -result.written)
    shown = newest[: asked.limit] if asked.limit else newest
    now = time.time()
    table = explain.Table(
        ("record", "task", "serializer", "size", "written", ""),
        tuple(
            (r.key[:40], r.task, r.serializer, size_text(r.size), age_text(r.written, now), r.state(now)) for r in shown
        ),
        right=(3,),
        footer=(f"{len(shown)} of {len(newest)} results, {size_text(found.size)} in {found.folder}",),
    )
    data: Json = {
        "results": [_result(result, now) for result in shown],
        "total": len(newest),
        "problems": [_problem(problem) for problem in found.problems],
    }
    return Answer(str(table), data)


def _prune_results(store: Store, asked: argparse.Namespace) -> Answer:
    found = results.scan(asked.results, entries=store.root / "entries")
    planned = results.plan(found, max_age=asked.max_age, max_bytes=asked.max_size)
    problems = () if asked.dry_run else results.carry_out(planned, found)
    would = asked.dry_run
    evict, sweep = ("would evict", "would sweep") if would else ("evicted", "swept")
    lines = [
        *(f"{evict} {r.task or r.serializer} {r.key} ({size_text(r.size)}): {why}" for r, why in planned.evict),
        *(f"{sweep} {path.name}: no record names it" for path in planned.sweep),
        *(f"{problem.path}: {problem.what}" for problem in problems),
        f"{size_text(planned.freed)} {'would be freed' if would else 'freed'}" if planned else "nothing needs to go",
    ]
    now = time.time()
    data: Json = {
        "evicted": [] if would else [_result(result, now) for result, _ in planned.evict],
        "would_evict": [{**_result(r, now), "reason": why} for r, why in planned.evict] if would else [],
        "freed": 0 if would else planned.freed,
        "would_free": planned.freed,
        "problems": [_problem(problem) for problem in problems],
    }
    return Answer("\n".join(lines), data, PROBLEMS if problems else DONE)


def _result(result: results.Result, now: float) -> dict[str, Json]:
    return {
        "key": result.key,
        "path": str(result.record),
        "task": result.task,
        "serializer": result.serializer,
        "size": result.size,
        "written": result.written,
        "expires": result.expires,
        "state": result.state(now),
        "told": results.explain(result, now),
    }


def check(store: Store, asked: argparse.Namespace) -> Answer:
    """Verify every byte of every entry; --fix removes what is damaged and sweeps leftovers."""
    with _bar() as progress:
        problems = store.check(progress, fix=asked.fix)
    lines = [f"{problem.path.name}: {problem.what}" for problem in problems]
    if not problems:
        lines = ["everything is as it was written"]
    elif asked.fix:
        lines.append("removed; the cells concerned will run again")
    else:
        lines.append("`prefect-cache check --fix` removes what is damaged")
    data: Json = {"problems": [_problem(problem) for problem in problems], "fixed": bool(asked.fix)}
    return Answer("\n".join(lines), data, PROBLEMS if problems and not asked.fix else DONE)


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[int, int], None] | None]:
    """Yield what draws a progress bar on a terminal; None where nobody looks."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    with Progress(
        "checking", BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task("checking", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _verify(store: Store, entry: Entry) -> None:
    total, done = sum(output.size for output in entry.manifest.outputs), 0
    with _bar() as progress:

        def step(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(done, total)

        store.check_files(entry, full=True, progress=step)


def export_entry(store: Store, asked: argparse.Namespace) -> Answer:
    """Copy an entry's files and manifest into a new folder, for keeping or passing on."""
    entry = store.get(asked.key)
    _verify(store, entry)
    target = Path(asked.folder)
    try:
        shutil.copytree(entry.path, target)
    except FileExistsError:
        raise UsageProblem(f"{target} exists already", remedy="name a folder that does not exist yet") from None
    except OSError as error:
        raise StoreUnwritable(f"{target} cannot be written: {error}") from error
    return Answer(f"{_named(entry)} is in {target}", {"key": entry.digest, "folder": str(target)})


# Values as texts and as JSON


def _named(entry: Entry) -> str:
    return f"{entry.manifest.name} {entry.digest[:12]} ({size_text(entry.size)})"


def _brief(entry: Entry) -> dict[str, Json]:
    manifest, run = entry.manifest, entry.manifest.run
    return {
        "key": entry.digest,
        "name": manifest.name,
        "path": str(entry.path),
        "size": entry.size,
        "made": run.started,
        "seconds": run.seconds,
        "last_used": entry.last_used,
        "hits": entry.hits,
        "pinned": entry.pinned,
        "trusted": entry.trusted,
        "expires": entry.expires,
        "notebook": run.notebook,
        "outputs": [{"name": o.name, "kind": o.kind, "file": o.file, "size": o.size} for o in manifest.outputs],
    }


def _full(entry: Entry) -> dict[str, Json]:
    from prefect_cache.store.manifest import to_json

    return {**_brief(entry), "manifest": to_json(entry.manifest)}


def _problem(problem: Problem) -> Json:
    return {"path": str(problem.path), "what": problem.what, "name": problem.name, "size": problem.size}


# The words


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}\n  see `{self.prog} --help`\n")


def _parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="answer in JSON")
    where_else = "the store; else PREFECT_CACHE_DIR, else the user's cache folder"
    common.add_argument("--store", type=Path, metavar="FOLDER", help=where_else)
    parser = _Parser(
        prog="prefect-cache",
        description="See and clear what %%prefect_cache has stored.",
        epilog=f"{EXAMPLES}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(act: Command, *aliases: str) -> argparse.ArgumentParser:
        name = act.__name__.replace("_", "-")
        told = (act.__doc__ or "").strip()
        made = commands.add_parser(
            name,
            aliases=aliases,
            parents=[common],
            help=told.partition(".")[0].partition(";")[0].partition(":")[0].lower(),
            description=told,
            epilog=EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        made.set_defaults(command=act)
        return made

    listing = command(ls, "list")
    _take_results(listing)
    _take_storage(listing)
    listing.add_argument("--sort", choices=tuple(SORTS), default="used", help="by what to sort (default: used)")
    listing.add_argument("--limit", type=_count, default=50, metavar="N", help="how many to show; 0: all (default: 50)")
    for act in (show, why):
        command(act).add_argument("key", metavar="KEY", help=ADDRESS)
    evicting = command(evict, "rm")
    evicting.add_argument("keys", metavar="KEY", nargs="+", help=ADDRESS)
    evicting.add_argument("--all", action="store_true", help="where a KEY could be several entries, all of them")
    evicting.add_argument("--dry-run", action="store_true", help="say what would go; evict nothing")
    evicting.add_argument("--forever", action="store_true", help="remove at once; undo cannot bring it back")
    _take_storage(evicting)
    command(undo)
    for act in (pin, unpin):
        command(act).add_argument("key", metavar="KEY", help=ADDRESS)
    pruning = command(prune)
    _take_results(pruning)
    _take_storage(pruning)
    pruning.add_argument("--dry-run", action="store_true", help="say what would go; evict nothing")
    pruning.add_argument("--max-size", type=_size, metavar="5GB", help="the size limit; else one that suits the disk")
    pruning.add_argument(
        "--max-age", type=_span, metavar="30d", help="evict what was unused for longer (s, m, h, d, w)"
    )
    first = "what goes first: the cheapest to compute again for its size and age (value), or the longest unused (lru)"
    pruning.add_argument("--policy", choices=("value", "lru"), help=first)
    fix = "remove what is damaged, sweep leftovers, make the index again"
    command(check).add_argument("--fix", action="store_true", help=fix)
    command(stats)
    command(where)
    exporting = command(export_entry)
    exporting.add_argument("key", metavar="KEY", help=ADDRESS)
    exporting.add_argument("folder", metavar="FOLDER", help="a folder that does not exist yet")
    return parser


def _take_results(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--results",
        type=Path,
        nargs="?",
        const=results.default_folder(),
        metavar="FOLDER",
        help="the results that Prefect's own tasks stored in a folder (by default Prefect's), not the store",
    )


def _take_storage(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--storage",
        metavar="URL",
        help="the entries that a storage keeps, such as s3://bucket/cache or file:///mnt/team, not the store's",
    )


ADDRESS = "an entry's digest, the beginning of one, or its name"


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of entries")
    return int(text)


def _size(text: str) -> int:
    return int(_parsed(parse_size, text))


def _span(text: str) -> float:
    return _parsed(parse_span, text)


def _parsed(parse: Callable[[str], float], text: str) -> float:
    try:
        return parse(text)
    except UsageProblem as error:
        raise argparse.ArgumentTypeError(error.message) from None
