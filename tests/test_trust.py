"""Signatures: an entry is this user's own or it is not, and a key is nobody else's."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from prefect_cache.errors import Damaged, StoreUnwritable, Untrusted
from prefect_cache.store import Store, Trust
from prefect_cache.store.trust import default_key_file, trust
from stores import content_of, key_of, manifest_of, output, save

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _private(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_cache.store.trust._shared", [])


@pytest.fixture
def store(store_root: Path) -> Store:
    return Store(store_root)


def stranger(tmp_path: Path, root: Path) -> Store:
    """Return the store as someone else opens it."""
    return Store(root, trust=Trust(tmp_path / "strangers-key"))


class TestKeys:
    def test_the_key_is_made_on_first_need_for_its_owner_alone(self, home: Path) -> None:
        path = default_key_file()
        assert path.is_relative_to(home)
        assert Trust().names() == frozenset()
        assert not path.exists()
        signature = Trust().sign(b"data")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert Trust().verify(b"data", signature)
        assert list(path.parent.iterdir()) == [path]

    def test_it_is_made_once(self) -> None:
        Trust().sign(b"")
        key = default_key_file().read_bytes()
        Trust().sign(b"")
        assert default_key_file().read_bytes() == key

    def test_a_variable_may_name_another(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PREFECT_CACHE_KEY_FILE", str(tmp_path / "key"))
        Trust().sign(b"")
        assert (tmp_path / "key").exists()

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o602])
    def test_one_that_others_can_read_is_refused(self, mode: int) -> None:
        signature = Trust().sign(b"")
        default_key_file().chmod(mode)
        for act in (lambda: Trust().sign(b""), lambda: Trust().verify(b"", signature)):
            with pytest.raises(Untrusted, match=f"{mode:04o}") as refused:
                act()
            assert "chmod 600" in refused.value.remedy

    def test_another_users_is_refused(self, tmp_path: Path) -> None:
        Trust(tmp_path / "key").sign(b"")
        if os.getuid() == 0:
            os.chown(tmp_path / "key", 12345, -1)
            with pytest.raises(Untrusted, match="another user"):
                Trust(tmp_path / "key").sign(b"")

    @pytest.mark.parametrize("text", ["", "secret", "prefect-cache-key abc", "prefect-cache-key " + "0" * 62, "a b c"])
    def test_what_is_no_key_is_refused(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "key").write_text(text)
        (tmp_path / "key").chmod(0o600)
        with pytest.raises(Untrusted, match="key file"):
            Trust(tmp_path / "key").sign(b"")
        (tmp_path / "folder").mkdir(mode=0o700)
        with pytest.raises((Untrusted, StoreUnwritable)):
            Trust(tmp_path / "folder").sign(b"")

    def test_one_that_cannot_be_made_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        store = Store(tmp_path / "store", trust=Trust(tmp_path / "file" / "key"))
        with pytest.raises(StoreUnwritable, match="key") as refused:
            save(store, key_of(1), {})
        assert "PREFECT_CACHE_KEY_FILE" in refused.value.remedy
        assert store.variants(key_of(1)) == ()

    def test_a_new_key_is_seen_in_a_running_session(self, tmp_path: Path) -> None:
        held = Trust(tmp_path / "key")
        signature = held.sign(b"data")
        (tmp_path / "key").unlink()
        assert not held.verify(b"data", signature)
        held.sign(b"")
        assert not held.verify(b"data", signature)


class TestEntries:
    def test_ones_own_are_trusted(self, store: Store) -> None:
        assert save(store, key_of(1), {}).trusted
        assert store.variants(key_of(1))[0].trusted
        assert store.catalog().entries[0].trusted

    def test_a_strangers_are_not(self, store: Store, store_root: Path, tmp_path: Path) -> None:
        other = stranger(tmp_path, store_root)
        save(other, key_of(1), {"a.bin": b"abc"})
        save(store, key_of(2), {})
        (entry,) = store.variants(key_of(1))
        assert not entry.trusted
        assert content_of(store, entry) == {"a.bin": b"abc"}
        trusted = {listed.digest: listed.trusted for listed in store.catalog().entries}
        assert trusted == {key_of(1): False, key_of(2): True}
        assert {listed.digest: listed.trusted for listed in other.catalog().entries} == {
            key_of(1): True,
            key_of(2): False,
        }

    @pytest.mark.parametrize(
        "signature", [b"", b"hmac-sha256", b"\xff" * 99, b"hmac-sha256 0123456789abcdef " + b"0" * 64]
    )
    def test_without_a_good_signature_nobody_is_trusted(self, store: Store, signature: bytes) -> None:
        entry = save(store, key_of(1), {})
        (entry.path / "signature").write_bytes(signature)
        assert not store.variants(key_of(1))[0].trusted
        (entry.path / "signature").unlink()
        assert not store.variants(key_of(1))[0].trusted

    def test_a_manifest_of_ones_own_cannot_be_changed(self, store: Store, store_root: Path, tmp_path: Path) -> None:
        """Someone who can write here, but has no key, makes a manifest that is whole; it is not trusted."""
        from prefect_cache.digests import digest

        entry = save(store, key_of(1), {"a.bin": b"mine"})
        path = entry.path / "manifest.json"
        body = path.read_bytes()[47:].replace(b"orders", b"evil!!")
        path.write_bytes(b'{\n"digest": "' + digest(body).encode() + b'",' + body)
        (found,) = store.variants(key_of(1))
        assert found.manifest.name == "evil!!"
        assert not found.trusted

    def test_files_cannot_be_swapped_between_entries(self, store: Store) -> None:
        one = save(store, key_of(1), {"a.bin": b"one"})
        two = save(store, key_of(2), {"a.bin": b"two"})
        (one.path / "a.bin").rename(one.path / "swap")
        (two.path / "a.bin").rename(one.path / "a.bin")
        (one.path / "swap").rename(two.path / "a.bin")
        for entry in (one, two):
            with pytest.raises(Damaged):
                store.check_files(entry)

    @pytest.mark.parametrize("said", [{"codec": "pickle"}, {"meta": {"needs_trust": True}}])
    def test_what_may_run_code_is_sealed(
        self, store: Store, said: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its data digest alone would not do: someone may find other bytes that have it."""
        with store.draft(key_of(1)) as draft:
            made = dataclasses.replace(output(draft.path, "a.pickle", b"good"), **said)
            entry = store.publish(draft, manifest_of(key_of(1), (made,)))
        (sealed,) = entry.manifest.outputs
        assert sealed.meta["sha256"] == hashlib.sha256(b"good").hexdigest()
        store.check_files(entry)
        (entry.path / "a.pickle").write_bytes(b"evil")
        monkeypatch.setattr("prefect_cache.store.verify.file_digest", lambda *_: (made.digest, []))
        with pytest.raises(Damaged, match="signed"):
            store.check_files(entry)

    def test_plain_data_is_not(self, store: Store) -> None:
        assert "sha256" not in save(store, key_of(1), {"a.bin": b"data"}).manifest.outputs[0].meta

    def test_entries_cannot_be_swapped(self, store: Store, store_root: Path) -> None:
        one = save(store, key_of(1), {})
        two = save(store, key_of(2), {})
        store.on_problem = lambda _: None
        one.path.rename(store_root / "swap")
        two.path.rename(one.path)
        (store_root / "swap").rename(two.path)
        assert store.variants(key_of(1)) == store.variants(key_of(2)) == ()


