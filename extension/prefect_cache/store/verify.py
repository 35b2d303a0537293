"""Is a file what the manifest says? Small files are read whole, large ones by pieces, or all of all."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import random
import stat
from typing import TYPE_CHECKING

from prefect_cache.digests import PIECE, combine, file_digest, piece_digest
from prefect_cache.errors import Damaged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from prefect_cache.model import Output

SEAL = "sha256"
"""Under which name a manifest keeps a file's seal."""

SAMPLED_PIECES = 2
"""Pieces of a large file that are verified besides the first and the last: other ones each time."""


def runs_code(output: Output) -> bool:
    """Tell whether reading a file may run code that it holds: a pickle, or a frame with objects of the user's own."""
    return output.codec == "pickle" or bool(output.meta.get("needs_trust"))


def seal(folder: Path, output: Output) -> Output:
    """Return `output` with a seal of its file's bytes, where reading it may run code.

    The digests of data tell contents apart at memory speed; someone who can write to the store could
    make other bytes with the same digest. Against him stands SHA-256, under the manifest's signature.
    """
    if not runs_code(output):
        return output
    return dataclasses.replace(output, meta={**output.meta, SEAL: _sha256(folder / output.file)})


def check_seal(folder: Path, output: Output) -> None:
    """Raise `Damaged` unless a file that may run code is, to the bit, the one that was signed."""
    if runs_code(output) and _sha256(folder / output.file) != output.meta.get(SEAL):
        raise Damaged(f"{output.file} is not what was signed")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_file(path: Path, output: Output, *, full: bool, progress: Callable[[int], None]) -> None:
    """Raise `Damaged` unless the file at `path` is the one that `output` describes.

    It is read, never mapped: a neighbour who cuts it short meanwhile makes an error, not a SIGBUS.
    """
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise Damaged(f"{output.file} is not a regular file")
    if status.st_size != output.size:
        raise Damaged(f"{output.file} has {status.st_size} bytes and not {output.size}")
    pieces = output.meta.get("pieces")
    if full or output.size <= PIECE or not isinstance(pieces, list):
        if file_digest(path, progress)[0] != output.digest:
            raise Damaged(f"{output.file} is not what was written")
        return
    if combine("tree", output.size, *map(str, pieces)) != output.digest:
        raise Damaged(f"{output.file} has pieces that are not its digest's")
    _check_pieces(path, output, [str(piece) for piece in pieces], progress)


def _check_pieces(path: Path, output: Output, pieces: list[str], progress: Callable[[int], None]) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for number in sample(len(pieces)):
            if piece_digest(descriptor, number) != pieces[number]:
                raise Damaged(f"{output.file} is not what was written (bytes from {number * PIECE})")
            progress(PIECE)
    finally:
        os.close(descriptor)


def sample(count: int) -> list[int]:
    """Return the first, the last and some other numbers below `count`."""
    inner = range(1, count - 1)
    return sorted({0, count - 1, *random.sample(inner, min(SAMPLED_PIECES, len(inner)))})
