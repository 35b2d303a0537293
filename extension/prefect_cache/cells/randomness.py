"""The global generators of ``random``, ``numpy.random`` and torch: was one seeded, did a run depend on it.

Drawing from a generator that nobody seeded gives another result in each session, which is why one
caches it: such draws are frozen. Drawing from a generator that the notebook seeded gives the same
result each time, as long as the same draws came before: there the state is an input. So it is with
torch's, which begins with the same seed in every process.

Nobody tells when a generator is seeded, so :class:`RandomWatch` looks at cell
boundaries whether the present state can be reached from the last one by drawing. If not, somebody
seeded it. What cannot be told within bounds counts as seeded: then the cell runs once more
than needed, no more.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import random
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from prefect_cache import digests
from prefect_cache.cells.standins import StandIn
from prefect_cache.model import Observed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from prefect_cache.model import Digest

Name = Literal["random", "numpy.random", "torch"]
NAMES: tuple[Name, ...] = ("random", "numpy.random", "torch")


class _Ways(NamedTuple):
    """The functions of a generator's module that give its whole state and put it back, and those that seed it."""

    get: str
    put: str
    seeding: tuple[str, ...]


_WAYS: Mapping[Name, _Ways] = {
    "random": _Ways("getstate", "setstate", ("seed", "setstate")),
    "numpy.random": _Ways("get_state", "set_state", ("seed", "set_state")),
    "torch": _Ways("get_rng_state", "set_rng_state", ("manual_seed", "seed", "set_rng_state")),
}

UNSEEDED = digests.combine("random", "unseeded")
"""The digest that stands for the state of a generator that nobody seeded."""

MAX_SECONDS = 0.05
"""How long to draw, to find out whether one state follows from another: some 2.5 million numbers."""

_WORDS = 624
_BITS = 32 * _WORDS
_PYTHON_VERSION = 3


@dataclass(frozen=True, slots=True)
class State:
    """A Mersenne Twister's words, position and leftovers; `words` is empty for any other generator."""

    words: tuple[int, ...]
    position: int
    rest: str

    @property
    def digest(self) -> Digest:
        """What the state is in a key."""
        words = b"".join(word.to_bytes(4, "little") for word in self.words)
        return digests.combine("random", words, self.position, self.rest)

    def reaches(self, later: State) -> bool:
        """Tell whether drawing leads from here to `later`, as far as that can be found out in short time."""
        if not self.words or not later.words:
            return self == later
        if self.words == later.words:
            return self.position <= later.position
        twister = random.Random()  # noqa: S311 - to draw from a known state is the purpose
        twister.setstate((_PYTHON_VERSION, (*self.words, _WORDS), None))
        deadline = time.monotonic() + MAX_SECONDS
        while time.monotonic() < deadline:
            for _ in range(100):
                twister.getrandbits(_BITS)
                if twister.getstate()[1][:_WORDS] == later.words:
                    return True
        return False


def whole(name: Name) -> Any:
    """Return a generator's state as its module gives it; None where that is not loaded."""
    get = getattr(sys.modules.get(name), _WAYS[name].get, None)  # a module that is being imported may lack it still
    return None if get is None else get()


def put_whole(name: Name, state: Any) -> None:
    """Put back what :func:`whole` gave."""
    getattr(importlib.import_module(name), _WAYS[name].put)(state)


def take(name: Name) -> State | None:
    """Return a generator's state now; None where its module is not loaded."""
    told = whole(name)
    if told is None:
        return None
    if name == "random":
        _, internal, gauss = told
        return State(tuple(internal[:_WORDS]), internal[_WORDS], repr(gauss))
    if name == "torch":
        return State((), 0, digests.combine("torch", told.numpy().tobytes()))
    if not isinstance(told, tuple):  # somebody put in another kind of generator
        return State((), 0, repr(told))
    _, words, position, has_gauss, gauss = told
    return State(tuple(words.tolist()), int(position), repr((int(has_gauss), float(gauss))))


@dataclass(slots=True)
class _Generator:
    name: Name
    seeded: bool = False
    last: State | None = None

    def look(self) -> None:
        """Bring up to date what is known."""
        state = take(self.name)
        if state == self.last:
            return
        # A module that came without being noticed may have been seeded at once: that cannot be told.
        self.seeded = self.seeded or self.last is None or not self.last.reaches(state or self.last)
        self.last = state


@dataclass(slots=True)
class _Seeding:
    """What a run did through ``seed`` and ``setstate``."""

    first: bool
    """Whether nothing had been drawn before."""
    known: bool
    """Whether the last seeding gave a seed (``seed()`` takes one from the system)."""


