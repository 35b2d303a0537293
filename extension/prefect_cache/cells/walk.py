"""From any value to one digest of its whole content, without recursion.

A type's *handler* says what a value is made of: a :class:`Shape` with a label, which is the
digest of everything that the value holds by itself, and its children in order. The walk hashes
a value when all of its children are hashed. Where values refer to each other in a circle
(Tarjan's strongly connected components), their digests are found by refinement: first each
member's label, then the label with the children's colours, until no more members can be told
apart. So a digest stands for the infinite unfolding of a value: it does not depend on where the
walk came in, nor on which equal parts are one object. Which are is reported beside it.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from prefect_cache.cells import leaves
from prefect_cache.digests import combine, digest
from prefect_cache.errors import Unfingerprintable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from types import FunctionType

    from prefect_cache.model import Digest, Json, ObjectPath, Step

MAX_COLOURINGS = 20_000_000
"""Colours that one circle of references may take before the walk gives up (about half a minute)."""


class Shape:
    """What a value is made of.

    Attributes
    ----------
    label
        Digest of the type and of all that the value holds by itself.
    children, steps
        The parts that have digests of their own, and the step to each. The step ``("made", ...)`` leads to
        something that the handler made for the occasion: what lies beneath is hashed, but is no node.
    mutable
        Whether the value can change in place: it becomes a node.
    shareable
        Whether it matters that two paths lead to this one object: not for functions, classes, labels.
    unordered
        Whether the order of the children means nothing (sets).
    detail
        Gives what a person wants to know of the value, from the children's digests.
    """

    __slots__ = ("children", "detail", "label", "mutable", "shareable", "steps", "unordered")

    def __init__(
        self,
        label: Digest,
        children: Sequence[object] = (),
        steps: Sequence[Step] = (),
        *,
        mutable: bool = False,
        shareable: bool | None = None,
        unordered: bool = False,
        detail: Callable[[Sequence[Digest]], dict[str, Json]] | None = None,
    ) -> None:
        self.label = label
        self.children = children
        self.steps = steps
        self.mutable = mutable
        self.shareable = mutable if shareable is None else shareable
        self.unordered = unordered
        self.detail = detail


class Met:
    """What handlers met besides content; this one forgets it all."""

    def function(self, function: FunctionType) -> None:
        """Note a function of the user's own: what it reads from its globals counts as well."""

    def package(self, module: str) -> None:
        """Note the top-level module of an installed package."""

    def module(self, name: str) -> None:
        """Note a module of the user's own, used as a whole."""

    def strings(self, found: Sequence[object]) -> None:
        """Note values of which those that are text may name files."""

    def array(self, array: Any) -> None:
        """Note an ndarray, which may overlap with another one in memory."""


class Seen(NamedTuple):
    """A hashed value; it is held so that its id stays its own."""

    value: object
    digest: Digest
    number: int
    """Where it stands on the trail, of the values that have a place."""
    nodes: bool
    """Whether it is or holds anything mutable that may be shared."""


class _Visit:
    """A value whose children are being hashed; a slot holds a child's digest, or the id of one in the same circle."""

    __slots__ = ("index", "low", "made", "nodes", "number", "shape", "slots", "value")

    def __init__(self, value: object, shape: Shape, number: int, index: int, *, made: bool) -> None:
        self.value = value
        self.shape = shape
        self.number = number
        self.index = index
        self.low = index
        self.slots: list[Digest | int] = []
        self.nodes = shape.shareable
        self.made = made


