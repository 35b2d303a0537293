"""Digests are promises: pinned here to the digit, for the lifetime of the format."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefect_cache.digests import PIECE, Hasher, TreeHasher, combine, digest, file_digest, piece_digest

if TYPE_CHECKING:
    from pathlib import Path


def test_digests_are_pinned() -> None:
    """When one of these must change, so must the format's number."""
    assert digest(b"") == "99aa06d3014798d86001c324468d497f"
    assert digest(b"prefect_cache") == "6bfc8b8357cc69addf7ae00a38fa2b05"
    assert combine("tag", "text", b"bytes", -7) == "372381bdbf4d5a037dda3e592c0b4914"
    assert TreeHasher().digest == "fdb9a0726d0edce47137acb4bc753941"
    assert TreeHasher().update(bytes(PIECE + 1)).digest == "df192c70b02071480fa1d207c1183d51"


@given(
    st.lists(st.one_of(st.text(), st.binary(), st.integers())),
    st.lists(st.one_of(st.text(), st.binary(), st.integers())),
)
def test_combine_tells_sequences_apart(one: list[str | bytes | int], two: list[str | bytes | int]) -> None:
    """Equal sequences have one digest, different ones two: types, borders and order count."""
    same = [(type(p), p) for p in one] == [(type(p), p) for p in two]
    assert (combine("t", *one) == combine("t", *two)) is same


def test_combine_counts_borders_and_types() -> None:
    """No two of these sequences share a digest."""
    found = [
        combine("a", "bc"), combine("ab", "c"), combine("a", "b", "c"), combine("a", b"bc"), combine("a"),
        combine("a", 1), combine("a", "1"), combine("a", b"1"), combine("a", 11), combine("a", 1, 1),
    ]  # fmt: skip
    assert len(set(found)) == len(found)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_a_hasher_does_not_see_how_bytes_were_cut(data: bytes, cuts: list[int]) -> None:
    """The digest of the parts is that of the whole."""
    hasher = Hasher()
    for start, stop in pairwise([0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]):
        hasher.update(data[start:stop])
    assert hasher.hexdigest() == digest(data)


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 5])
def test_a_file_has_the_digest_of_its_bytes(tmp_path: Path, size: int) -> None:
    """However the tree was fed, it meets the file's own, piece by piece."""
    data = bytes(range(251)) * (size // 251 + 1)
    path = tmp_path / "file"
    path.write_bytes(data[:size])
    tree = TreeHasher()
    for start in range(0, size, 1_000_003):
        tree.update(memoryview(data)[start : min(start + 1_000_003, size)])
    assert file_digest(path) == (tree.digest, tree.pieces)
    assert size == tree.size
    with path.open("rb") as file:
        assert [piece_digest(file.fileno(), i) for i in range(len(tree.pieces))] == tree.pieces


def test_typed_buffers_count_by_their_bytes() -> None:
    """A view of items wider than a byte is read as the bytes that it holds."""
    import array

    numbers = array.array("q", range(10))
    assert TreeHasher().update(numbers).digest == TreeHasher().update(numbers.tobytes()).digest
    assert digest(numbers) == digest(numbers.tobytes())
