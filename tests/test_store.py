"""The store: what is saved is found, whole, by its key; what is evicted is gone, and comes back."""

from __future__ import annotations

import os
import shutil
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from prefect_cache.digests import PIECE
from prefect_cache.errors import Damaged, NotFound, StoreUnwritable
from prefect_cache.model import Entry, Problem, Retention
from prefect_cache.store import Store
from prefect_cache.store.catalog import SORTS
from stores import content_of, contents, key_of, manifest_of, output, save, write

LARGE = b"0123456789abcdef" * 512


@pytest.fixture
def store(store_root: Path) -> Store:
    return Store(store_root)


@pytest.fixture
def problems(store: Store) -> list[Problem]:
    """What the store reports as it is used."""
    found: list[Problem] = []
    store.on_problem = found.append
    return found


def damage(path: Path, at: int) -> None:
    """Change a byte of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\1")


class TestSaving:
    def test_making_a_store_touches_nothing(self, store: Store, store_root: Path) -> None:
        assert store.variants(key_of(1)) == ()
        assert store.catalog().entries == ()
        assert store.usage().entries == 0
        assert store.undo() == ()
        assert store.check() == []
        assert not store_root.exists()

    def test_what_was_saved_is_found_by_its_key(self, store: Store) -> None:
        entry = save(store, key_of(1), {"00-a.bin": b"abc", "01-b.bin": LARGE})
        (found,) = store.variants(key_of(1))
        assert found == entry
        assert found.trusted
        assert content_of(store, found) == {"00-a.bin": b"abc", "01-b.bin": LARGE}
        assert store.variants(key_of(2)) == ()

    def test_another_process_finds_it_too(self, store: Store, store_root: Path) -> None:
        entry = save(store, key_of(1), {"a.bin": b"abc"})
        assert Store(store_root).variants(key_of(1)) == (entry,)

    def test_the_root_says_what_it_is(self, store: Store, store_root: Path) -> None:
        save(store, key_of(1), {})
        assert (store_root / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")
        assert (store_root / ".gitignore").read_text() == "*\n"
        assert (store_root / "FORMAT").read_text() == "1\n"

    def test_nobody_else_may_look(self, store: Store, store_root: Path) -> None:
        entry = save(store, key_of(1), {"a.bin": LARGE}, options={"pin": True})
        store.touch(entry)
        store.usage()
        paths = [store_root, *store_root.rglob("*")]
        assert len(paths) > 10
        for path in paths:
            status = path.stat()
            assert stat.S_IMODE(status.st_mode) == (0o700 if stat.S_ISDIR(status.st_mode) else 0o600), path

    def test_a_folder_that_a_group_may_write_is_a_groups_store(self, store: Store, store_root: Path) -> None:
        store_root.mkdir()
        store_root.chmod(0o2770)
        entry = save(store, key_of(1), {"a.bin": LARGE}, options={"pin": True})
        store.touch(entry)
        store.usage()
        store.evict([save(store, key_of(2), {"a.bin": LARGE})])
        with store.lock(key_of(1)), store.draft(key_of(3)):
            modes = {path: path.stat().st_mode for path in store_root.rglob("*")}
        assert len(modes) > 20
        for path, mode in modes.items():
            assert stat.S_IMODE(mode) & 0o777 == (0o770 if stat.S_ISDIR(mode) else 0o660), path

    def test_the_same_run_takes_its_own_place(self, store: Store) -> None:
        save(store, key_of(1), {"a.bin": b"old"}, seen="csv")
        new = save(store, key_of(1), {"a.bin": b"new"}, seen="csv")
        assert store.variants(key_of(1)) == (new,)
        assert content_of(store, new) == {"a.bin": b"new"}

    def test_a_refresh_of_a_pinned_entry_stays_pinned(self, store: Store) -> None:
        store.pin(save(store, key_of(1), {"a.bin": b"old"}))
        assert save(store, key_of(1), {"a.bin": b"new"}).pinned

    def test_runs_that_saw_other_files_lie_side_by_side(self, store: Store) -> None:
        entries = {save(store, key_of(1), {"a.bin": bytes([n])}, seen=f"csv {n}").digest for n in range(8)}
        assert {entry.digest for entry in store.variants(key_of(1))} == entries
        assert len(entries) == 8

    def test_the_ninth_takes_the_place_of_the_longest_unused(self, store: Store) -> None:
        entries = [save(store, key_of(1), {}, seen=f"csv {n}") for n in range(8)]
        for number, entry in enumerate(entries):
            store.touch(entry)
            os.utime(entry.path / "hits", (1000 + (number - 3) % 8, 1000 + (number - 3) % 8))
        ninth = save(store, key_of(1), {}, seen="csv 9")
        assert ninth.digest == entries[3].digest
        assert len(store.variants(key_of(1))) == 8

    def test_a_pinned_run_keeps_its_place(self, store: Store) -> None:
        entries = [save(store, key_of(1), {}, seen=f"csv {n}", options={"pin": True}) for n in range(8)]
        with pytest.raises(StoreUnwritable, match="pinned"):
            save(store, key_of(1), {}, seen="csv 9")
        assert len(store.variants(key_of(1))) == len(entries)

    def test_a_draft_that_is_not_published_leaves_nothing(self, store: Store, store_root: Path) -> None:
        def interrupted() -> None:
            with store.draft(key_of(1)) as draft:
                output(draft.path, "a.bin", LARGE)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert list((store_root / "drafts").iterdir()) == []
        assert store.variants(key_of(1)) == ()

    def test_every_file_must_be_listed(self, store: Store) -> None:
        with store.draft(key_of(1)) as draft:
            listed = output(draft.path, "a.bin", b"a")
            output(draft.path, "b.bin", b"b")
            with pytest.raises(ValueError, match=r"b\.bin"):
                store.publish(draft, manifest_of(key_of(1), (listed,)))

    def test_names_never_become_paths(self, store: Store, store_root: Path) -> None:
        entry = save(store, key_of(1), {}, name="../../evil\x00name")
        assert entry.path.parent == store_root / "entries"
        assert store.get("../../evil\x00name") == entry
        for address in ("../entries", "..", ".", "/etc/passwd", f"../entries/{entry.digest}"):
            with pytest.raises(NotFound):
                store.get(address)


class TestWithoutLocks:
    """Publishing needs none: on a network file system there may be no locks."""

    def race(self, root: Path, seen: list[str]) -> list[Entry]:
        """Save one key from as many threads at once, each having seen something."""
        barrier = threading.Barrier(len(seen))

        def work(what: str) -> Entry:
            store = Store(root, Retention(max_bytes=10**12))
            with store.draft(key_of(1)) as draft:
                manifest = write(draft, {"a.bin": what.encode()}, seen=what)
                barrier.wait()
                return store.publish(draft, manifest)

        with ThreadPoolExecutor(len(seen)) as threads:
            return list(threads.map(work, seen))

    def test_other_runs_of_a_key_all_find_a_place(self, store: Store, store_root: Path) -> None:
        for n in range(5):
            shutil.rmtree(store_root, ignore_errors=True)
            seen = [f"{n} csv {m}" for m in range(8)]
            saved = self.race(store_root, seen)
            assert len({entry.digest for entry in saved}) == 8
            assert {data for entry in store.variants(key_of(1)) for data in content_of(store, entry).values()} == {
                what.encode() for what in seen
            }

    def test_the_same_run_is_there_once_and_whole(self, store: Store, store_root: Path) -> None:
        for n in range(5):
            self.race(store_root, [f"csv {n}"] * 6)
            found = [content_of(store, entry) for entry in store.variants(key_of(1))]
            assert found.count({"a.bin": f"csv {n}".encode()}) == 1
        assert store.check() == []
        assert [path.name for path in (store_root / "drafts").iterdir()] == []


class TestLinks:
    def test_equal_content_is_stored_once(self, store: Store) -> None:
        one = save(store, key_of(1), {"a.bin": LARGE})
        two = save(store, key_of(2), {"b.bin": LARGE})
        assert (one.path / "a.bin").samefile(two.path / "b.bin")
        usage = store.usage()
        assert usage.linked == len(LARGE)
        assert usage.size == one.size + two.size - len(LARGE)
        assert content_of(store, two) == {"b.bin": LARGE}

    def test_a_plan_counts_what_really_comes_free(self, store: Store) -> None:
        one = save(store, key_of(1), {"a.bin": LARGE})
        two = save(store, key_of(2), {"b.bin": LARGE})
        assert store.evict([one]).freed == one.size - len(LARGE)
        assert store.evict([two]).freed == two.size

    def test_a_damaged_file_is_not_linked_to(self, store: Store) -> None:
        one = save(store, key_of(1), {"a.bin": LARGE})
        damaged = bytearray(LARGE)
        damaged[5000] ^= 1
        (one.path / "a.bin").write_bytes(damaged)
        two = save(store, key_of(2), {"b.bin": LARGE})
        assert content_of(store, two) == {"b.bin": LARGE}

    def test_evicting_one_leaves_the_other(self, store: Store) -> None:
        one = save(store, key_of(1), {"a.bin": LARGE})
        two = save(store, key_of(2), {"b.bin": LARGE})
        store.evict([one], undoable=False)
        assert content_of(store, two) == {"b.bin": LARGE}


class TestUses:
    def test_uses_are_counted(self, store: Store) -> None:
        entry = save(store, key_of(1), {})
        before = entry.last_used
        for _ in range(3):
            store.touch(entry)
        (after,) = store.variants(key_of(1))
        (listed,) = store.catalog().entries
        assert after.hits == listed.hits == 3
        assert after.last_used == listed.last_used >= before

    def test_counting_never_fails(self, store: Store, store_root: Path) -> None:
        entry = save(store, key_of(1), {})
        shutil.rmtree(store_root)
        store.touch(entry)

    def test_pins_hold_until_unpinned(self, store: Store) -> None:
        entry = save(store, key_of(1), {}, started=0.0)
        store.pin(entry)
        store.pin(entry)
        assert store.get(entry.digest).pinned
        assert store.catalog().entries[0].pinned
        store.unpin(entry)
        store.unpin(entry)
        assert not store.get(entry.digest).pinned
        assert not store.catalog().entries[0].pinned


class TestAddresses:
    def test_a_digest_its_beginning_or_a_name(self, store: Store) -> None:
        entry = save(store, key_of(1), {}, name="orders")
        assert store.get(entry.digest) == store.get(entry.digest[:6]) == store.get("orders") == entry

    def test_nothing_and_several_are_told_apart(self, store: Store) -> None:
        for n in range(2):
            save(store, key_of(n), {}, name="orders")
        with pytest.raises(NotFound, match="no entry"):
            store.get("customers")
        with pytest.raises(NotFound, match="2 entries"):
            store.get("orders")
        with pytest.raises(NotFound):
            store.get("")
        assert len(store.find("orders")) == 2

    def test_runs_of_the_same_cell_are_found_again(self, store: Store) -> None:
        old = save(store, key_of(1), {}, name="orders", started=1.0)
        new = save(store, key_of(2), {}, name="orders", started=2.0)
        save(store, key_of(3), {}, name="customers")
        assert store.alike("orders") == (new, old)
        assert store.alike("", new.manifest.key.parts[0].digest) == (new, old)


class TestEvicting:
    def test_undo_brings_back_what_went_last(self, store: Store) -> None:
        entries = [save(store, key_of(n), {"a.bin": bytes([n])}) for n in range(3)]
        store.evict(entries[:1])
        done = store.evict(entries[1:])
        assert {entry.digest for entry, _ in done.entries} == {entry.digest for entry in entries[1:]}
        assert contents(store) == {}
        assert {entry.digest for entry in store.undo()} == {entry.digest for entry in entries[1:]}
        assert {entry.digest for entry in store.undo()} == {entries[0].digest}
        assert store.undo() == ()
        assert contents(store) == {entry.digest: {"a.bin": bytes([n])} for n, entry in enumerate(entries)}

    def test_uses_and_pins_come_back_as_well(self, store: Store) -> None:
        entry = save(store, key_of(1), {})
        store.pin(entry)
        store.touch(entry)
        store.evict([entry])
        (back,) = store.undo()
        assert (back.pinned, back.hits) == (True, 1)

    def test_a_newer_run_keeps_its_place(self, store: Store) -> None:
        store.evict([save(store, key_of(1), {"a.bin": b"old"})])
        save(store, key_of(1), {"a.bin": b"new"})
        assert store.undo() == ()
        assert [content_of(store, entry) for entry in store.variants(key_of(1))] == [{"a.bin": b"new"}]

    def test_what_is_evicted_for_good_stays_away(self, store: Store, store_root: Path) -> None:
        entry = save(store, key_of(1), {"a.bin": LARGE})
        done = store.evict([entry], undoable=False)
        assert not done.undoable
        assert store.undo() == ()
        assert list(store_root.rglob("a.bin")) == []

    def test_what_is_gone_already_is_passed_over(self, store: Store) -> None:
        entry = save(store, key_of(1), {})
        store.evict([entry])
        assert not store.evict([entry])

    def test_grace_ends_with_time(self, store_root: Path) -> None:
        store = Store(store_root, Retention(grace=0.0))
        store.evict([save(store, key_of(1), {"a.bin": LARGE})])
        assert store.undo() == ()
        assert list(store_root.rglob("a.bin")) == []

    def test_grace_ends_with_its_budget(self, store_root: Path) -> None:
        store = Store(store_root, Retention(grace_bytes=3 * len(LARGE)))
        for n in range(5):
            store.evict([save(store, key_of(n), {"a.bin": bytes([n]) + LARGE})])
        store.sweep()
        back = [entry.digest for _ in range(5) for entry in store.undo()]
        assert back == [key_of(4), key_of(3)]

    def test_a_mapped_file_lives_on(self, store: Store) -> None:
        """Evicting unlinks; whoever has mapped the file keeps his bytes."""
        import mmap

        entry = save(store, key_of(1), {"a.bin": LARGE})
        with (entry.path / "a.bin").open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        store.evict([entry], undoable=False)
        save(store, key_of(1), {"a.bin": b"x" * len(LARGE)})
        assert mapped[:] == LARGE


class TestRetention:
    def test_a_save_over_the_limit_evicts_and_says_what(self, store_root: Path) -> None:
        store = Store(store_root, Retention(max_bytes=60_000))
        said: list[str] = []
        store.on_evict = lambda eviction: said.extend(entry.digest for entry, _ in eviction.entries)
        for n in range(8):
            save(store, key_of(n), {"a.bin": bytes([n]) + LARGE})
        assert store.usage().size <= 60_000
        assert said
        assert key_of(7) not in said
        assert {entry.digest for entry in store.catalog().entries} == {key_of(n) for n in range(8)} - set(said)

    def test_an_entry_over_the_limit_is_refused_rather_than_evicting_the_rest(self, store_root: Path) -> None:
        store = Store(store_root, Retention(max_bytes=60_000))
        kept = save(store, key_of(1), {"a.bin": LARGE})
        with pytest.raises(StoreUnwritable, match="over the store's limit"):
            save(store, key_of(2), {"a.bin": LARGE * 10})
        assert store.variants(key_of(1)) == (kept,)

    def test_an_entry_over_the_limit_per_entry_is_refused(self, store_root: Path) -> None:
        store = Store(store_root, Retention(max_entry_bytes=10))
        with pytest.raises(StoreUnwritable, match="per entry"):
            save(store, key_of(1), {"a.bin": LARGE})

    def test_a_plan_does_nothing_until_it_is_carried_out(self, store_root: Path) -> None:
        store = Store(store_root)
        entry = save(store, key_of(1), {"a.bin": LARGE}, options={"ttl": 5.0}, started=0.0)
        plan = store.plan(now=100.0)
        assert [victim.digest for victim, _ in plan.evict] == [entry.digest]
        assert plan.freed == entry.size
        assert store.variants(key_of(1))
        assert store.prune(plan).freed == entry.size
        assert store.variants(key_of(1)) == ()
        assert len(store.undo()) == 1

    def test_a_pin_set_after_the_index_was_made_is_seen(self, store_root: Path) -> None:
        store = Store(store_root)
        entry = save(store, key_of(1), {}, options={"ttl": 5.0}, started=0.0)
        store.catalog()
        (entry.path / "pinned").touch()
        assert not store.plan(now=100.0)


class TestIndex:
    def test_it_may_be_lost_at_any_time(self, store: Store, store_root: Path) -> None:
        entry = save(store, key_of(1), {"a.bin": LARGE})
        before = store.catalog()
        (store_root / "index.sqlite").unlink()
        assert store.catalog() == before
        assert store.usage().size == entry.size

    def test_it_may_be_garbage(self, store: Store, store_root: Path) -> None:
        save(store, key_of(1), {"a.bin": LARGE})
        before = store.catalog()
        (store_root / "index.sqlite").write_bytes(b"SQLite format 3\0" + b"garbage" * 5000)
        assert store.catalog() == before
        (store_root / "index.sqlite").write_bytes(b"no database")
        assert store.catalog() == before

    def test_a_folder_in_its_place_is_no_harm(self, store: Store, store_root: Path) -> None:
        save(store, key_of(1), {"a.bin": LARGE})
        before = store.catalog()
        (store_root / "index.sqlite").unlink()
        (store_root / "index.sqlite").mkdir()
        assert store.catalog() == before

    def test_it_sees_what_others_did_to_the_folders(self, store: Store) -> None:
        entry = save(store, key_of(1), {"a.bin": LARGE})
        save(store, key_of(2), {"a.bin": b"b"})
        shutil.rmtree(entry.path)
        assert [found.digest for found in store.catalog().entries] == [key_of(2)]

    def test_lists_can_be_sorted_and_cut(self, store: Store) -> None:
        for n, (name, size) in enumerate({"b": 30, "C": 10, "a": 20}.items()):
            save(store, key_of(n), {"x.bin": bytes(size)}, name=name, started=100.0 + n, seconds=float(size))
        store.touch(store.get("b"))
        names = {sort: [entry.manifest.name for entry in store.catalog(2, sort=sort).entries] for sort in SORTS}
        assert names["name"] == ["a", "b"]
        assert names["size"] == ["b", "a"]
        assert names["made"] == ["a", "C"]
        assert names["saved"][0] == names["used"][0] == "b"
        assert store.catalog(2).total == 3
        assert store.catalog().entries[:2] == store.catalog(2).entries

    def test_shared_bytes_come_free_with_their_last_owner(self, store: Store) -> None:
        one = save(store, key_of(1), {"a.bin": LARGE})
        two = save(store, key_of(2), {"a.bin": LARGE, "b.bin": LARGE, "c.bin": LARGE[1:]})
        sizes = [entry.size for entry in (one, two)]
        assert store.freed_by([one.digest]) == sizes[0] - len(LARGE)
        assert store.freed_by([two.digest]) == sizes[1] - 2 * len(LARGE)
        assert store.freed_by([one.digest, two.digest]) == sum(sizes) - 2 * len(LARGE) == store.usage().size
        assert store.evict([two]).freed == sizes[1] - 2 * len(LARGE)
        assert store.freed_by([one.digest, two.digest]) == sizes[0]

    def test_statistics_are_kept_beside_an_entry_and_go_with_it(self, store: Store) -> None:
        entry = save(store, key_of(1), {"a.bin": LARGE})
        assert store.statistics(entry) == b""
        store.keep_statistics(entry, b"[1]")
        store.keep_statistics(entry, b"[1, 2]")
        assert store.statistics(entry) == b"[1, 2]"
        assert store.check() == []
        store.evict([entry])
        store.keep_statistics(entry, b"[3]")
        assert list((store.root / "drafts").iterdir()) == []
        assert store.statistics(entry) == b""
        store.undo()
        assert store.statistics(entry) == b"[1, 2]"

    def test_entries_in_a_listing_are_in_short(self, store: Store) -> None:
        entry = save(store, key_of(1), {"a.bin": LARGE})
        (listed,) = store.catalog().entries
        assert listed.manifest.outputs[0].meta == {}
        assert listed.manifest.key.parts == ()
        assert listed.manifest.run == entry.manifest.run
        assert (listed.path, listed.size, listed.last_used) == (entry.path, entry.size, entry.last_used)


class TestUnusualRoots:
    def test_a_file_in_its_place(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        for root in (tmp_path / "file", tmp_path / "file" / "below"):
            store = Store(root)
            assert store.variants(key_of(1)) == ()
            with pytest.raises(StoreUnwritable, match="file"):
                save(store, key_of(1), {})
        assert (tmp_path / "file").read_text() == "mine"

    def test_a_link_to_a_folder_is_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "there").mkdir()
        (tmp_path / "here").symlink_to(tmp_path / "there")
        save(Store(tmp_path / "here"), key_of(1), {})
        assert Store(tmp_path / "there").variants(key_of(1))

    def test_a_link_to_nowhere_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "here").symlink_to(tmp_path / "nowhere")
        with pytest.raises(StoreUnwritable) as refused:
            save(Store(tmp_path / "here"), key_of(1), {})
        assert refused.value.remedy

    def test_deleted_in_mid_session(self, store: Store, store_root: Path) -> None:
        save(store, key_of(1), {"a.bin": b"a"})
        shutil.rmtree(store_root)
        assert store.variants(key_of(1)) == ()
        assert store.catalog().entries == ()
        entry = save(store, key_of(2), {"a.bin": b"b"})
        assert store.variants(key_of(2)) == (entry,)

    def test_deleted_while_a_draft_is_written(self, store: Store, store_root: Path) -> None:
        with store.draft(key_of(1)) as draft:
            manifest = write(draft, {"a.bin": b"a"})
            shutil.rmtree(store_root)
            with pytest.raises(StoreUnwritable, match="removed"):
                store.publish(draft, manifest)
        save(store, key_of(1), {"a.bin": b"b"})

    def test_an_entry_that_is_a_link_elsewhere_is_none(
        self, store: Store, problems: list[Problem], tmp_path: Path
    ) -> None:
        entry = save(store, key_of(1), {})
        shutil.move(entry.path, tmp_path / "elsewhere")
        entry.path.symlink_to(tmp_path / "elsewhere")
        assert store.variants(key_of(1)) == ()
        assert len(problems) == 1

    def test_another_formats_entry_is_a_miss_without_a_word(self, store: Store, problems: list[Problem]) -> None:
        from prefect_cache.digests import digest

        entry = save(store, key_of(1), {})
        path = entry.path / "manifest.json"
        body = path.read_bytes()[47:].replace(b'"format": 1', b'"format": 99')
        path.write_bytes(b'{\n"digest": "' + digest(body).encode() + b'",' + body)
        assert store.variants(key_of(1)) == ()
        assert problems == []
        (problem,) = store.check(fix=True)
        assert "format 99" in problem.what
        assert path.exists()


class TestChecking:
    def test_damage_is_found_named_and_removed(self, store: Store) -> None:
        good = save(store, key_of(1), {"a.bin": LARGE})
        bad = save(store, key_of(2), {"a.bin": LARGE + b"2"})
        with (bad.path / "a.bin").open("r+b") as file:
            file.seek(100)
            file.write(b"\0")
        (problem,) = store.check()
        assert problem.path == bad.path
        assert "a.bin" in problem.what
        assert store.check(fix=True) == [problem]
        assert store.check() == []
        assert [entry.digest for entry in store.catalog().entries] == [good.digest]

    def test_damage_is_listed_from_when_it_was_found_and_not_restored(
        self, store: Store, store_root: Path, problems: list[Problem]
    ) -> None:
        entry = save(store, key_of(1), {"a.bin": bytes(40 * PIECE)}, name="sensors")
        save(store, key_of(2), {"b.bin": LARGE})
        damage(entry.path / "a.bin", 20 * PIECE)
        assert len(store.variants(key_of(1))) == 1  # nobody has looked there yet
        store.check()
        for _ in ("from the index", "from the folders"):
            (problem,) = store.catalog().problems
            assert (problem.path, problem.name, problem.size) == (entry.path, "sensors", entry.size)
            assert "a.bin" in problem.what
            assert store.usage().problems == 1
            assert store.catalog().total == 1
            (brief,) = [brief for brief in store.briefs() if brief.damage]
            assert (brief.address, brief.name, brief.size) == (entry.digest, "sensors", entry.size)
            assert store.variants(key_of(1)) == ()
            assert problems.pop().path == entry.path
            (store_root / "index.sqlite").unlink()

    def test_damage_that_a_hit_meets_is_listed(self, store: Store) -> None:
        entry = save(store, key_of(1), {"a.bin": LARGE})
        (entry.path / "a.bin").write_bytes(LARGE[:-1])
        with pytest.raises(Damaged, match=r"a\.bin"):
            store.check_files(entry)
        assert [problem.path for problem in store.catalog().problems] == [entry.path]
        new = save(store, key_of(1), {"a.bin": LARGE})
        assert store.catalog().problems == ()
        assert store.variants(key_of(1)) == (new,)

    def test_a_missing_file_is_listed(self, store: Store) -> None:
        entry = save(store, key_of(1), {"a.bin": LARGE, "b.bin": b"b"})
        (entry.path / "a.bin").unlink()
        with pytest.raises(Damaged, match=r"a\.bin is missing"):
            store.check_files(entry)
        (problem,) = store.catalog().problems
        assert (problem.name, problem.what) == ("orders", "a.bin is missing")

    def test_what_has_been_mended_is_an_entry_again_after_a_check(self, store: Store, problems: list[Problem]) -> None:
        entry = save(store, key_of(1), {"a.bin": LARGE})
        (entry.path / "a.bin").write_bytes(b"?" + LARGE[1:])
        assert len(store.check()) == 1
        (entry.path / "a.bin").write_bytes(LARGE)
        assert store.variants(key_of(1)) == ()
        assert len(problems) == 1
        assert store.check() == []
        assert [found.digest for found in store.variants(key_of(1))] == [entry.digest]
        assert store.catalog().problems == ()

    def test_damage_is_not_noted_of_what_a_neighbour_has_put_in_its_place(self, store: Store) -> None:
        entry = save(store, key_of(1), {"a.bin": LARGE})
        new = save(store, key_of(1), {"a.bin": LARGE + b"new"})
        with pytest.raises(Damaged):
            store.check_files(entry)
        assert store.variants(key_of(1)) == (new,)
        assert store.catalog().problems == ()

    def test_what_is_damaged_goes_first_and_can_be_undone(self, store_root: Path) -> None:
        store = Store(store_root, Retention(max_bytes=12_000, grace_bytes=100_000))
        costly = save(store, key_of(1), {"a.bin": LARGE}, seconds=1e6)
        (costly.path / "a.bin").write_bytes(b"?" + LARGE[1:])
        assert store.check()
        save(store, key_of(2), {"b.bin": LARGE[::-1]}, seconds=1.0)
        assert [problem.path for problem in store.catalog().problems] == []
        assert len(store.variants(key_of(2))) == 1
        assert [entry.digest for entry in store.undo()] == [costly.digest]
        assert [problem.path for problem in store.catalog().problems] == [costly.path]

    def test_progress_counts_the_bytes(self, store: Store) -> None:
        save(store, key_of(1), {"a.bin": bytes(3 * PIECE), "b.bin": LARGE})
        seen: list[tuple[int, int]] = []
        store.check(lambda done, total: seen.append((done, total)))
        assert seen[-1][0] == 3 * PIECE + len(LARGE)
        assert all(done <= total for done, total in seen)

    def test_leftovers_of_the_dead_are_swept_and_those_of_the_living_are_not(
        self, store: Store, store_root: Path
    ) -> None:
        with store.draft(key_of(1)) as draft:
            dead = store_root / "drafts" / "0-1-dead"
            dead.mkdir()
            (dead / "a.bin").write_bytes(LARGE)
            orphan = store_root / "drafts" / "0-2-dead.lock"
            orphan.touch()
            assert {problem.path.name for problem in store.check()} == {"0-1-dead", "0-2-dead"}
            assert store.sweep() == 1
            assert draft.path.is_dir()
            assert not dead.exists()
            assert not orphan.exists()
            assert store.check() == []

    def test_files_that_the_manifest_does_not_list_are_named(self, store: Store) -> None:
        entry = save(store, key_of(1), {})
        (entry.path / "evil.pickle").write_bytes(b"")
        (problem,) = store.check()
        assert "evil.pickle" in problem.what

    def test_large_files_are_sampled_and_read_in_full_when_asked(self, store: Store) -> None:
        entry = save(store, key_of(1), {"a.bin": bytes(40 * PIECE)})
        read: list[int] = []
        store.check_files(entry, progress=read.append)
        assert sum(read) == 4 * PIECE
        with (entry.path / "a.bin").open("r+b") as file:
            file.seek(20 * PIECE)
            file.write(b"\1")
        with pytest.raises(Damaged, match=r"a\.bin"):
            store.check_files(entry, full=True)

    def test_what_a_hit_samples_is_verified_in_full_later(self, store: Store, problems: list[Problem]) -> None:
        whole = save(store, key_of(1), {"a.bin": bytes(8 * PIECE)})
        damaged = save(store, key_of(2), {"a.bin": b"2" * 8 * PIECE})
        small = save(store, key_of(3), {"a.bin": LARGE})
        with (damaged.path / "a.bin").open("r+b") as file:
            file.seek(3 * PIECE)
            file.write(b"\1")
        threads = [store.verify_later(entry) for entry in (whole, damaged, small)]
        for thread in threads:
            if thread is not None:
                thread.join()
        assert [thread is None for thread in threads] == [False, False, True]
        (problem,) = problems
        assert problem.path == damaged.path
        assert "run that cell again" in problem.what
        assert store.variants(key_of(2)) == ()
        assert store.variants(key_of(1)) == (whole,)
        assert store.verify_later(whole) is None

    def test_discarding_a_problem_removes_its_folder(self, store: Store, problems: list[Problem]) -> None:
        entry = save(store, key_of(1), {})
        (entry.path / "manifest.json").write_bytes(b"{}")
        store.variants(key_of(1))
        assert store.discard(problems) == 1
        assert store.catalog().problems == ()
        assert store.discard([Problem(Path("/etc"), "not ours")]) == 0
