"""What the processes do that the crash tests kill, or set on one store together."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import random
import time
from multiprocessing import forkserver
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from prefect_cache.model import Retention
from prefect_cache.store import Store
from stores import content_of, key_of, save

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

    from prefect_cache.model import Entry
    from stores import Content

State = dict[str, str]
"""Which version of its content each entry has."""

KEYS = 12
SHARED = bytes(range(256)) * 400
FOREVER = Retention(grace=1e9, grace_bytes=10**12, max_bytes=10**12)


@functools.cache
def processes() -> multiprocessing.context.ForkServerContext:
    """Return a way to start processes quickly that share nothing with this one but the disk."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["crashing", "platformdirs", "sqlite3", "ctypes"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # the server would not find this module else
        forkserver.ensure_running()
    return context


def version_of(entry: Entry) -> str:
    """Return the version that an entry says it has."""
    return entry.manifest.name


def content(version: str) -> Content:
    """Return the content of a version, some of it the same in all."""
    data = random.Random(version).randbytes(20_000)
    return {"a.bin": data, "b.bin": data[:10], "shared.bin": SHARED}


def state(store: Store) -> State:
    """Return what a store holds, every byte compared with what was saved."""
    found: State = {}
    for listed in store.catalog().entries:
        entry = store.get(listed.digest)
        assert entry.trusted
        assert content_of(store, entry) == content(version_of(entry))
        found[entry.digest] = version_of(entry)
    return found


class Worker:
    """Changes a store at random until it is killed, writing down before each change what may be after it."""

    def __init__(self, root: Path, journal: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.store = Store(root, FOREVER)
        self.journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.state = {entry.digest: version_of(entry) for entry in self.store.catalog().entries}
        self.store.sweep()
        self.evicted: list[State] = []
        self.seed = seed
        self.changes = 0

    def run(self) -> None:
        acts = [self.save, self.save, self.replace, self.variant, self.evict, self.forget, self.undo, self.pin]
        self.intend(self.state)
        while True:
            self.random.choice(acts)()

    def intend(self, after: State) -> None:
        """Write down, in one write, what is and what may be."""
        self.changes += 1
        os.write(self.journal, (json.dumps([self.state, after]) + "\n").encode())
        self.state = after

    def version(self) -> str:
        return f"{self.seed}.{self.changes}"

    def save(self) -> None:
        self.put(key_of(self.random.randrange(KEYS)), "")

    def replace(self) -> None:
        if plain := [name for name in self.state if len(name) == len(key_of(0))]:
            self.put(self.random.choice(plain), "")

    def variant(self) -> None:
        self.put(key_of(0), f"csv {self.random.randrange(4)}")

    def put(self, key: str, seen: str) -> None:
        version = self.version()
        before = {entry.digest: entry for entry in self.store.variants(key)}
        same = [
            name for name, entry in before.items() if bool(entry.manifest.observed) == bool(seen) and _saw(entry, seen)
        ]
        free = [name for name in (key, *(f"{key}-{n}" for n in range(1, 8))) if name not in before]
        self.intend({**self.state, (same or free)[0]: version})
        save(self.store, key, content(version), name=version, seen=seen)

    def evict(self, *, undoable: bool = True) -> None:
        names = self.random.sample(sorted(self.state), min(len(self.state), self.random.randrange(1, 4)))
        if not names:
            return
        gone = {name: self.state[name] for name in names}
        entries = [self.store.get(name) for name in names]
        self.intend({name: version for name, version in self.state.items() if name not in gone})
        self.store.evict(entries, undoable=undoable)
        if undoable:
            self.evicted.append(gone)

    def forget(self) -> None:
        self.evict(undoable=False)

    def undo(self) -> None:
        while self.evicted and self.evicted[-1].keys() <= self.state.keys():
            self.evicted.pop()  # the store passes over what has a newer run in its place
        if not self.evicted:
            return
        self.intend({**self.evicted.pop(), **self.state})
        self.store.undo()

    def pin(self) -> None:
        if self.state:
            entry = self.store.get(self.random.choice(sorted(self.state)))
            self.random.choice([self.store.pin, self.store.unpin, self.store.touch])(entry)


def _saw(entry: Entry, seen: str) -> bool:
    from prefect_cache.digests import digest

    return not seen or entry.manifest.observed[0].digest == digest(seen.encode())


def work_until_killed(root: Path, journal: Path, seed: int, environment: dict[str, str]) -> None:
    """Change a store at random; never returns."""
    os.environ.update(environment)
    Worker(root, journal, seed).run()


def hammer(root: Path, log: Path, seed: int, keys: int, until: float, environment: dict[str, str]) -> None:
    """Run and restore cells as sessions do, and evict some, until a time."""
    os.environ.update(environment)
    chance = random.Random(seed)
    store = Store(root, Retention(grace=1.0, max_bytes=10**12))
    journal = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(what: str, number: int) -> None:
        os.write(journal, f"{what} {number}\n".encode())

    while time.time() < until:
        number = chance.randrange(keys)
        if chance.random() < 0.1:
            for _ in store.evict(store.variants(key_of(number)), undoable=chance.random() < 0.5).entries:
                note("evicted", number)
            continue
        entry = _restore(store, number)
        note("hit" if entry else "miss", number)
        if entry is None:
            with store.lock(key_of(number), on_wait=lambda _, n=number: note("waited", n)) as held:  # type: ignore[misc]
                assert held
                if _restore(store, number) is None:
                    note("ran", number)
                    time.sleep(chance.random() / 100)
                    save(store, key_of(number), content(f"{number}"), name=f"{number}")


def _restore(store: Store, number: int) -> Entry | None:
    """Return an entry whose every byte was read, as long as it is there."""
    from prefect_cache.errors import Damaged

    for entry in store.variants(key_of(number)):
        try:
            found = content_of(store, entry)
        except (Damaged, FileNotFoundError):
            if entry.path.exists():
                raise
            continue  # evicted while it was read
        assert found == content(version_of(entry))
        store.touch(entry)
        return entry
    return None


def start(target: object, *arguments: object) -> ForkServerProcess:
    """Start a process."""
    process = processes().Process(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
    process.start()
    return process
