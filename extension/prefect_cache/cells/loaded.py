"""The user's own modules in memory, and whether they are still what their source makes of them.

``import helper`` in a cell does one thing in a fresh kernel, another in one that has loaded ``helper`` before: there it
gives the module as it is now, with functions that may be older than the file and with
values that may have changed since. As long as a loaded module is what its present source would make of it, both are
the same, and its source stands for it in a key. Where it is not, the state that it has in memory is a part of
the key as well.

To know, :class:`ModuleWatch` looks at the modules that a run may import when they have just been executed. It also
tells whether a run changed one: a change that a hit would not do again.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefect_cache.cells.code import module_parts
from prefect_cache.cells.fingerprint import fingerprint
from prefect_cache.errors import Unfingerprintable
from prefect_cache.model import Part

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from prefect_cache.model import Digest


@dataclass(frozen=True, slots=True)
class _Fresh:
    """A module when it had just been executed: what its source was, and what that made of it."""

    source: tuple[Part, ...]
    state: Digest


class ModuleWatch(importlib.abc.MetaPathFinder):
    """Knows modules of the user's own as they were when they were executed."""

    def __init__(self) -> None:
        self._fresh: dict[str, _Fresh] = {}
        self._expected: frozenset[str] = frozenset()

    @contextlib.contextmanager
    def expecting(self, names: Iterable[str]) -> Iterator[None]:
        """Look at these modules if they are executed meanwhile."""
        self._expected = frozenset(names)
        sys.meta_path.insert(0, self)
        try:
            yield
        finally:
            sys.meta_path.remove(self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find an expected module as the other finders do; see to it that it is looked at once it has been executed."""
        if fullname not in self._expected:
            return None
        finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path if finder is not self)
        specs = (find(fullname, path, target) for find in finders if find is not None)
        spec: ModuleSpec | None = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                source = module_parts(fullname)
                self._fresh.pop(fullname, None)
                execute(module)
                if (state := _digest(module)) is not None:
                    self._fresh[fullname] = _Fresh(source, state)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def state_parts(self, names: Iterable[str]) -> list[Part]:
        """Return a part for each loaded module of which it is not known that its present source would make it so.

        Raises
        ------
        Unfingerprintable
            Where such a module has no digest.
        """
        return [_state(name) for name in names if name in sys.modules and not self._is_as_written(name)]

    def _is_as_written(self, name: str) -> bool:
        fresh = self._fresh.get(name)
        return fresh is not None and fresh.source == module_parts(name) and fresh.state == _digest(sys.modules[name])

    def states(self, names: Iterable[str]) -> dict[str, Digest]:
        """Return the state of each of these modules that is loaded."""
        found = ((name, _digest(sys.modules[name])) for name in names if name in sys.modules)
        return {name: state for name, state in found if state is not None}

    def changed(self, names: Iterable[str], before: Mapping[str, Digest]) -> str:
        """Return a module that is not as it was `before` (or when it was executed since), else nothing."""
        for name, state in self.states(names).items():
            fresh = self._fresh.get(name)
            earlier = before.get(name, fresh.state if fresh is not None else None)
            if earlier is not None and earlier != state:
                return name
        return ""


def reached(parts: Iterable[Part]) -> frozenset[str]:
    """Return the modules of the user's own that the parts of a key speak of."""
    found = set()
    for part in parts:
        if part.kind == "module":
            found.add(part.name)
        elif part.kind in {"input", "function"} and "." in part.name:
            found.add(part.name.rpartition(".")[0])
    return frozenset(found)


def _digest(module: ModuleType) -> Digest | None:
    try:
        return fingerprint(module)
    except Unfingerprintable:
        # A cell that imports it is told so when its key is made.
        return None


def _state(name: str) -> Part:
    return Part("state", f"module {name}", fingerprint(sys.modules[name]), "changed since it was imported")


WATCH = ModuleWatch()
"""The process's own watch: modules belong to the process."""
