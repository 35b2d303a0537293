"""Tab on our lines: options, sub-commands, the notebook's names, the entries' keys.

One matcher answers alone on a line of ours; otherwise Jedi's guesses at the same text would drown what it says.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any, Final, Protocol

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from . import arguments
from .errors import StoreError
from .panel.view import SORTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .capture import Shell
    from .store import Store

LINE: Final = re.compile(r"^\s*(%%?)prefect_cache\s+(.*)$")
"""A line of ours up to the cursor: the percent signs, and what follows the magic's name."""

SHOWN_KEYS: Final = 200
"""How many entries Tab offers, the last used first."""

LISTS: Final = frozenset({"-o", "--outputs", "-i", "--inputs", "--ignore"})
"""The cell's options that take the names of variables."""

OUTPUTS: Final = frozenset({"-o", "--outputs"})
KEYED: Final = frozenset({"show", "load", "why", "evict", "rm", "pin", "unpin"})
"""Sub-commands that take a key."""


class Notebook(Protocol):
    """What completion looks at."""

    shell: Shell

    @property
    def store(self) -> Store:
        """The store whose entries are offered."""


class Completions:
    """The matcher of one shell."""

    def __init__(self, notebook: Notebook) -> None:
        self._notebook = notebook

        def matcher(context: CompletionContext) -> SimpleMatcherResult:
            return self.complete(context)

        self.matcher = context_matcher(identifier="prefect_cache.completion", priority=100)(matcher)

    def install(self, shell: Shell) -> None:
        """Let the shell's completer ask us."""
        shell.Completer.custom_matchers.append(self.matcher)

    def remove(self, shell: Shell) -> None:
        """Let it ask us no more."""
        shell.Completer.custom_matchers.remove(self.matcher)

    def complete(self, context: CompletionContext) -> SimpleMatcherResult:
        """Return what may stand at the cursor, and alone where the line is ours."""
        line = LINE.match(context.text_until_cursor)
        if line is None or (line[1] == "%%" and context.full_text.split("\n")[: context.cursor_line] != []):
            return SimpleMatcherResult(completions=[], suppress=False)
        before, fragment = _last_word(line[2])
        if line[1] == "%%":
            found = self._of_cell(before, fragment, context.full_text)
        else:
            found = self._of_line(before, fragment)
        listed = fragment.rpartition(",")[2] if before and before[-1] in LISTS else fragment
        fitting = [completion for completion in found if completion.text.startswith(listed)]
        return SimpleMatcherResult(completions=fitting, matched_fragment=listed, suppress=True)

    def _of_cell(self, before: list[str], fragment: str, text: str) -> Iterable[SimpleCompletion]:
        last = before[-1] if before else ""
        if last in LISTS:
            present = self._names()
            return _complete([*_assigned(text), *present] if last in OUTPUTS else present, "variable")
        if fragment.startswith("-"):
            return _complete(_left(arguments.options_of(arguments.cell_parser()), before), "option")
        return _complete(_long(arguments.cell_parser(), before), "option")

    def _of_line(self, before: list[str], fragment: str) -> Iterable[SimpleCompletion]:
        parsers = arguments.line_parsers()
        if not before:
            return _complete([*parsers, *arguments.ALIASES], "sub-command")
        command = arguments.ALIASES.get(before[0], before[0])
        parser = parsers.get(command)
        if parser is None:
            return []
        if fragment.startswith("-"):
            return _complete(_left(arguments.options_of(parser), before), "option")
        if command == "auto":
            return _complete(["on", "off"], "state")
        if command == "list" and before[-1] == "--sort":
            return _complete(SORTS, "column")
        return _complete(self._keys(), "entry") if command in KEYED else _complete(_long(parser, before), "option")

    def _names(self) -> list[str]:
        shell = self._notebook.shell
        hidden = shell.user_ns_hidden
        return sorted(name for name in shell.user_ns if not name.startswith("_") and name not in hidden)

    def _keys(self) -> list[str]:
        """Return names and digests of the entries, a name in quotes where it needs them."""
        try:
            entries = self._notebook.store.catalog(SHOWN_KEYS).entries
        except (StoreError, OSError):  # no store, no keys: Tab is no place to say why
            return []
        named = dict.fromkeys(entry.manifest.name for entry in entries)
        plain = [name for name in named if re.fullmatch(r"[\w.-]+", name)]
        return [*plain, *(entry.digest[:8] for entry in entries)]


def _last_word(text: str) -> tuple[list[str], str]:
    """Return the words before the cursor's and the beginning of that one."""
    *before, last = text.split(" ")
    return [word for word in before if word], last


def _complete(texts: Iterable[str], kind: str) -> list[SimpleCompletion]:
    return [SimpleCompletion(text, type=kind) for text in dict.fromkeys(texts)]


def _left(options: Iterable[str], before: list[str]) -> list[str]:
    """Return the options that the line does not have yet, those that may be repeated in any case."""
    repeated = {"-f", "--files"}
    return [option for option in options if option not in before or option in repeated]


def _long(parser: arguments.Parser, before: list[str]) -> list[str]:
    return [option for option in _left(arguments.options_of(parser), before) if option.startswith("--")]


def _assigned(text: str) -> list[str]:
    """Return the names that the cell's body binds at any level, as far as it can be read while it is being written."""
    body = "\n".join(line for line in text.split("\n")[1:] if not line.lstrip().startswith(("%", "!")))
    try:
        tree = ast.parse(body)
    except (SyntaxError, ValueError):
        return []
    return list(_stores(tree))


def _stores(tree: ast.AST) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found[node.id] = None
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[node.name] = None
    return found
