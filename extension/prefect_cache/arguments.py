"""The words of the magics' lines: what may be said, read into values.

One parser for the line over a cell and one for each sub-command. They speak no abbreviations, never exit, and say by
`UsageProblem` what they cannot read. Their options are also what Tab completes and what the help shows.
"""

from __future__ import annotations

import argparse
import difflib
import keyword
import math
import os
import re
import shlex
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from .errors import UsageProblem
from .panel.view import SORTS
from .units import parse_size

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from .model import Options

SPANS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


KEY: Final = "an entry's name, or the first digits of its digest"
STORAGE: Final = "of a storage, such as s3://bucket/cache or file:///mnt/team, instead of the store"


class Parser(argparse.ArgumentParser):
    """An argument parser for people at a prompt: no abbreviations, no exit, `UsageProblem` for what is wrong."""

    def __init__(self, prog: str, *, description: str = "", epilog: str = "") -> None:
        super().__init__(
            prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=False,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
        )
        self.add_argument("-h", "--help", action="store_true", help="show this help and do nothing else")

    def error(self, message: str) -> NoReturn:
        """Raise `UsageProblem`, naming the option that was probably meant."""
        unknown = re.match(r"unrecognized arguments: (--?[\w-]+)", message)
        meant = difflib.get_close_matches(unknown[1], options_of(self), n=1) if unknown else []
        hint = f" Did you mean {meant[0]}?" if meant else f" See `{self.prog} --help`."
        raise UsageProblem(f"{self.prog}: {message}.{hint}")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Raise `UsageProblem`: nothing said in a cell may end the kernel."""
        raise UsageProblem((message or f"{self.prog} ended with {status}").strip())


def cell_parser() -> Parser:
    """Return the parser of the line over a cell."""
    parser = Parser(prog="%%prefect_cache", epilog=CELL_EXAMPLES)
    say = parser.add_argument
    say("name", nargs="?", metavar="NAME", help="what to call the entry; else its first output names it")
    say("-o", "--outputs", action="extend", type=names, metavar="a,b", help="store only these names")
    say("-i", "--inputs", action="extend", type=names, metavar="x,y", help="also depend on these names")
    say("--ignore", action="extend", type=names, metavar="z", help="leave these names out of the key")
    say("-f", "--files", action="append", metavar="GLOB", help="also depend on these files; may be repeated")
    say("--ttl", type=span, metavar="12h", help="the entry expires after this time (s, m, h, d, w)")
    say("--refresh", action="store_true", help="run the cell and replace the entry")
    say("--retries", type=count, metavar="N", help="try the task again so many times when it raises")
    say("--retry-delay", type=delay, metavar="S", help="wait so long between the tries")
    say("--timeout", type=span, metavar="S", help="stop the task after this time")
    say("--tags", action="extend", type=words, metavar="t1,t2", help="tags of the Prefect task run")
    say("--artifact", action="store_true", help="show a preview of each frame with the run on the Prefect server")
    say("--submit", action="store_true", help="run it on the cluster that %%config PrefectCache.task_runner names")
    say("--pin", action="store_true", help="never prune the entry")
    say("--explain", action="store_true", help="say whether it would be restored, and why; run nothing")
    say("--storage", metavar="S", help="share the entry by s3://bucket/cache, file:///mnt/team or a Prefect block")
    say("-q", "--quiet", action="store_true", help="no status line")
    # Written by `magics.Auto` and `runner.Awaiting`, not by people.
    say("--auto", type=delay, help=argparse.SUPPRESS)
    say("--awaited", action="store_true", help=argparse.SUPPRESS)
    return parser


CELL_EXAMPLES: Final = """\
examples:
  %%prefect_cache
  %%prefect_cache orders --ttl 12h
  %%prefect_cache -o model --ignore conn,engine --retries 3 --retry-delay 10
  %%prefect_cache -f 'data/*.csv' --pin
  %%prefect_cache --explain
