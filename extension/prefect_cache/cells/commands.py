"""What a magic or a shell line says: which variables, files and environment variables it names.

IPython turns ``%time f(x)`` and ``!cat {path}`` into calls that carry their text. Some of these texts are
Python (the body of ``%%time``), some expand variables (``{x}``, ``$x``), and some change
IPython itself, which a hit could not do again. What is not known here is read with care:
each word that is a variable's name counts as read.
"""

from __future__ import annotations

import re
import shlex
import string
from dataclasses import dataclass, field

PYTHON = frozenset(
    {"time", "timeit", "prun", "capture", "memit", "lprun", "mprun", "py_spy", "pyinstrument", "scalene"}
)
"""Magics whose text is Python that runs in the notebook's namespace."""

LOCAL = frozenset({"timeit", "memit"})
"""Those whose text runs inside a function: what it binds is gone afterwards."""

QUIET = frozenset({"capture"})
"""Those that let an error of their text pass."""

INERT = frozenset(
    {
        *(
            "cd",
            "pushd",
            "popd",
            "dhist",
            "pwd",
            "env",
            "set_env",
            "ls",
            "ll",
            "lf",
            "la",
            "cat",
            "mkdir",
            "rm",
            "rmdir",
        ),
        *("cp", "mv", "man", "less", "more", "system", "sx", "sc", "html", "HTML", "javascript", "js", "latex", "svg"),
        *("SVG", "markdown", "writefile", "file", "bash", "sh", "script", "ruby", "perl", "python", "python3", "pypy"),
        *("alias_magic", "pip", "conda", "uv", "mamba", "micromamba", "lsmagic", "magic", "quickref", "cmd"),
    },
)
"""Magics that see no variable but those that their line expands."""

SCRIPTS = frozenset(
    {"bash", "sh", "script", "ruby", "perl", "python", "python3", "python2", "pypy", "system", "sx", "cmd"}
)
"""Magics whose body is a program for another process."""

OUT_OF_SIGHT = {
    "run": "%run runs a file that binds variables out of sight",
    "load": "%load replaces the cell",
    "loadpy": "%loadpy replaces the cell",
    "recall": "%recall brings back an earlier cell",
    "rerun": "%rerun runs earlier cells",
    "rep": "%rep brings back an earlier cell",
    "macro": "%macro reads the history",
    "history": "%history reads the history",
    "hist": "%hist reads the history",
    "notebook": "%notebook reads the history",
    "save": "%save reads the history",
    "pastebin": "%pastebin reads the history",
    "store": "%store reads and binds variables out of sight",
    "pylab": "%pylab binds variables out of sight",
    "edit": "%edit opens an editor",
    "ed": "%ed opens an editor",
    "paste": "%paste runs what is on the clipboard",
    "cpaste": "%cpaste runs what is pasted",
    "reset": "%reset deletes variables out of sight",
    "reset_selective": "%reset_selective deletes variables out of sight",
    "xdel": "%xdel deletes a variable everywhere",
    "who": "%who lists all variables",
    "whos": "%whos lists all variables",
    "who_ls": "%who_ls lists all variables",
    "psearch": "%psearch lists variables",
    "pinfo": "the help pager cannot be shown again",
    "pinfo2": "the help pager cannot be shown again",
    "pdoc": "the help pager cannot be shown again",
    "pdef": "the help pager cannot be shown again",
    "psource": "the help pager cannot be shown again",
    "pfile": "the help pager cannot be shown again",
    "page": "the help pager cannot be shown again",
    "pycat": "the help pager cannot be shown again",
    "debug": "%debug asks the person",
    "tb": "%tb shows an earlier error",
    "prefect_cache": "%prefect_cache acts on the cache itself",
}
"""Magics that a hit cannot stand for, each with the reason."""

CHANGES_IPYTHON = frozenset(
    {
        *(
            "load_ext",
            "unload_ext",
            "reload_ext",
            "autoreload",
            "aimport",
            "matplotlib",
            "config",
            "colors",
            "gui",
            "xmode",
        ),
        *(
            "precision",
            "automagic",
            "autocall",
            "autoawait",
            "autoindent",
            "alias",
            "unalias",
            "rehashx",
            "pdb",
            "doctest_mode",
        ),
        *("pprint", "logstart", "logstop", "logon", "logoff", "logstate", "killbgscripts", "bookmark", "subshell"),
        *("connect_info", "qtconsole", "code_wrap"),
    },
)
"""Magics that change IPython itself."""