class Trail:
    """Every value met, as its parent's number and the step from there; paths are built when asked for."""

    def __init__(self, seen: dict[int, Seen]) -> None:
        self._seen = seen
        self.values: list[object] = []
        self.mutable: list[bool] = []
        self._parents: list[int] = []
        self._steps: list[Step | ObjectPath] = []
        self.again: list[tuple[int, int, Step | ObjectPath]] = []
        """(the value's number, parent, step) for each further path to a shareable value."""

    def add(self, value: object, parent: int, step: Step | ObjectPath, *, mutable: bool) -> int:
        """Append a value; `parent` is -1 for the root of a walk, whose step is a whole path."""
        self.values.append(value)
        self.mutable.append(mutable)
        self._parents.append(parent)
        self._steps.append(step)
        return len(self.values) - 1

    def path(self, number: int) -> ObjectPath:
        """Return the path of a value."""
        return self._path(number, self._parents[number], self._steps[number])

    def _path(self, number: int, parent: int, step: Any) -> ObjectPath:
        """Return the path that leads from a parent's path by one step to a value (-1: to one that has no number)."""
        steps: list[Step] = []
        while parent >= 0:
            steps.append(self._member(number) if step[0] == "member" else step)
            number, parent, step = parent, self._parents[parent], self._steps[parent]
        return (*step, *reversed(steps))

    def _member(self, number: int) -> Step:
        """Return the step to an element of a set, which is found again by its digest."""
        known = self._seen.get(id(self.values[number])) if number >= 0 else None
        return ("member", known.digest if known is not None else "")

    def placed(self, error: Unfingerprintable, parent: int, step: Step | ObjectPath) -> Unfingerprintable:
        """Return the error with the place that it speaks of, and the name that leads there."""
        path = self._path(-1, parent, step)
        values: list[object] = []
        while parent >= 0:
            values.append(self.values[parent])
            parent = self._parents[parent]
        values += [None] * (len(path) - len(values))
        where = "".join(_spelled(value, step) for value, step in zip(reversed(values), path, strict=True))
        name = str(path[0][1]) if path else error.name
        return Unfingerprintable(f"{where or 'a value'} {error.message}", name=name, remedy=error.remedy)

    def shared(self) -> list[tuple[ObjectPath, ObjectPath]]:
        """Return (a path, another path to the same object), in an order that does not depend on the walk's."""
        ways: dict[int, list[ObjectPath]] = {}
        for number, parent, step in self.again:
            ways.setdefault(number, [self.path(number)]).append(self._path(number, parent, step))
        pairs: list[tuple[ObjectPath, ObjectPath]] = []
        for paths in ways.values():
            first, *others = sorted(set(paths), key=repr)
            pairs += [(first, other) for other in others]
        return sorted(pairs, key=repr)


class Walk:
    """Hashes values; what it has seen once it does not look at again."""

    def __init__(self, shape_of: Callable[[object, Walk], Shape], met: Met | None = None) -> None:
        self.shape_of = shape_of
        self.met = met or Met()
        self.seen: dict[int, Seen] = {}
        self.trail = Trail(self.seen)
        self.children: dict[int, tuple[int, ...]] = {}
        """Of mutable values whose parts have an order, by ``id``, the parts' ids: which objects these were."""
        self.shape: Shape | None = None
        self.slots: Sequence[Digest] = ()
        """The shape of the last root, and its children's digests."""
        self._open: dict[int, _Visit] = {}
        self._waiting: list[_Visit] = []

    def digest(self, root: object, path: ObjectPath = ()) -> Digest:
        """Return the digest of a value; raises :class:`Unfingerprintable` with the path to what stands in the way."""
        self.shape, self.slots = None, ()
        kind = leaves.code(root)
        if kind != leaves.COMPOUND:
            return leaves.leaf_digest(root, kind)
        known = self.seen.get(id(root))
        if known is not None:
            self._meet_again(known.number, nodes=known.nodes, parent=-1, step=path)
            return known.digest
        try:
            return self._walk(root, path)
        finally:
            self._open.clear()
            self._waiting.clear()

    def _walk(self, root: object, path: ObjectPath) -> Digest:
        top = self._enter(root, -1, path, made=False)
        assert top is not None  # noqa: S101 - only a child may be closed at once
        stack = [top]
        while stack:
            visit = stack[-1]
            shape, done = visit.shape, len(visit.slots)
            if done < len(shape.children):
                deeper = self._child(visit, shape.children[done], shape.steps[done])
                if deeper is not None:
                    stack.append(deeper)
                continue
            stack.pop()
            if shape.mutable and not shape.unordered:
                self.children[id(visit.value)] = tuple(map(id, shape.children))
            visit.nodes &= shape.shareable or not shape.mutable
            if visit.low == visit.index:
                self._close(visit)
            if stack:
                parent = stack[-1]
                closed = self.seen.get(id(visit.value))
                parent.slots.append(closed.digest if closed else id(visit.value))
                parent.low = min(parent.low, visit.low)
                parent.nodes |= visit.nodes
        self.shape = top.shape
        self.slots = [self.seen[s].digest if isinstance(s, int) else s for s in top.slots]
        return self.seen[id(root)].digest

    def _enter(self, value: object, parent: int, step: Step | ObjectPath, *, made: bool) -> _Visit | None:
        try:
            shape = self.shape_of(value, self)
        except Unfingerprintable as error:
            raise self.trail.placed(error, parent, step) from None
        number = self.trail.add(value, parent, step, mutable=shape.mutable and not made)
        if not shape.children and parent >= 0:
            self.seen[id(value)] = Seen(value, shape.label, number, shape.shareable)
            return None
        visit = _Visit(value, shape, number, len(self._open), made=made)
        self._open[id(value)] = visit
        self._waiting.append(visit)
        return visit

    def _child(self, visit: _Visit, child: object, step: Step) -> _Visit | None:
        """Fill the next slot, or return the visit that must come first."""
        kind = leaves.code(child)
        if kind != leaves.COMPOUND:
            visit.slots.append(leaves.leaf_digest(child, kind))
            return None
        known = self.seen.get(id(child))
        if known is not None:
            visit.slots.append(known.digest)
            visit.nodes |= known.nodes
            self._meet_again(known.number, nodes=known.nodes, parent=visit.number, step=step)
            return None
        waiting = self._open.get(id(child))
        if waiting is not None:
            visit.slots.append(id(child))
            visit.low = min(visit.low, waiting.index)
            self._meet_again(waiting.number, nodes=waiting.shape.shareable, parent=visit.number, step=step)
            return None
        deeper = self._enter(child, visit.number, step, made=visit.made or step[0] == "made")
        if deeper is None:
            closed = self.seen[id(child)]
            visit.slots.append(closed.digest)
            visit.nodes |= closed.nodes
        return deeper

    def _meet_again(self, number: int, *, nodes: bool, parent: int, step: Step | ObjectPath) -> None:
        if nodes and not (parent >= 0 and step[0] == "class"):
            self.trail.again.append((number, parent, step))

    def _close(self, visit: _Visit) -> None:
        """Give digests to a circle of values that only now is complete; mostly it is one value."""
        members = self._waiting[visit.index :]
        del self._waiting[visit.index :]
        if len(members) == 1 and id(visit.value) not in visit.slots:
            digests = [_node(visit.shape, visit.slots)]
        else:
            digests = _circle(members)
        nodes = any(m.nodes for m in members)
        for member, found in zip(members, digests, strict=True):
            del self._open[id(member.value)]
            self.seen[id(member.value)] = Seen(member.value, found, member.number, nodes)


