"""The first stage of the key: all that is known before a run and that its result depends on."""

from __future__ import annotations

import builtins
import functools
import glob
import importlib.metadata
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from prefect_cache.cells import loaded, standing, state
from prefect_cache.cells.analysis import tree_digest
from prefect_cache.cells.code import module_parts
from prefect_cache.cells.fingerprint import Fingerprinter, fingerprint
from prefect_cache.digests import combine, file_digest
from prefect_cache.errors import Unfingerprintable
from prefect_cache.model import FORMAT, Cell, Key, Observed, Options, Part

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ABSENT = combine("absent")
"""The digest of a name, variable or file that is not there."""

_SHELL_NAMES = frozenset({"get_ipython", "exit", "quit", "display"})
_RESTORING = ("pandas", "numpy", "pyarrow")


def key_for(
    cell: Cell, namespace: Mapping[str, object], options: Options, manner: str = ""
) -> tuple[Key, Fingerprinter]:
    """Return the key of a cell and the fingerprinter that has walked its inputs; `manner` is how the shell runs it.

    Names that count only where the namespace holds them when a run begins (``Cell.weak``) are not in it, see
    :func:`held`.

    Raises
    ------
    Unfingerprintable
        Where an input has no digest; its ``name`` is the input's.
    """
    found = Fingerprinter(namespace, ignore=options.ignore)
    names = [
        n for n in dict.fromkeys([*cell.reads, *options.inputs]) if n not in options.ignore and _is_input(n, namespace)
    ]
    inputs = [_input(found, n, namespace) for n in names if n not in cell.weak or n in options.inputs]
    found.add_magics(cell.magics)
    imported = [name.partition(".")[0] for name in cell.imports]
    packages = found.add_installed(cell.tree, ["builtins", *_RESTORING, *imported])
    reached = found.parts()
    inner = loaded.WATCH.state_parts({part.name for part in reached if part.kind == "module"})
    fixed = [*_fixed_parts(cell, namespace, options), *_shell(manner)]
    texts = [cell.python, *(str(part.detail) for part in reached if part.kind == "function")]
    parts = [*fixed, *inputs, *reached, *inner, *standing.parts(packages, texts), *_sharing(found)]
    unique = {(p.kind, p.name): p for p in parts}
    ordered = tuple(unique[at] for at in sorted(unique))
    flat = [text for p in ordered for text in (p.kind, p.name, p.digest)]
    return Key(combine("key", *flat), ordered), found


def held(cell: Cell, namespace: Mapping[str, object], options: Options, found: Fingerprinter) -> tuple[Observed, ...]:
    """Return the names on which a run depends because the namespace holds them when it begins.

    Such a name is bound by the cell before it is read, unless its older value may be read first. A run that begins
    without it depends on nothing; one that begins with it depends on its value.

    Raises
    ------
    Unfingerprintable
        Where such a value has no digest.
    """
    names = [n for n in cell.weak if n in namespace and n not in options.ignore and n not in options.inputs]
    for name in names:
        _input(found, name, namespace)
    return named(names, namespace)


def named(names: Iterable[str], namespace: Mapping[str, object]) -> tuple[Observed, ...]:
    """Return what names stand for now, to be verified before a hit.

    Raises
    ------
    Unfingerprintable
        Where one of the values has no digest.
    """
    return tuple(Observed("name", name, name_digest(namespace, name)) for name in names)


def name_digest(namespace: Mapping[str, object], name: str) -> str:
    """Return the digest of what a name stands for, :data:`ABSENT` where it is not bound."""
    return fingerprint(namespace[name], namespace) if name in namespace else ABSENT


def _is_input(name: str, namespace: Mapping[str, object]) -> bool:
    if name in _SHELL_NAMES:
        return False
    return name in namespace or not hasattr(builtins, name)


def _input(found: Fingerprinter, name: str, namespace: Mapping[str, object]) -> Part:
    if name not in namespace:
        return Part("input", name, ABSENT, "absent")
    try:
        print_ = found.add(name)
    except Unfingerprintable as error:
        raise Unfingerprintable(error.message, name=error.name or name, remedy=error.remedy) from error
    return Part("input", name, print_.digest, print_.detail)


def _sharing(found: Fingerprinter) -> list[Part]:
    pairs = sorted(repr(pair) for pair in (*found.shared, *found.overlaps))
    return [Part("sharing", "objects", combine("sharing", *pairs), [*pairs[:20]])] if pairs else []


def _fixed_parts(cell: Cell, namespace: Mapping[str, object], options: Options) -> list[Part]:
    """Return the parts that no input's value has to do with."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    parts = [
        Part("code", "", tree_digest(cell.tree)),
        Part("python", "", combine("python", sys.implementation.name, python), python),
        Part("format", "", combine("format", FORMAT), FORMAT),
        *(_package(name) for name in _RESTORING),
        *_imported(cell, namespace),
        *(_variable(name) for name in cell.environ),
        *(_files(pattern) for pattern in options.files),
        *state.key_parts(),
    ]
    if options.silenced:
        # The same tree as without the semicolon, but its last value is neither shown nor kept.
        parts.append(Part("options", "silenced", combine("silenced")))
    if options.outputs:
        wanted = sorted(options.outputs)
        parts.append(Part("options", "outputs", combine("outputs", *wanted), list(wanted)))
    return parts


def _imported(cell: Cell, namespace: Mapping[str, object]) -> list[Part]:
    parts = [part for module in cell.imports for part in module_parts(module, namespace)]
    return [*parts, *loaded.WATCH.state_parts({part.name for part in parts if part.kind == "module"})]


@functools.cache
def _package(name: str) -> Part:
    # What is restored depends on these even where the cell names none of them.
    version = importlib.metadata.version(name)
    return Part("package", name, combine("package", name, version), version)


def _shell(manner: str) -> list[Part]:
    return [Part("state", "shell", combine("shell", manner), manner)] if manner else []


def _variable(name: str) -> Part:
    value = os.environ.get(name)
    return Part(
        "environ", name, ABSENT if value is None else combine("variable", value), None if value is None else "set"
    )


def _files(pattern: str) -> Part:
    """Return a part for all files that a pattern of ``--files`` names now: which there are, and their content."""
    # glob.glob and not Path.glob: the pattern may be absolute, and stands in the key as the user wrote it.
    found = glob.glob(str(Path(pattern).expanduser()), recursive=True)  # noqa: PTH207
    paths = sorted(path for path in found if Path(path).is_file())
    digests = {path: file_digest(path)[0] for path in paths}
    flat = [text for path, digest in digests.items() for text in (path, digest)]
    return Part("files", pattern, combine("files", *flat), dict(digests))


def changed_files(key: Key) -> str:
    """Return the pattern of ``--files`` whose files are not what they were when the key was made, else nothing."""
    for part in key.parts:
        if part.kind == "files" and _files(part.name).digest != part.digest:
            return part.name
    return ""
