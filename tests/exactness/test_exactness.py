"""Every shape of the table comes back through a real file, the same to the bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from exactness.cases import CASES, NEEDS_TRUST
from exactness.compare import same
from prefect_cache.codecs import codec, codec_for
from prefect_cache.errors import Untrusted

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", CASES)
def test_what_comes_back_is_what_was_stored(name: str, tmp_path: Path) -> None:
    """With trust and, but for a user's own classes, without."""
    value = CASES[name]()
    writer = codec_for(value)
    assert writer is not None
    path = tmp_path / f"value{writer.suffix}"
    written = writer.write(value, path)
    reader = codec(writer.name)
    same(value, reader.read(path, written.meta, trusted=True))
    assert bool(written.meta.get("needs_trust")) is (name in NEEDS_TRUST)
    if name in NEEDS_TRUST:
        with pytest.raises(Untrusted):
            reader.read(path, written.meta, trusted=False)
    else:
        same(value, reader.read(path, written.meta, trusted=False))


def test_the_table_is_long_enough() -> None:
    """160 shapes are promised."""
    assert len(CASES) >= 160