def _node(shape: Shape, children: Sequence[Any]) -> Digest:
    if not children:
        return shape.label
    return digest(f"node:{shape.label}{''.join(sorted(children) if shape.unordered else children)}".encode())


def _circle(members: Sequence[_Visit]) -> list[Digest]:
    """Return the digests of values that refer to each other.

    The colours of the last round name the states of the circle's unfolding, and the table of
    all of them says how each goes on; so equal digests mean equal unfoldings.
    """
    place = {id(m.value): i for i, m in enumerate(members)}
    colours = [m.shape.label for m in members]
    kinds, spent = 0, 0
    while (count := len(set(colours))) > kinds:
        kinds = count
        spent += len(members)
        if spent > MAX_COLOURINGS:
            message = f"{len(members):,} objects that refer to each other are too entangled to fingerprint"
            raise Unfingerprintable(message, remedy="Leave the value out with --ignore, or pass a simpler one.")
        table = [_node(m.shape, list(_coloured(m, colours, place))) for m in members]
        colours = [combine("colour", c, t) for c, t in zip(colours, table, strict=True)]
    whole = combine("circle", *sorted(set(colours)))
    return [combine("in circle", whole, colour) for colour in colours]


def _coloured(member: _Visit, colours: Sequence[Digest], place: dict[int, int]) -> Iterator[Digest]:
    for slot in member.slots:
        yield colours[place[slot]] if isinstance(slot, int) else slot


def spell(path: ObjectPath) -> str:
    """Return a path as a person would write it: ``orders[key 2][3].lock``."""
    return "".join(_spelled(None, step) for step in path)


def _spelled(value: object, step: Step) -> str:
    """Return one step as a person would write it, with the key itself where the dict is at hand."""
    kind, key = step
    match kind:
        case "name" | "module":
            return str(key)
        case "attr":
            return f".{key}"
        case "index":
            return f"[{key}]"
        case "key" if isinstance(value, dict):
            return f"[{truncated(repr(next(islice(value, int(key), None))), 40)}]"
        case "class":
            return ".__class__"
        case "made":
            return f" ({key})"
        case _:
            return f"[{kind} {key}]"


def truncated(text: str, limit: int = 200) -> str:
    """Return text that fits a detail."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def shorts(digests: Collection[Digest]) -> list[Digest]:
    """Return digests short enough to stand in a detail by the hundred."""
    return [d[:12] for d in digests]
