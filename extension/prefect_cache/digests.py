"""Content digests: the one door to xxhash.

A digest is a promise to someone's disk: the values that this module returns stand in
entries' names and manifests. Whatever changes them raises :data:`prefect_cache.model.FORMAT`.

XXH3 with 128 bits reads at memory speed and was made to tell contents apart, not to resist
someone who forges them: what guards against that is the signature over the manifest.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from typing_extensions import Buffer

    from prefect_cache.model import Digest

PIECE = 4 * 2**20
"""Bytes of one piece of a tree digest."""


def digest(data: Buffer) -> Digest:
    """Return the digest of some bytes, as 32 hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(data)


class Hasher:
    """The digest of bytes that come one after another; how they were cut does not matter."""

    __slots__ = ("_state",)

    def __init__(self, data: Buffer = b"") -> None:
        self._state = xxhash.xxh3_128(data)

    def update(self, data: Buffer) -> Self:
        """Append some bytes."""
        self._state.update(data)
        return self

    def hexdigest(self) -> Digest:
        """Return the digest of the bytes so far."""
        return self._state.hexdigest()

    def copy(self) -> Hasher:
        """Return a hasher that goes on from here by itself."""
        twin = Hasher.__new__(Hasher)
        twin._state = self._state.copy()  # noqa: SLF001 - its own kind
        return twin


def combine(tag: str, *parts: str | bytes | int) -> Digest:
    """Return one digest for a tagged sequence; each part counts by type, length and content.

    ``combine("a", "b", "c")``, ``combine("a", "bc")``, ``combine("a", b"b", "c")``, ``combine("ab", "c")`` all differ.
    """
    return digest(b"".join([_framed(tag), *map(_framed, parts)]))


def _framed(part: str | bytes | int) -> bytes:
    if isinstance(part, str):
        kind, body = b"s", part.encode("utf-8", "surrogatepass")
    elif isinstance(part, int):
        kind, body = b"i", str(int(part)).encode("ascii")
    else:
        kind, body = b"b", bytes(part)
    return b"%c%d:%b" % (kind, len(body), body)


class TreeHasher:
    """The digest of a file as a tree of two levels: its pieces of 4 MiB, and their digests.

    A reader may then check any piece by itself.
    """

    __slots__ = ("_fill", "_open", "_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[Digest] = []
        self._open = Hasher()
        self._fill = 0
        self._size = 0

    def update(self, data: Buffer) -> Self:
        """Append some bytes; how they are cut does not matter."""
        with memoryview(data) as given, given.cast("B") as view:
            start, length = 0, len(view)
            while start < length:
                take = min(PIECE - self._fill, length - start)
                self._open.update(view[start : start + take])
                start += take
                self._fill += take
                if self._fill == PIECE:
                    self._close()
            self._size += length
        return self

    def _close(self) -> None:
        self._pieces.append(self._open.hexdigest())
        self._open = Hasher()
        self._fill = 0

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._size

    @property
    def pieces(self) -> list[Digest]:
        """The digests of the pieces so far, the last of which may be short."""
        return [*self._pieces, self._open.hexdigest()] if self._fill else list(self._pieces)

    @property
    def digest(self) -> Digest:
        """The digest of all bytes so far."""
        return combine("tree", self._size, *self.pieces)


def file_digest(
    path: str | os.PathLike[str], progress: Callable[[int], object] | None = None
) -> tuple[Digest, list[Digest]]:
    """Return the tree digest of a file's content, and those of its pieces; never holds more than a piece.

    `progress` is called with the bytes of each piece.
    """
    tree = TreeHasher()
    with Path(path).open("rb", buffering=0) as file:
        # Reads into one warm buffer beat a mapping: no page fault per 4 kB, and a file cut short
        # meanwhile ends the loop where a mapping would end the process.
        buffer = memoryview(bytearray(min(PIECE, max(os.fstat(file.fileno()).st_size, 1))))
        while count := file.readinto(buffer):
            tree.update(buffer[:count])
            if progress is not None:
                progress(count)
    return tree.digest, tree.pieces


def piece_digest(file: int, number: int) -> Digest:
    """Return the digest of one piece of the file open as descriptor `file`."""
    hasher, start = Hasher(), number * PIECE
    position = start
    while position < start + PIECE and (data := os.pread(file, start + PIECE - position, position)):
        hasher.update(data)
        position += len(data)
    return hasher.hexdigest()
