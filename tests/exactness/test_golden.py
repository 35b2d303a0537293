"""What an older version of this package wrote is read by this one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from exactness.compare import same
from exactness.golden import VALUES, folder
from prefect_cache.codecs import codec, codec_for, mapped
from prefect_cache.codecs.ipc import PAGE, Reader, locate
from prefect_cache.model import FORMAT

if TYPE_CHECKING:
    from pathlib import Path

FILES = sorted(folder(FORMAT).iterdir())


def test_the_documented_bytes_are_the_files() -> None:
    """The example in the prose is a file that anybody can look into."""
    data = (folder(FORMAT) / "array.array").read_bytes()
    lines = re.findall(r"^    ([0-9a-f]{4})  (.{17})  (.{8})", mapped.__doc__ or "", re.MULTILINE)
    assert len(lines) == 12
    for offset, digits, characters in lines:
        ahead = len(digits) - len(digits.lstrip())
        start = int(offset, 16) + (ahead + 1) // 9 * 4
        expected = bytes.fromhex(digits)
        assert data[start : start + len(expected)] == expected
        assert characters.strip() == "".join(chr(b) if 32 < b < 127 else "." for b in expected)
    assert f"{len(data):,} bytes" in (mapped.__doc__ or "")


def test_every_format_has_its_files() -> None:
    """Raise FORMAT, and write the new number's files."""
    assert sorted(VALUES) == sorted(path.stem for path in FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
@pytest.mark.parametrize("trusted", [True, False])
def test_golden_files_are_read(path: Path, trusted: bool) -> None:
    """To the bit, by the codec that the manifest would name."""
    same(VALUES[path.stem](), codec(path.suffix[1:]).read(path, {}, trusted=trusted))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_layout_is_as_documented(path: Path, tmp_path: Path) -> None:
    """The body starts at a multiple of a page; what the same value makes today lies at the same places."""
    value = VALUES[path.stem]()
    codec_for(value).write(value, tmp_path / "today")
    for one in (path, tmp_path / "today"):
        with one.open("rb") as file:
            opened = locate(Reader(file.fileno()), one.stat().st_size)
        assert opened.body.offset % PAGE == 0
        assert opened.body.size % 64 == 0
        assert set(opened.metadata) >= {b"prefect_cache", b"prefect_cache.digest"}