"""


def line_parsers() -> dict[str, Parser]:
    """Return the parser of each sub-command, in the order in which the help lists them."""
    made: dict[str, Parser] = {}

    def command(name: str, description: str) -> Parser:
        made[name] = Parser(prog=f"%prefect_cache {name}", description=description)
        return made[name]

    command("panel", "browse, preview and evict what is cached")
    say = command("list", "list the entries; words, size>1GB and unused>7d choose").add_argument
    say("search", nargs="*", metavar="WORD", default=[], help="part of a name, column or notebook; size>1GB; unused>7d")
    say("--sort", choices=SORTS, default="used", metavar="BY", help=f"sort by {', '.join(SORTS)}; the largest first")
    say("--storage", metavar="URL", help=STORAGE)
    command("show", "all about one entry: code, inputs, files, how to open them").add_argument(
        "key", metavar="KEY", help=KEY
    )
    say = command("load", "bring an entry's values into the notebook").add_argument
    say("key", metavar="KEY", help=KEY)
    say("-o", "--output", metavar="NAME", help="only this value; NAME=other loads it under another name")
    say("--overwrite", action="store_true", help="also where the notebook has that name already")
    say = command("why", "why the last cell ran, or how an entry differs from the one before it").add_argument
    say("key", nargs="?", metavar="KEY", help=KEY)
    say = command("evict", "take entries out of the store").add_argument
    say("keys", nargs="+", metavar="KEY", help=KEY)
    say("--storage", metavar="URL", help=STORAGE)
    command("undo", "bring back what was evicted last")
    command("pin", "never prune an entry").add_argument("key", metavar="KEY", help=KEY)
    command("unpin", "let an entry be pruned again").add_argument("key", metavar="KEY", help=KEY)
    say = command("prune", "evict what retention says").add_argument
    say("--dry-run", action="store_true", help="only say what would go, and what that frees")
    say("--max-age", type=span, metavar="30d", help="evict what was unused for longer; else as %%config says")
    say("--max-size", type=size, metavar="5GB", help="the size limit; else as %%config says")
    say("--storage", metavar="URL", help=STORAGE)
    say = command("check", "read every file and compare it with its digest").add_argument
    say("--fix", action="store_true", help="remove what is damaged")
    command("stats", "hits, misses by cause, time saved, bytes")
    command("where", "the store's folder, its size and its limit")
    say = command("auto", "cache every cell that takes long, without touching it").add_argument
    say("state", nargs="?", choices=("on", "off"), help="else: say which")
    say("--min-seconds", type=delay, metavar="S", help="what runs no longer than this is not stored (2)")
    command("export", "write the cached cells as a Prefect flow").add_argument(
        "file", metavar="FILE", help="the script to write"
    )
    command("config", "the settings, and how to change them")
    command("help", "this help")
    return made


ALIASES: Final = {"ls": "list", "rm": "evict"}


class CellLine(NamedTuple):
    """What the line over a cell says; `awaited`: IPython awaits what the magic returns."""

    options: Options
    help: bool = False
    awaited: bool = False


def read_cell(line: str, defaults: Options) -> CellLine:
    """Return what the line over a cell asks for, `defaults` where it does not say."""
    said = vars(cell_parser().parse_args(split(line)))
    wants_help, awaited = said.pop("help", False), said.pop("awaited", False)
    if "auto" in said:
        said["min_seconds"] = said.pop("auto")
    lists = ("outputs", "inputs", "ignore", "files", "tags")
    values = {name: tuple(dict.fromkeys(value)) if name in lists else value for name, value in said.items()}
    return CellLine(defaults.replace(**values), wants_help, awaited)


def read_line(line: str) -> tuple[str, argparse.Namespace]:
    """Return the sub-command that a line names and its arguments; no word at all is ``panel``."""
    first, *rest = split(line) or ["panel"]
    name = ALIASES.get(first, first)
    if first in ("-h", "--help"):
        name, rest = "help", []
    parsers = line_parsers()
    if name not in parsers:
        meant = difflib.get_close_matches(name, [*parsers, *ALIASES], n=1)
        hint = f"did you mean {meant[0]}?" if meant else "see `%prefect_cache help`"
        cell = " Options go over a cell, with two percent signs." if first.startswith("-") else ""
        raise UsageProblem(f"%prefect_cache has no sub-command {first!r}: {hint}.{cell}")
    return name, parsers[name].parse_args(rest)


def split(line: str) -> list[str]:
    """Return a line's words, without their quotes."""
    try:
        return shlex.split(line, posix=os.name == "posix")
    except ValueError as error:
        raise UsageProblem(f"{line!r} cannot be read: {str(error).lower()}") from error