class TestARefusedKey:
    """It never ends a cell: what is found is not trusted, nothing is stored, and both are said."""

    def test_is_said(self, store: Store) -> None:
        entry = save(store, key_of(1), {})
        default_key_file().chmod(0o644)
        said: list[str] = []
        store.on_problem = lambda problem: said.append(problem.what)
        (found,) = store.variants(key_of(1))
        assert not found.trusted
        assert not store.catalog().entries[0].trusted
        with pytest.raises(StoreUnwritable, match="0644") as refused:
            save(store, key_of(2), {})
        assert "chmod 600" in refused.value.remedy
        assert said
        assert all("0644" in what and "chmod 600" in what for what in said)
        default_key_file().chmod(0o600)
        assert store.get(entry.digest).trusted


class TestTeams:
    def test_a_shared_key_makes_entries_common(self, store_root: Path, tmp_path: Path) -> None:
        mine = Store(store_root, trust=Trust(tmp_path / "mine"))
        before = save(mine, key_of(1), {})
        trust(tmp_path / "team")
        both = save(mine, key_of(2), {})
        theirs = Store(store_root, trust=Trust(tmp_path / "theirs"))
        assert not theirs.get(before.digest).trusted
        assert theirs.get(both.digest).trusted
        assert mine.get(both.digest).trusted

    def test_ones_own_key_goes_on_counting_without_the_teams(
        self, store_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mine = Store(store_root, trust=Trust(tmp_path / "mine"))
        trust(tmp_path / "team")
        entry = save(mine, key_of(1), {})
        monkeypatch.setattr("prefect_cache.store.trust._shared", [])
        assert mine.get(entry.digest).trusted

    def test_a_key_that_others_can_read_is_refused_at_once(self, tmp_path: Path) -> None:
        (tmp_path / "team").write_text("prefect-cache-key " + "0" * 64)
        (tmp_path / "team").chmod(0o644)
        with pytest.raises(Untrusted, match="0644"):
            trust(tmp_path / "team")