class RandomWatch:
    """Who seeded what, in this process."""

    def __init__(self) -> None:
        self._generators = {name: _Generator(name) for name in NAMES}
        self._before: dict[Name, State | None] = {}
        self._seedings: dict[Name, _Seeding] = {}
        self._standins: list[StandIn] = []
        self._running = False
        self._finder = _WhenImported("numpy.random", self._arrived)

    def start(self, *, seeded: bool = False) -> None:
        """Take the present states as unseeded (or, where nobody can tell, as seeded), and later numpy's as well."""
        for generator in self._generators.values():
            generator.seeded, generator.last = seeded or generator.name == "torch", take(generator.name)
        if "numpy.random" not in sys.modules and self._finder not in sys.meta_path:
            sys.meta_path.insert(0, self._finder)

    def stop(self) -> None:
        """Leave no trace."""
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)

    def _arrived(self, module: ModuleType) -> None:
        generator = self._generators["numpy.random"]
        generator.seeded, generator.last = False, take("numpy.random")
        if self._running:
            self._before["numpy.random"] = generator.last
            self._listen(module, "numpy.random")

    def look(self) -> None:
        """Find out whether somebody seeded a generator since the last time; to be called around cells."""
        for generator in self._generators.values():
            generator.look()

    def states(self) -> dict[Name, Any]:
        """Return the whole state of each generator that the notebook seeded, for a process elsewhere."""
        self.look()
        found = {name: whole(name) for name in NAMES if self.seeded(name)}
        return {name: state for name, state in found.items() if state is not None}

    def take_over(self, states: Mapping[Name, Any]) -> None:
        """Let this process's generators stand where those of another stand; the others count as unseeded."""
        self.start()
        for name, state in states.items():
            put_whole(name, state)
            self._generators[name].seeded, self._generators[name].last = True, take(name)

    def seeded(self, name: Name) -> bool:
        """Tell whether the notebook seeded this generator."""
        return self._generators[name].seeded

    def digest(self, name: Name) -> Digest:
        """Return what a run that draws from this generator now depends on."""
        generator = self._generators[name]
        generator.look()
        return generator.last.digest if generator.seeded and generator.last is not None else UNSEEDED

    # around a run

    def begin(self) -> None:
        """Note the states before a run and listen for seedings."""
        self.look()
        self._before = {name: generator.last for name, generator in self._generators.items()}
        self._seedings, self._running = {}, True
        for name in NAMES:
            if (module := sys.modules.get(name)) is not None:
                self._listen(module, name)

    def end(self) -> tuple[Observed, ...]:
        """Return what the run depended on; bring the watch up to date."""
        while self._standins:
            self._standins.pop().remove()
        self._running = False
        found = tuple(self._dependencies())
        for name, seeding in self._seedings.items():
            generator = self._generators[name]
            generator.seeded, generator.last = seeding.known, take(name)
        self.look()
        return found

    def restored(self, observed: Iterable[Observed]) -> None:
        """Note that a hit put states back: those of runs that froze unseeded draws stay unseeded."""
        frozen = {seen.kind for seen in observed if seen.digest == UNSEEDED}
        for name, generator in self._generators.items():
            state = take(name)
            if state != generator.last:
                generator.seeded, generator.last = name not in frozen, state

    def _dependencies(self) -> Iterable[Observed]:
        for name, before in self._before.items():
            seeding = self._seedings.get(name)
            # Seeded to where it stood, a hit would have nothing to do again: right where it stands there again.
            stayed = take(name) == before
            if before is None or (stayed if seeding is None else not stayed and seeding.first and seeding.known):
                continue
            seeded = self._generators[name].seeded
            yield Observed(name, name, before.digest if seeded else UNSEEDED)

    def _listen(self, module: ModuleType, name: Name) -> None:
        for function in _WAYS[name].seeding:
            if not hasattr(module, function):
                continue  # it is being imported
            standin = StandIn(module, function, partial(self._noting, name))
            standin.install()
            self._standins.append(standin)

    def _noting(self, name: Name, *args: object, **kwargs: object) -> None:
        earlier = self._seedings.get(name)
        first = earlier.first if earlier is not None else take(name) == self._before.get(name)
        known = any(value is not None for value in (*args, *kwargs.values()))
        self._seedings[name] = _Seeding(first, known)


class _WhenImported(importlib.abc.MetaPathFinder):
    """Calls back once, when a module has just been executed for the first time."""

    def __init__(self, name: str, then: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._then = then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path)
        specs = (find(fullname, path, target) for find in finders if find is not None)
        spec: ModuleSpec | None = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                self._then(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let the generators stand where they stood, whoever draws from them meanwhile: it is not the notebook's doing."""
    states = {name: whole(name) for name in NAMES}
    try:
        yield
    finally:
        for name, state in states.items():
            if state is not None:
                put_whole(name, state)


WATCH = RandomWatch()
"""The process's own watch: a process has one generator of each kind."""
