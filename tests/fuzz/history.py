"""What a person does with a notebook, as a value: cells run, edited and run again, restarts, files that change.

A history has a text form that people read and the found ones are kept in::

    # a comment
    --- run cached
    xs = [1]
    --- restart
    --- write in.txt
    other text
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    """One cell is run; `statements` are what shrinking may take out one by one."""

    statements: tuple[str, ...]
    cached: bool = True
    options: str = ""

    @property
    def source(self) -> str:
        """The cell as it is in a plain notebook."""
        return "\n".join(self.statements)

    @property
    def cached_source(self) -> str:
        """The cell as it is in the cached notebook."""
        return f"%%prefect_cache -q {self.options}".rstrip() + f"\n{self.source}" if self.cached else self.source


@dataclass(frozen=True, slots=True)
class Restart:
    """The kernel is restarted; the next thing to run is the notebook's imports."""


@dataclass(frozen=True, slots=True)
class Write:
    """Somebody else writes a file in the notebook's folder."""

    file: str
    text: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Somebody else removes a file in the notebook's folder."""

    file: str


Step = Run | Restart | Write | Remove
History = tuple[Step, ...]

_HEAD = re.compile(r"^--- (run|restart|write|remove)\b ?(.*)$", re.MULTILINE)


def to_text(history: History, comment: str = "") -> str:
    """Write a history as text."""
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    for step in history:
        match step:
            case Run(cached=cached, options=options):
                lines += [f"--- run {'cached' if cached else 'plain'} {options}".rstrip(), step.source]
            case Restart():
                lines.append("--- restart")
            case Write(file, text):
                lines += [f"--- write {file}", text]
            case Remove(file):
                lines.append(f"--- remove {file}")
    return "\n".join(lines) + "\n"


def from_text(text: str) -> History:
    """Read a history; each cell is one statement, which is all that replaying needs."""
    pieces = _HEAD.split(text)[1:]
    return tuple(_step(verb, words.strip(), body[1:-1]) for verb, words, body in zip(*[iter(pieces)] * 3, strict=True))


def _step(verb: str, words: str, body: str) -> Step:
    match verb:
        case "run":
            how, _, options = words.partition(" ")
            return Run((body,), how == "cached", options)
        case "restart":
            return Restart()
        case "write":
            return Write(words, body)
        case _:
            return Remove(words)
