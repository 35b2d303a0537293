"""What a list shows of an entry: a few plain facts, worked out when the entry comes into the index.

A hundred thousand of these are read in a fraction of the time that as many entries would take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prefect_cache.model import Json, Manifest, Output

UNREADABLE = "unreadable entry"
NAMELESS = "a cell"


class Brief(NamedTuple):
    """One entry in a list, or a folder that is no good entry any more.

    Attributes
    ----------
    address
        The folder's name.
    name
        For people.
    outputs
        The names of what it holds.
    rows, columns
        Of its largest frame; None where it has none.
    size
        Bytes, each hard-linked file in full.
    created, used, expires
        Seconds since the epoch.
    hits, saved
        How often it was restored, and the seconds that this spared.
    notebook
        Where its cell ran.
    pinned
        Whether retention must leave it alone.
    damage
        What is wrong with it; empty where nothing is.
    words
        All that a search looks through, in lower case, the name first.
    """

    address: str
    name: str
    outputs: str = ""
    rows: int | None = None
    columns: int | None = None
    size: int = 0
    created: float = 0.0
    used: float = 0.0
    hits: int = 0
    saved: float = 0.0
    notebook: str = ""
    pinned: bool = False
    expires: float | None = None
    damage: str = ""
    words: str = ""


class Facts(NamedTuple):
    """What the outputs and names of a manifest come to in a list."""

    outputs: str
    rows: int | None
    columns: int | None
    words: str


def facts(manifest: Manifest) -> Facts:
    """Return what a list shows and searches of a manifest."""
    values = [o for o in manifest.outputs if not o.is_part]
    frame = max((o for o in values if "rows" in o.meta), key=lambda o: o.size, default=None)
    # A file of values that belong together is called after all of them.
    names = list(dict.fromkeys(name for o in values for name in o.name.split(", ")))
    outputs = ", ".join(names)
    words = [manifest.name or outputs or NAMELESS, *names, manifest.run.notebook, *_column_names(values)]
    return Facts(
        outputs=outputs,
        rows=_whole(frame.meta.get("rows")) if frame else None,
        columns=_width(frame) if frame else None,
        words="\n".join(words).lower(),
    )


def is_array(output: Output) -> bool:
    """Tell whether an output is an array, which is shown by shape and corner rather than by rows."""
    return output.codec == "array" and output.kind == "ndarray"


def _width(output: Output) -> int | None:
    shape = output.meta.get("shape")
    if is_array(output) and isinstance(shape, list):
        return _whole(shape[1]) if len(shape) == 2 else None  # noqa: PLR2004 - rows and columns
    if isinstance(total := output.meta.get("total_columns"), int):
        return total
    told = output.meta.get("columns")
    return len(told) if isinstance(told, list) else _whole(told)


def _whole(value: Json) -> int | None:
    # SQLite's integers have 64 bits; no honest frame has more rows.
    return value if isinstance(value, int) and abs(value) < 2**63 else None


def _column_names(outputs: Iterable[Output]) -> list[str]:
    found: list[str] = []
    for output in outputs:
        told = output.meta.get("columns")
        if isinstance(told, list):
            found += [str(c["name"] if isinstance(c, dict) and "name" in c else c) for c in told]
    return found