def options_of(parser: argparse.ArgumentParser) -> list[str]:
    """Return the options that a parser knows and people may write, in order."""
    shown = (action for action in parser._actions if action.help is not argparse.SUPPRESS)  # noqa: SLF001 - no public way
    return [option for action in shown for option in action.option_strings]


def names(text: str) -> list[str]:
    """Return the variables of ``a,b``."""
    found = words(text)
    for name in found:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise argparse.ArgumentTypeError(f"{name!r} is no variable's name")
    return found


def words(text: str) -> list[str]:
    """Return the words of ``a,b``."""
    return [word for word in (part.strip() for part in text.split(",")) if word]


def count(text: str) -> int:
    """Return a whole number that is not negative."""
    if not re.fullmatch(r"\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def span(text: str) -> float:
    """Return the seconds of ``90``, ``12h`` or ``1h30m``; more than none."""
    seconds = delay(text)
    if not seconds:
        raise argparse.ArgumentTypeError(f"{text!r} is no time at all")
    return seconds


def delay(text: str) -> float:
    """Return the seconds of ``0``, ``2.5``, ``10s`` or ``1h30m``."""
    plain = text.strip().lower().replace(" ", "")
    if re.fullmatch(r"\d+(\.\d+)?", plain):
        return float(plain)
    if not re.fullmatch(r"(\d+(\.\d+)?[smhdw])+", plain):
        message = f"{text!r} is no time span; write 90s, 30m, 12h, 7d or 2w, or seconds"
        raise argparse.ArgumentTypeError(message)
    return math.fsum(float(number) * SPANS[unit] for number, _, unit in re.findall(r"(\d+(\.\d+)?)([smhdw])", plain))


def size(text: str) -> int:
    """Return the bytes of ``5GB``."""
    try:
        return int(parse_size(text))
    except UsageProblem as error:
        raise argparse.ArgumentTypeError(error.message) from None


def missing(wanted: Iterable[str], present: Collection[str]) -> None:
    """Raise `UsageProblem` for a name that the notebook does not have, naming those that it may be meant for."""
    for name in wanted:
        if name in present:
            continue
        near = difflib.get_close_matches(name, [n for n in present if not n.startswith("_")], n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "the notebook has no such name"
        raise UsageProblem(f"--inputs {name}: there is no {name!r}; {hint}")


def help_text() -> str:
    """Return the help of both magics: options, sub-commands, examples."""
    parsers = line_parsers()
    also = {name: f" ({alias})" for alias, name in ALIASES.items()}
    listed = [(_usage(parser) + also.get(name, ""), parser.description or "") for name, parser in parsers.items()]
    width = max(len(usage) for usage, _ in listed)
    commands = "\n".join(f"  {usage.ljust(width)}  {text}" for usage, text in listed)
    cell = cell_parser().format_help()
    return f"{_INTRODUCTION}\n{cell}\nsub-commands:\n{commands}\n\n{_CLOSING}"


def _usage(parser: Parser) -> str:
    usage = parser.format_usage().removeprefix("usage: ").replace("[-h] ", "").replace("[-h]", "")
    return " ".join(usage.split())


_INTRODUCTION: Final = """\
Run a cell as a Prefect task and store what it did; the next time, restore that instead of running it.

A cell is restored when its code, the values of all that it reads, the helpers that it reaches, the files that it
opened and the versions of its packages are what they were. One line under the cell says what happened and why.
"""

_CLOSING: Final = """\
KEY is an entry's name, or the first digits of its digest, as `%prefect_cache list` shows them.
`%config PrefectCache` shows and sets the defaults. `prefect_cache.last` is the last cell's outcome.
"""