INSTALLERS = frozenset({"pip", "conda", "uv", "mamba", "micromamba"})

_WORD = re.compile(r"[^\W\d]\w*")
_SHELL_VARIABLE = re.compile(r"(?<!\$)\$(?:\{([^\W\d]\w*)[^}]*\}|([^\W\d]\w*))")
_DOLLAR = re.compile(r"(?<!\$)\$([^\W\d]\w*(?:\.[^\W\d]\w*)*)")
_OPTION = re.compile(r"\s*-(?:-[\w-]+(?:=\S+)?|[a-zA-Z]\w*)(?:\s+|$)")
_OPTION_WITH_VALUE = re.compile(r"\s*-[nrolsTDftmuc](?:\s*\d+(?=\s|$)|\s+\S+)(?:\s+|$)")
_VALUED = {"timeit": "nr", "prun": "lsTD", "memit": "rti", "lprun": "fmDTsu", "mprun": "fT"}


@dataclass(slots=True)
class Mentions:
    """What a text mentions.

    Attributes
    ----------
    expressions
        Pieces of Python that are evaluated in the namespace.
    names
        Words that may be variables' names.
    environ
        Environment variables.
    files
        Words that may name a file.
    """

    expressions: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    environ: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)


def expanded(line: str) -> Mentions:
    """Return what IPython expands in a line: ``{expression}`` and ``$name``."""
    found = Mentions(files=words(line))
    try:
        found.expressions = [expression for _, expression, _, _ in string.Formatter().parse(line) if expression]
    except ValueError:  # an unbalanced brace: IPython leaves such a line as it is, apart from $name
        found.names.update(_WORD.findall(line))
    for dotted in _DOLLAR.findall(line):
        found.names.add(dotted.partition(".")[0])
    found.environ = environment(line)
    return found


def environment(text: str) -> set[str]:
    """Return the environment variables that a shell would expand in `text`."""
    return {braced or plain for braced, plain in _SHELL_VARIABLE.findall(text)}


def words(text: str) -> set[str]:
    """Return the words of a shell line, each of which may name a file."""
    found: set[str] = set()
    for line in text.splitlines():
        try:
            tokens = shlex.split(line, comments=False)
        except ValueError:  # an open quotation mark
            tokens = line.split()
        for token in tokens:
            found.update(piece for piece in re.split(r"[<>|;&=]+", token) if piece)
    return found


def identifiers(text: str) -> set[str]:
    """Return all words of `text` that could be a variable's name."""
    return set(_WORD.findall(text))


def without_options(magic: str, line: str) -> tuple[str, str]:
    """Return a line magic's options and the Python behind them: ``-n 3 f(x)`` is ``-n 3`` and ``f(x)``."""
    valued, rest = _VALUED.get(magic, ""), line
    while rest.lstrip().startswith("-"):
        with_value = _OPTION_WITH_VALUE.match(rest)
        if with_value is None or rest.lstrip()[1] not in valued:
            with_value = _OPTION.match(rest)
        if with_value is None:
            break
        rest = rest[with_value.end() :]
    return line[: len(line) - len(rest)], rest.strip()


def bound_by_options(magic: str, line: str) -> set[str]:
    """Return the variables that a magic's own options bind: ``%%capture out``, ``%%bash --out text``."""
    if magic == "capture":
        return {word for word in line.split() if word.isidentifier()}
    if magic in SCRIPTS:
        return set(re.findall(r"--(?:out|err|proc)[ =]+([^\W\d]\w*)", line))
    if magic in {"timeit", "prun"} and (option := re.search(r"(?:^|\s)-r\s*([^\W\d]\w*)", line)):
        return {option[1]}
    return set()


def is_known(magic: str) -> bool:
    """Tell whether this file says what a magic of this name does."""
    return magic in {*PYTHON, *INERT, *SCRIPTS, *OUT_OF_SIGHT, *CHANGES_IPYTHON}


def reason(magic: str, line: str) -> str:
    """Return why a hit cannot stand for this magic, which may stand with its sign, or an empty text."""
    magic = magic.lstrip("%")
    if not magic:
        return "it runs a magic whose name is only known while the cell runs"
    if magic in OUT_OF_SIGHT:
        return OUT_OF_SIGHT[magic]
    if magic in CHANGES_IPYTHON:
        return f"%{magic} changes IPython itself"
    if magic in INSTALLERS and re.search(r"\b(install|uninstall|remove|update|upgrade|add|sync)\b", line):
        return f"%{magic} changes the installed packages"
    return ""
