"""Gathers what a composite value is made of, piece by piece, into a :class:`Shape`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect_cache.cells import leaves
from prefect_cache.cells.walk import Shape
from prefect_cache.digests import combine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from prefect_cache.model import Digest, Json, Step


class Pieces:
    """The digests of a value's own pieces in order, and those of its parts that need a look of their own."""

    def __init__(self, *own: str | int) -> None:
        self._own: list[str | int] = list(own)
        self._children: list[object] = []
        self._steps: list[Step] = []

    def own(self, *pieces: str | int) -> None:
        """Append digests, or short texts and numbers."""
        self._own += pieces

    def part(self, step: Step, value: object) -> Digest:
        """Append a part and return its digest; empty where it is hashed as a child."""
        kind = leaves.code(value)
        made = leaves.leaf_digest(value, kind) if kind != leaves.COMPOUND else ""
        if kind == leaves.COMPOUND:
            self._children.append(value)
            self._steps.append(step)
        self._own.append(made)
        return made

    def run(self, items: Sequence[object], step: Callable[[int], Step]) -> Digest:
        """Append many parts at once, and return the digest of their leaves."""
        kinds = leaves.codes(items)
        made = leaves.run_digest(items, kinds)
        for place in leaves.compounds(items, kinds):
            self._children.append(items[place])
            self._steps.append(step(place))
        self._own.append(made)
        return made

    def attributes(self, held: Mapping[str, object]) -> None:
        """Append named parts, by name."""
        for name in sorted(held):
            self._own.append(name)
            self.part(("attr", name), held[name])

    def shape(
        self,
        tag: str,
        *,
        mutable: bool,
        shareable: bool | None = None,
        detail: Callable[[Sequence[Digest]], dict[str, Json]] | None = None,
    ) -> Shape:
        """Return the shape."""
        label = combine(tag, *self._own)
        return Shape(label, self._children, self._steps, mutable=mutable, shareable=shareable, detail=detail)
