"""One contract for every codec: what comes back is what was written, and damage is found before it is believed."""

from __future__ import annotations

import os
import random
import resource
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from exactness.compare import same
from prefect_cache.codecs import Codec, codec, codec_for, codecs
from prefect_cache.digests import file_digest
from prefect_cache.errors import CacheError, Damaged, Untrusted

ROWS = 20_000


def frame() -> pd.DataFrame:
    """Return a frame of several blocks."""
    numbers = np.arange(ROWS)
    columns = {
        "i": numbers,
        "f": numbers / 7,
        "g": numbers * 2.0,
        "s": [str(n) for n in numbers],
        "b": numbers % 2 == 0,
    }
    return pd.DataFrame(columns)


class CodecContract:
    """What holds for every codec; a codec's own class says which one, and gives values."""

    name: ClassVar[str]
    values: ClassVar[dict[str, Any]]

    @pytest.fixture
    def codec(self) -> Codec:
        """Return the codec, by the name that a manifest would give."""
        return codec(self.name)

    @pytest.fixture(params=["first", "last"])
    def value(self, request: pytest.FixtureRequest) -> Any:
        """Return a value that the codec writes."""
        return list(self.values.values())[0 if request.param == "first" else -1]()

    @pytest.fixture
    def path(self, codec: Codec, tmp_path: Path) -> Path:
        """Return where there is no file yet."""
        return tmp_path / f"00-value{codec.suffix}"

    def test_it_accepts_its_values(self, codec: Codec) -> None:
        """And is the first to do so."""
        for make in self.values.values():
            assert codec.accepts(make())
            assert codec_for(make()) is codec

    def test_what_comes_back_is_what_was_written(self, codec: Codec, tmp_path: Path) -> None:
        """Every value, to the bit."""
        for number, make in enumerate(self.values.values()):
            path = tmp_path / f"{number}{codec.suffix}"
            written = codec.write(make(), path)
            same(make(), codec.read(path, written.meta, trusted=True))

    def test_what_was_written_is_what_is_told(self, codec: Codec, value: Any, path: Path) -> None:
        """Digest, pieces and size are the file's."""
        written = codec.write(value, path)
        digest, pieces = file_digest(path)
        assert (written.digest, written.meta["pieces"]) == (digest, pieces)
        assert written.size == path.stat().st_size

    def test_the_same_value_makes_the_same_file(self, codec: Codec, value: Any, tmp_path: Path) -> None:
        """So that the store holds it once."""
        one = codec.write(value, tmp_path / "one")
        assert one == codec.write(value, tmp_path / "two")

    def test_a_file_is_its_owners(self, codec: Codec, value: Any, path: Path) -> None:
        """Nobody else reads what a notebook computed."""
        codec.write(value, path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_nothing_is_written_over(self, codec: Codec, value: Any, path: Path) -> None:
        """A file that is there already may be mapped by someone."""
        path.write_bytes(b"mine")
        with pytest.raises(FileExistsError):
            codec.write(value, path)
        assert path.read_bytes() == b"mine"

    def test_a_write_that_fails_leaves_no_file(self, codec: Codec, value: Any, path: Path) -> None:
        """Whoever scans the folder finds nothing half done."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            with pytest.raises(OSError, match="File too large"):
                codec.write(value, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not path.exists()

    def test_no_descriptor_stays_open(self, codec: Codec, value: Any, path: Path) -> None:
        """A notebook may hold thousands of restored values."""
        meta = codec.write(value, path).meta
        kept = [codec.read(path, meta, trusted=True)]
        before = _descriptors()
        kept += [codec.read(path, meta, trusted=True) for _ in range(20)]
        assert _descriptors() == before

    def test_a_missing_file_is_damage(self, codec: Codec, path: Path) -> None:
        """The entry that names it is not whole."""
        with pytest.raises(Damaged, match=path.name):
            codec.read(path, {}, trusted=True)

    def test_a_cut_file_is_damage(self, codec: Codec, value: Any, path: Path) -> None:
        """Wherever it was cut: reading a mapping behind a file's end would kill the kernel."""
        meta = codec.write(value, path).meta
        size = path.stat().st_size
        for length in [size - 1, size - 7, size - 100, size // 2, 4096, 100, 9, 1, 0]:
            os.truncate(path, length)
            with pytest.raises(Damaged):
                codec.read(path, meta, trusted=True)

    def test_foreign_bytes_are_damage(self, codec: Codec, path: Path) -> None:
        """Text, zeros, and another Arrow file."""
        table = pa.table({"a": [1]})
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        for content in (path.read_bytes(), b"hello", bytes(10_000), b"ARROW1\0\0" + bytes(5000) + b"ARROW1"):
            path.write_bytes(content)
            with pytest.raises(Damaged):
                codec.read(path, {}, trusted=True)

    def test_what_needs_trust_is_not_opened_without(self, codec: Codec, path: Path) -> None:
        """A user's own class is code."""
        value = self.untrusted()
        meta = codec.write(value, path).meta
        with pytest.raises(Untrusted):
            codec.read(path, meta, trusted=False)

    def untrusted(self) -> Any:
        """Return a value that names a class of the user's own."""
        raise NotImplementedError

    def test_changes_never_reach_the_file(self, codec: Codec, path: Path) -> None:
        """Nor another value read from it."""
        for make, change in self.changes():
            meta = codec.write(make(), path).meta
            before = path.read_bytes()
            one, two = (codec.read(path, meta, trusted=True) for _ in range(2))
            change(one)
            with pytest.raises(AssertionError):
                same(one, make())
            same(two, make())
            assert path.read_bytes() == before
            path.unlink()

    def changes(self) -> list[tuple[Any, Any]]:
        """Return pairs of a maker and a change in place."""
        raise NotImplementedError


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Own:
    """A class of the user's own."""


def set_item(key: Any, item: Any) -> Any:
    """Return a change of one item."""
    return lambda value: value.__setitem__(key, item)


class TestPickle(CodecContract):
    name = "pickle"
    values: ClassVar[dict[str, Any]] = {
        "list": lambda: [list(range(ROWS)), "text", {1: 2.5}],
        "dict": lambda: {str(n): n / 3 for n in range(ROWS)},
    }

    def untrusted(self) -> Any:
        return [Own()]

    def changes(self) -> list[tuple[Any, Any]]:
        return [(lambda: [1, 2, 3], set_item(0, 9))]


class MappedContract(CodecContract):
    """What holds besides for files that are mapped."""

    def test_any_flipped_byte_of_the_head_is_survived(self, codec: Codec, value: Any, path: Path) -> None:
        """It is found, or it changes nothing: no other error, no crash."""
        meta = codec.write(value, path).meta
        good = path.read_bytes()
        start = good.index(b"prefect_cache")
        places = random.Random(7).sample(range(start + 2500), 150) + list(range(len(good) - 40, len(good)))
        for place in places:
            bad = bytearray(good)
            bad[place] ^= 0x41
            other = path.with_name("bad")
            other.write_bytes(bad)
            try:
                found = codec.read(other, meta, trusted=False)
            except CacheError:
                continue
            same(value, found)

    def test_a_value_outlives_its_file(self, codec: Codec, value: Any, path: Path) -> None:
        """Evicting unlinks; a new file under the name is another file."""
        meta = codec.write(value, path).meta
        found = codec.read(path, meta, trusted=True)
        path.unlink()
        path.write_bytes(bytes(10))
        same(value, found)

    def test_a_fork_sees_its_own_copy(self, codec: Codec, path: Path) -> None:
        """So do the workers of joblib."""
        meta = codec.write(np.zeros(ROWS), path).meta
        array: Any = codec.read(path, meta, trusted=True)
        child = os.fork()
        if not child:
            array[0] = 5
            os._exit(int(array[0] != 5))
        assert os.waitpid(child, 0)[1] == 0
        assert array[0] == 0

    def test_memory_is_not_charged_for_what_is_not_touched(self, codec: Codec, path: Path) -> None:
        """A frame larger than what is free is restored."""
        meta = codec.write(np.zeros(2**22), path).meta
        kept = codec.read(path, meta, trusted=True)
        before = _anonymous()
        more = [codec.read(path, meta, trusted=True) for _ in range(10)]
        assert _anonymous() - before < 8 * 2**20
        assert len(more) == 10
        assert kept is not None


def _anonymous() -> int:
    """Return the bytes of memory of this process that belong to no file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


class TestArrow(MappedContract):
    name = "arrow"
    values: ClassVar[dict[str, Any]] = {
        "frame": frame,
        "series": lambda: frame().s,
        "index": lambda: pd.date_range("2024", periods=ROWS, freq="h"),
        "table": lambda: pa.table({"a": list(range(ROWS))}),
        "column": lambda: pa.array([str(n) for n in range(ROWS)]),
        "polars": lambda: pl.DataFrame({"a": range(ROWS), "s": [str(n) for n in range(ROWS)]}),
    }

    def untrusted(self) -> Any:
        return pd.DataFrame({"o": [Own()]})

    def changes(self) -> list[tuple[Any, Any]]:
        def in_block(value: Any) -> None:
            value._mgr.blocks[0].values[:] = 7  # noqa: PD011 - a block, not a frame

        return [
            (frame, lambda value: value.__setitem__("i", 1)),
            (frame, lambda value: value.loc.__setitem__((5, "f"), -1.0)),
            (frame, lambda value: value.iloc.__setitem__((5, 3), "changed")),
            (frame, lambda value: value.insert(0, "new", 1)),
            (frame, lambda value: value.pop("i")),
            (frame, lambda value: value.b.array.__setitem__(0, False)),
            (frame, in_block),
            (lambda: frame().f, lambda value: value.__iadd__(1)),
        ]

    def test_untouched_pieces_are_the_same_when_columns_are_added(self, codec: Codec, tmp_path: Path) -> None:
        """The value's own bytes do not depend on what else is in the notebook."""
        one = codec.write(frame(), tmp_path / "one")
        assert one.digest == codec.write(frame().copy(), tmp_path / "two").digest

    def test_it_accepts_without_importing(self) -> None:
        """A hit on a dict must not load pandas."""
        program = """
            import sys
            from prefect_cache.codecs.frames import ArrowCodec
            from prefect_cache.codecs.arrays import ArrayCodec
            assert not ArrowCodec().accepts({}) and not ArrayCodec().accepts({})
            assert not {"pandas", "numpy", "pyarrow", "polars"} & set(sys.modules)
        """
        subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)


class TestArray(MappedContract):
    name = "array"
    values: ClassVar[dict[str, Any]] = {
        "numbers": lambda: np.arange(ROWS, dtype=float),
        "objects": lambda: np.array([1, "a", None] * 1000, dtype=object),
        "matrix": lambda: np.arange(ROWS, dtype=np.int16).reshape(100, -1),
    }

    def untrusted(self) -> Any:
        return np.array([Own()], dtype=object)

    def changes(self) -> list[tuple[Any, Any]]:
        numbers = self.values["numbers"]
        return [
            (numbers, set_item(0, 9.0)),
            (numbers, lambda value: value.sort() or value[::-1].sort()),
            (numbers, lambda value: value.fill(3.0)),
            (self.values["objects"], set_item(1, "b")),
        ]

    def test_an_array_comes_back_without_pandas_or_pyarrow(self, codec: Codec, path: Path) -> None:
        """They take a second to load, and nobody asked for them."""
        meta = codec.write(np.arange(ROWS), path).meta
        program = """
            import pathlib, sys
            from prefect_cache.codecs import mapped
            array = mapped.read(pathlib.Path(sys.argv[1]), {}, trusted=True)
            assert array.sum() == int(sys.argv[2])
            assert not {"pandas", "pyarrow", "polars", "prefect", "IPython"} & set(sys.modules)
        """
        expected = str(sum(range(ROWS)))
        subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(path), expected], check=True)
        assert meta["shape"] == [ROWS]


