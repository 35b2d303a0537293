"""A scenario: a few cells as a user would write them, and what the cache must do at each.

Scenarios are text, one file for an area::

    === a comment is edited
    --- cell
    x = 2
    --- miss
    y = x + 1
    --- hit
    y = x + 1  # one more
    --- restart
    --- cell
    x = 2
    --- hit

``cell`` is a plain cell; ``miss``, ``hit``, ``bypass``, ``failed`` and ``refresh`` are cells with
``%%prefect_cache``, and what must come of them; options may follow. ``error`` is one that never comes to run.
A cell without code is the last one of its kind once more. ``write FILE`` and ``remove FILE`` are somebody
else's doing, ``restart`` is a fresh kernel. ``check`` is run in the cached notebook alone and must not raise:
for scenarios marked ``(chance)`` in their title, whose values differ in each run, that is all there is to
check. In all others, values, displays and errors must be those of a notebook that runs the same cells without
the cache. Scenarios marked ``(needs torch)``, say, are played where that is installed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
AREAS = ("code", "values", "namespace", "display", "files", "syntax", "losslessness")
CACHED = frozenset({"miss", "hit", "bypass", "failed", "refresh", "error"})
OTHERS = frozenset({"cell", "check", "write", "remove", "restart"})

_NEEDS = re.compile(r"\(needs (\w+)\)")
_STEP = re.compile(r"^--- (\w+) ?(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens: `verb` and `words` as in the text, `body` the code or text."""

    verb: str
    words: str
    body: str

    @property
    def cached(self) -> bool:
        """Whether it is a cell with the magic."""
        return self.verb in CACHED

    @property
    def source(self) -> str:
        """The cell as it stands in the cached notebook."""
        return f"%%prefect_cache -q {self.words}".rstrip() + f"\n{self.body}" if self.cached else self.body


@dataclass(frozen=True, slots=True)
class Story:
    """One scenario."""

    area: str
    title: str
    steps: tuple[Step, ...]
    chance: bool = False

    @property
    def id(self) -> str:
        """Its name for the table and for tests."""
        return f"{self.area}: {self.title}"


def stories() -> tuple[Story, ...]:
    """Return all scenarios that can be played here, area by area."""
    all_ = (story for area in AREAS for story in parse(area, (HERE / f"{area}.txt").read_text()))
    return tuple(story for story in all_ if all(find_spec(needed) for needed in _NEEDS.findall(story.title)))


def parse(area: str, text: str) -> Iterator[Story]:
    """Read the scenarios of one area."""
    for piece in re.split(r"^=== ", text, flags=re.MULTILINE)[1:]:
        title, _, rest = piece.partition("\n")
        chance = title.endswith(" (chance)")
        yield Story(area, title.removesuffix(" (chance)"), tuple(_steps(rest)), chance)


def _steps(text: str) -> Iterator[Step]:
    last = {True: "", False: ""}
    pieces = _STEP.split(text)[1:]
    for verb, words, raw in zip(*[iter(pieces)] * 3, strict=True):
        if verb not in CACHED | OTHERS:
            raise ValueError(f"no step of a scenario: {verb}")
        body = raw.strip("\n")
        if verb in CACHED or verb == "cell":
            body = body or last[verb in CACHED]
            last[verb in CACHED] = body
        yield Step(verb, words.strip(), body)
