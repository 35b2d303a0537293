"""Codecs: one value <-> one file.

A codec is asked whether it accepts a value, writes it to a file of its own, and reads it back exactly.
The first that accepts wins; the last one pickles and accepts what nobody else does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Protocol

from prefect_cache.errors import Damaged

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from pathlib import Path

    from prefect_cache.codecs.body import Progress
    from prefect_cache.codecs.parts import Part, Shelf
    from prefect_cache.codecs.pickled import Refer, Resolve
    from prefect_cache.model import Digest, Json


@dataclass(frozen=True, slots=True)
class Written:
    """What a codec wrote: the file's tree digest and size, and what a manifest says of the value.

    `meta` holds ``pieces`` (the digests of the file's pieces), and as the value has them ``rows``, ``columns``,
    ``shape``, ``dtype``; ``needs_trust`` where the file can be read only if it is trusted; ``runs`` and ``parts``
    where other files may share its bytes or it theirs (``codecs.parts``). `parts` are the files that it now shares.
    """

    digest: Digest
    size: int
    meta: dict[str, Json] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()


class Codec(Protocol):
    """One kind of file."""

    name: str
    suffix: str

    def accepts(self, value: object) -> bool:
        """Tell, by type alone and without importing anything, whether values like this are written by this codec."""

    def write(
        self,
        value: object,
        path: Path,
        *,
        namespace: Mapping[str, object] | None = None,
        refer: Refer | None = None,
        shelf: Shelf | None = None,
        progress: Progress | None = None,
    ) -> Written:
        """Make the file; raise Unstorable with the reason, or OSError as it comes. What fails leaves no file."""

    def read(
        self,
        path: Path,
        meta: Mapping[str, Json],
        *,
        trusted: bool,
        namespace: MutableMapping[str, object] | None = None,
        resolve: Resolve | None = None,
    ) -> object:
        """Return the value; raise Damaged, or Untrusted where the file names what needs trust."""


@cache
def codecs() -> tuple[Codec, ...]:
    """Return all codecs, in the order in which they are asked."""
    from prefect_cache.codecs.arrays import ArrayCodec
    from prefect_cache.codecs.frames import ArrowCodec
    from prefect_cache.codecs.pickled import PickledCodec

    return (ArrowCodec(), ArrayCodec(), PickledCodec())


def codec_for(value: object) -> Codec:
    """Return the codec that writes values like this."""
    return next(one for one in codecs() if one.accepts(value))


def codec(name: str) -> Codec:
    """Return a codec by the name that a manifest gives; a name from elsewhere is damage."""
    for one in codecs():
        if one.name == name:
            return one
    raise Damaged(f"there is no codec named {name!r} here")