def test_names_are_unique_and_unknown_ones_are_damage() -> None:
    """A manifest from elsewhere may name a codec that is not here."""
    names = [one.name for one in codecs()]
    assert len(set(names)) == len(names)
    assert {"arrow", "array", "pickle"} <= set(names)
    with pytest.raises(Damaged, match="nonesuch"):
        codec("nonesuch")


def test_meta_describes_a_frame(tmp_path: Path) -> None:
    """Rows, columns with their own dtypes, shape."""
    meta = codec_for(frame()).write(frame(), tmp_path / "f").meta
    assert (meta["rows"], meta["shape"], meta["total_columns"]) == (ROWS, [ROWS, 5], 5)
    text = str(frame().s.dtype)
    dtypes = {"i": "int64", "f": "float64", "g": "float64", "s": text, "b": "bool"}
    assert meta["columns"] == [{"name": name, "dtype": dtype} for name, dtype in dtypes.items()]


def test_progress_is_told(tmp_path: Path) -> None:
    """So that a large save can show how far it is."""
    from prefect_cache.codecs import mapped

    told: list[tuple[int, int]] = []
    written = mapped.write(np.zeros(2**21), tmp_path / "a", progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (written.size, written.size)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len(told) > 3


def test_a_full_description_stays_small(tmp_path: Path) -> None:
    """A frame of very many columns names the first ones only."""
    wide = pd.DataFrame(np.zeros((2, 3000)))
    meta = codec_for(wide).write(wide, tmp_path / "w").meta
    assert meta["total_columns"] == 3000
    assert len(meta["columns"]) == 1000
