"""The first stage of the key: all that is known before a run and that its result depends on."""

from __future__ import annotations

import builtins
import functools
import glob
import importlib.metadata
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefect_cache.cells import state
from prefect_cache.cells.analysis import tree_digest
from prefect_cache.cells.code import module_parts
from prefect_cache.cells.fingerprint import Fingerprinter
from prefect_cache.digests import combine, file_digest
from prefect_cache.errors import Unfingerprintable
from prefect_cache.model import FORMAT, Cell, Key, Options, Part

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ABSENT = combine("absent")
"""The digest of a name, variable or file that is not there."""

_SHELL_NAMES = frozenset({"get_ipython", "exit", "quit", "display"})
_RESTORING = ("pandas", "numpy", "pyarrow")


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys under which a cell's run may be found, and what was met while they were made.

    Attributes
    ----------
    exact
        Depends on every input that the namespace holds: a run is stored under it.
    spare
        Leaves out the names that count only where the namespace holds them (``Cell.weak``): a run
        that began without those names depends on none of them. None where no such name is held.
    found
        The fingerprinter that has walked the inputs.
    """

    exact: Key
    spare: Key | None
    found: Fingerprinter


def keys_for(cell: Cell, namespace: Mapping[str, object], options: Options) -> Keys:
    """Return the keys of a cell.

    Raises
    ------
    Unfingerprintable
        Where an input has no digest; its ``name`` is the input's.
    """
    found = Fingerprinter(namespace, ignore=options.ignore)
    reads = dict.fromkeys([*cell.reads, *options.inputs])
    names = [n for n in reads if n not in options.ignore and _is_input(n, namespace)]
    weak = [n for n in names if n in cell.weak and n not in options.inputs]
    fixed = _fixed_parts(cell, namespace, options)
    strong = [_input(found, n, namespace) for n in names if n not in weak]
    lean = [*strong, *found.parts(), *_sharing(found)]
    spare = None
    held = [n for n in weak if n in namespace]
    if held:
        spare = _key([*fixed, *lean])
        strong += [_input(found, n, namespace) for n in held]
        lean = [*strong, *found.parts(), *_sharing(found)]
    return Keys(_key([*fixed, *lean]), spare, found)


def _key(parts: Iterable[Part]) -> Key:
    unique = {(p.kind, p.name): p for p in parts}
    ordered = tuple(unique[at] for at in sorted(unique))
    flat = [text for p in ordered for text in (p.kind, p.name, p.digest)]
    return Key(combine("key", *flat), ordered)


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
        *(part for module in cell.imports for part in module_parts(module, namespace)),
        *(_variable(name) for name in cell.environ),
        *(_files(pattern) for pattern in options.files),
        *state.key_parts(),
    ]
    if options.outputs:
        wanted = sorted(options.outputs)
        parts.append(Part("options", "outputs", combine("outputs", *wanted), list(wanted)))
    return parts


@functools.cache
def _package(name: str) -> Part:
    # What is restored depends on these even where the cell names none of them.
    version = importlib.metadata.version(name)
    return Part("package", name, combine("package", name, version), version)


def _variable(name: str) -> Part:
    value = os.environ.get(name)
    return Part("environ", name, ABSENT if value is None else combine("variable", value), None if value is None else "set")


def _files(pattern: str) -> Part:
    """Return a part for all files that a pattern of ``--files`` names now: which there are, and their content."""
    paths = sorted(p for p in glob.glob(os.path.expanduser(pattern), recursive=True) if os.path.isfile(p))
    digests = {path: file_digest(path)[0] for path in paths}
    flat = [text for path, digest in digests.items() for text in (path, digest)]
    return Part("files", pattern, combine("files", *flat), dict(digests))


def changed_files(key: Key) -> str:
    """Return the pattern of ``--files`` whose files are not what they were when the key was made, else nothing."""
    for part in key.parts:
        if part.kind == "files" and _files(part.name).digest != part.digest:
            return part.name
    return ""

