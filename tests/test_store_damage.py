"""Any bytes of any file of the store may change: nothing wrong is ever given out, and the rest goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefect_cache.digests import PIECE
from prefect_cache.errors import Damaged, NotFound
from prefect_cache.store import Store, Trust
from stores import Content, Unflushed, content_of, key_of, save

if TYPE_CHECKING:
    from pathlib import Path

    from prefect_cache.model import Manifest

LARGE = bytes(range(256)) * (2 * PIECE // 256) + b"the end"
CONTENTS: dict[str, Content] = {
    key_of(1): {"small.bin": b"small", "shared.bin": b"shared " * 1000},
    key_of(2): {"other.bin": b"other", "shared.bin": b"shared " * 1000},
    key_of(3): {"large.bin": LARGE, "empty.bin": b""},
    key_of(4): {},
}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with every kind of file in it, but the key."""
    root = tmp_path_factory.mktemp("pristine") / "store"
    store = _open(root)
    for key, content in CONTENTS.items():
        save(store, key, content)
    store.touch(store.get(key_of(1)))
    store.pin(store.get(key_of(2)))
    store.catalog()
    store.touch(store.get(key_of(3)))
    return root


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Where a copy of the store is to be damaged."""
    return tmp_path / "store"


def _open(root: Path) -> Store:
    store = Store(root, trust=Trust(root.parents[1] / "key"), system=Unflushed())
    store.on_problem = lambda _: None
    return store


def _files(root: Path) -> list[Path]:
    return sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())


def _hits(store: Store) -> Iterator[tuple[str, Manifest, bool, Content]]:
    """Yield what a session would restore."""
    for key in CONTENTS:
        for entry in store.variants(key):
            try:
                yield key, entry.manifest, entry.trusted, content_of(store, entry)
            except Damaged:
                continue


Change = Callable[[bytearray, int, int, int], None]


def _flip(data: bytearray, start: int, end: int, value: int) -> None:
    for place in range(start, min(end, start + 50)):
        data[place] ^= value or 1


def _zero(data: bytearray, start: int, end: int, value: int) -> None:
    data[start:end] = bytes(end - start)


def _truncate(data: bytearray, start: int, end: int, value: int) -> None:
    del data[start:]


def _cut(data: bytearray, start: int, end: int, value: int) -> None:
    del data[start:end]


def _extend(data: bytearray, start: int, end: int, value: int) -> None:
    data += bytes([value]) * (end - start + 1)


def _repeat(data: bytearray, start: int, end: int, value: int) -> None:
    data[start:start] = data[start:end]


CHANGES: list[Change] = [_flip, _zero, _truncate, _cut, _extend, _repeat]


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    which=st.floats(0, 1, exclude_max=True),
    change=st.sampled_from(CHANGES),
    first=st.floats(0, 1),
    second=st.floats(0, 1),
    value=st.integers(0, 255),
)
def test_any_bytes_of_any_file(
    pristine: Path, damaged: Path, which: float, change: Change, first: float, second: float, value: int
) -> None:
    _restore_copy(pristine, damaged)
    files = _files(damaged)
    path = damaged / files[int(which * len(files))]
    data = bytearray(path.read_bytes())
    start, end = sorted((int(first * len(data)), int(second * len(data))))
    change(data, start, end, value)
    path.unlink()
    path.write_bytes(data)
    _check(pristine, damaged, path)


def _restore_copy(pristine: Path, damaged: Path) -> None:
    shutil.rmtree(damaged, ignore_errors=True)
    shutil.copytree(pristine, damaged)


def _check(pristine: Path, damaged: Path, path: Path) -> None:
    good = {key: _open(pristine).get(key).manifest for key in CONTENTS}
    store = _open(damaged)
    found = list(_hits(store))
    for key, manifest, _, content in found:
        assert manifest == good[key]
        assert content == CONTENTS[key]
    hurt = {path.parent.name} & CONTENTS.keys()
    assert {key for key, *_ in found} >= CONTENTS.keys() - hurt, "damage to one entry hides another"
    assert all(trusted for key, _, trusted, _ in found if key not in hurt)
    # Commands go on, whatever the index says now.
    store.catalog()
    store.usage()
    store.plan()
    save(store, key_of(5), {"a.bin": b"new"})
    before = {key for key, *_ in found}
    store.check(fix=True)
    assert store.check() == []
    assert {entry.digest for entry in store.catalog().entries} == before | {key_of(5)}


@pytest.mark.parametrize("gone", ["manifest.json", "signature", "small.bin"])
def test_a_missing_file(pristine: Path, damaged: Path, gone: str) -> None:
    _restore_copy(pristine, damaged)
    path = damaged / "entries" / key_of(1) / gone
    path.unlink()
    _check(pristine, damaged, path)
    assert (gone == "signature") == bool(_open(damaged).variants(key_of(1)))


@pytest.mark.parametrize("kind", ["folder", "link", "fifo"])
@pytest.mark.parametrize("name", ["manifest.json", "signature", "small.bin", "hits", "pinned"])
def test_something_else_in_a_files_place(pristine: Path, damaged: Path, name: str, kind: str, tmp_path: Path) -> None:
    _restore_copy(pristine, damaged)
    path = damaged / "entries" / key_of(1) / name
    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "nowhere")
    else:
        os.mkfifo(path)
    _check(pristine, damaged, path)


@pytest.mark.parametrize(
    "names", [("small.bin", "other.bin"), ("manifest.json", "manifest.json"), ("signature", "signature")]
)
def test_files_swapped_between_entries(pristine: Path, damaged: Path, names: tuple[str, str]) -> None:
    _restore_copy(pristine, damaged)
    one, two = damaged / "entries" / key_of(1) / names[0], damaged / "entries" / key_of(2) / names[1]
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)
    for key, manifest, trusted, content in _hits(_open(damaged)):
        assert content == CONTENTS[key]
        assert manifest == _open(pristine).get(key).manifest
        assert not trusted or key not in (key_of(1), key_of(2))


def test_large_files_sampled_check_finds_a_lost_end(pristine: Path, damaged: Path) -> None:
    """A file cut short, or whose last or first bytes were never written, is found without reading it all."""
    for start in (0, len(LARGE) - 1):
        _restore_copy(pristine, damaged)
        path = damaged / "entries" / key_of(3) / "large.bin"
        with path.open("r+b") as file:
            file.seek(start)
            file.write(b"\xaa")
        store = _open(damaged)
        with pytest.raises(Damaged):
            store.check_files(store.get(key_of(3)))


def test_what_is_damaged_can_be_seen_and_saved_again(pristine: Path, damaged: Path) -> None:
    _restore_copy(pristine, damaged)
    (damaged / "entries" / key_of(1) / "manifest.json").write_bytes(b"")
    store = _open(damaged)
    with pytest.raises(Damaged):
        store.get(key_of(1))
    assert store.variants(key_of(1)) == ()
    (problem,) = store.catalog().problems
    assert problem.path.name == key_of(1)
    save(store, key_of(1), {"a.bin": b"again"})
    assert [content_of(store, entry) for entry in store.variants(key_of(1))] == [{"a.bin": b"again"}]
    assert store.catalog().problems == ()
    with pytest.raises(NotFound):
        store.get(key_of(9))
