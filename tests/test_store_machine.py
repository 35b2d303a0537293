"""Hypothesis plays with a store, and a dict says what should be in it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from prefect_cache.model import Entry, Retention
from prefect_cache.store import Store, Trust
from stores import Content, Unflushed, content_of, key_of, save

KEYS = st.integers(0, 3)
SEEN = st.sampled_from(["", "csv 1", "csv 2"])
CONTENTS = st.dictionaries(
    st.sampled_from(["a.bin", "b.bin", "c.bin"]),
    st.sampled_from([b"", b"small", b"large " * 2000, b"other " * 2000]),
    max_size=3,
)


class StoreMachine(RuleBasedStateMachine):
    """The dict: entries by key and what they saw, in the order in which they were evicted where they were."""

    entries = Bundle("entries")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.model: dict[tuple[str, str], Content] = {}
        self.pinned: set[tuple[str, str]] = set()
        self.hits: dict[tuple[str, str], int] = {}
        self.places: dict[tuple[str, str], str] = {}
        self.graves: list[dict[tuple[str, str], tuple[Content, bool, int, str]]] = []
        self.open()

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule()
    def open(self) -> None:
        """Another kernel goes on with the same store."""
        retention = Retention(max_bytes=10**12, grace=1e9, grace_bytes=10**12)
        trust = Trust(self.folder / "key")
        self.store = Store(self.folder / "store", retention, trust=trust, system=Unflushed())

    @rule(target=entries, key=KEYS, seen=SEEN, content=CONTENTS, pin=st.booleans())
    def save(self, key: int, seen: str, content: Content, pin: bool) -> tuple[str, str]:
        which = (key_of(key), seen)
        entry = save(self.store, which[0], content, seen=seen, options={"pin": True} if pin else {})
        self.model[which] = content
        self.hits[which] = 0
        self.places[which] = entry.digest
        if pin:
            self.pinned.add(which)
        assert entry == self.find(which)
        return which

    def find(self, which: tuple[str, str]) -> Entry | None:
        for entry in self.store.variants(which[0]):
            observed = entry.manifest.observed
            if [seen.digest for seen in observed] == [_digest(which[1])] * len(observed) and bool(observed) == bool(
                which[1]
            ):
                return entry
        return None

    @rule(which=entries)
    def touch(self, which: tuple[str, str]) -> None:
        if entry := self.find(which):
            self.store.touch(entry)
            self.hits[which] += 1

    @rule(which=entries, on=st.booleans())
    def pin(self, which: tuple[str, str], on: bool) -> None:
        if entry := self.find(which):
            (self.store.pin if on else self.store.unpin)(entry)
            (self.pinned.add if on else self.pinned.discard)(which)

    @rule(chosen=st.lists(entries, max_size=3, unique=True), undoable=st.booleans())
    def evict(self, chosen: list[tuple[str, str]], undoable: bool) -> None:
        found = {which: entry for which in chosen if (entry := self.find(which))}
        done = self.store.evict(found.values(), undoable=undoable)
        assert [entry for entry, _ in done.entries] == list(found.values())
        self._bury(found, undoable=undoable)

    @rule()
    def evict_all_that_is_loose(self) -> None:
        store = Store(self.store.root, Retention(max_bytes=0, grace=1e9, grace_bytes=10**12), trust=self.store.trust)
        plan = store.plan()
        assert {entry.digest for entry, _ in plan.evict} == {self.places[w] for w in self.model.keys() - self.pinned}
        before = self.store.usage()
        done = store.prune(plan)
        assert done.freed == plan.freed == before.size - self.store.usage().size
        self._bury([which for which in self.model if which not in self.pinned], undoable=True)

    def _bury(self, chosen: object, *, undoable: bool) -> None:
        gone = list(chosen)  # type: ignore[call-overload]
        grave = {}
        for which in gone:
            grave[which] = (self.model.pop(which), which in self.pinned, self.hits.pop(which), self.places.pop(which))
            self.pinned.discard(which)
        if undoable and grave:
            self.graves.append(grave)

    @rule()
    def undo(self) -> None:
        back = {entry.digest for entry in self.store.undo()}
        expected: set[str] = set()
        while self.graves and not expected:
            taken = set(self.places.values())
            for which, (content, pinned, hits, place) in self.graves.pop().items():
                # A place is taken by a newer run; another run of the same files elsewhere is no hindrance.
                if place not in taken:
                    expected.add(place)
                    self.model[which], self.hits[which], self.places[which] = content, hits, place
                    (self.pinned.add if pinned else self.pinned.discard)(which)
        assert back == expected

    @rule()
    def sweep(self) -> None:
        assert self.store.sweep() == 0

    @rule()
    def lose_the_index(self) -> None:
        (self.store.root / "index.sqlite").unlink(missing_ok=True)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def delete_a_folder_by_hand(self, data: st.DataObject) -> None:
        which = data.draw(st.sampled_from(sorted(self.model)))
        shutil.rmtree(self.store.root / "entries" / self.places[which])
        self._bury([which], undoable=False)

    @invariant()
    def the_store_is_the_dict(self) -> None:
        found = {entry.digest: entry for key in range(4) for entry in self.store.variants(key_of(key))}
        assert {name: content_of(self.store, entry) for name, entry in found.items()} == {
            self.places[which]: content for which, content in self.model.items()
        }
        assert {name for name, entry in found.items() if entry.pinned} == {self.places[which] for which in self.pinned}
        assert {name: entry.hits for name, entry in found.items()} == {self.places[w]: n for w, n in self.hits.items()}

    @invariant()
    def the_catalog_agrees(self) -> None:
        catalog = self.store.catalog()
        listed = {
            (e.digest, e.size, e.hits, e.pinned, e.trusted, e.last_used, e.manifest.name) for e in catalog.entries
        }
        found = [entry for key in range(4) for entry in self.store.variants(key_of(key))]
        assert listed == {(e.digest, e.size, e.hits, e.pinned, e.trusted, e.last_used, e.manifest.name) for e in found}
        assert catalog.problems == ()

    @invariant()
    def usage_is_what_lies_there(self) -> None:
        paths = [path for path in (self.store.root / "entries").glob("*/*") if path.name not in ("hits", "pinned")]
        files = {path.stat().st_ino: path.stat().st_size for path in paths}
        assert self.store.usage().size == sum(files.values())


def _digest(seen: str) -> str:
    from prefect_cache.digests import digest

    return digest(seen.encode())


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
