"""Every shape of the table comes back through a real store, the same to the bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from exactness.cases import CASES, NEEDS_TRUST
from exactness.compare import same
from prefect_cache.codecs import codec, codec_for
from prefect_cache.errors import Untrusted
from prefect_cache.model import Output
from prefect_cache.store import Store
from stores import Unflushed, key_of, manifest_of

if TYPE_CHECKING:
    from prefect_cache.model import Entry


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a store."""
    return Store(tmp_path_factory.mktemp("store"), system=Unflushed())


def saved(store: Store, name: str, value: Any) -> Entry:
    """Publish a value as the only output of an entry; return the entry as the store finds it."""
    writer = codec_for(value)
    key = key_of(name)
    with store.draft(key) as draft:
        file = f"00-value{writer.suffix}"
        written = writer.write(value, draft.path / file)
        kind = type(value).__name__
        output = Output("value", kind, writer.name, file, written.digest, written.size, written.meta)
        store.publish(draft, manifest_of(key, (output,)))
    (entry,) = store.variants(key)
    return entry


def restored(entry: Entry, *, trusted: bool) -> object:
    """Read an entry's only output as its manifest says."""
    (output,) = entry.manifest.outputs
    return codec(output.codec).read(entry.path / output.file, output.meta, trusted=trusted)


@pytest.mark.parametrize("name", CASES)
def test_what_comes_back_is_what_was_stored(name: str, store: Store) -> None:
    """With trust and, but for a user's own classes, without."""
    value = CASES[name]()
    entry = saved(store, name, value)
    store.check_files(entry, full=True)
    same(value, restored(entry, trusted=True))
    assert bool(entry.manifest.outputs[0].meta.get("needs_trust")) is (name in NEEDS_TRUST)
    if name in NEEDS_TRUST:
        with pytest.raises(Untrusted):
            restored(entry, trusted=False)
    else:
        same(value, restored(entry, trusted=False))


def test_the_table_is_long_enough() -> None:
    """160 shapes are promised."""
    assert len(CASES) >= 160
