"""Plays a scenario twice in real kernels, with the cache and without, and tells where the two differ."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Protocol

    from story import Step, Story

    from kernels import Kernel, Ran

    class Start(Protocol):
        """Starts a kernel in a folder."""

        def __call__(self, *, cwd: Path) -> Kernel: ...


SNAPSHOT = Path(__file__).parents[1] / "fuzz"
_NAMESPACE = f"""(__import__('sys').path.append({str(SNAPSHOT)!r}), __import__('snapshot').namespace(
    {{k: v for k, v in get_ipython().user_ns.items() if not hasattr(v, '__line_cell_magics__')}}
), __import__('sys').path.remove({str(SNAPSHOT)!r}))[1]""".replace("\n", " ")

_TIMES = re.compile(r"\d+(\.\d+)?(e[+-]\d+)? (ns|[µμ]s|ms|s)\b")
"""What ``%time`` measured, which no two runs share."""

DATED = {".png", ".pdf", ".zip", ".gz", ".tar", ".db", ".sqlite", ".parquet"}
"""Endings of files in which dates or random names stand."""

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_PLACE = re.compile(r" \(\d+\.py, line \d+\)$")
"""Where IPython 8 says that a syntax error is, counting the line with the magic."""

_CELL = re.compile(r"\S*/ipykernel_\d+/\d+\.py:\d+")
"""Where a warning says that it comes from; the line with the magic is one more."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that was not as it must be."""

    kind: str
    """``"status"``, ``"values"``, ``"shown"``, ``"files"`` or ``"error"``."""
    step: int
    expected: Any
    got: Any

    def __str__(self) -> str:
        return f"step {self.step}: {self.kind}: expected {_short(self.expected)}, got {_short(self.got)}"


@dataclass(slots=True)
class Seen:
    """What one step showed and left behind."""

    names: dict[str, object]
    shown: list[tuple[str, str]]
    error: str
    status: str = ""
    files: Mapping[str, str] = field(default_factory=dict)


def play(story: Story, start: Start, folder: Path) -> list[Fault]:
    """Return what went wrong; an empty list is success."""
    home = folder / "notebook"
    plain = [] if story.chance else [*_live(story, start, home, cached=False)]
    cached = [*_live(story, start, home, cached=True)]
    faults: list[Fault] = []
    for number, (step, seen) in enumerate(zip(story.steps, cached, strict=True)):
        if seen is None:
            continue
        if step.cached and step.verb not in {seen.status, "error"}:
            faults.append(Fault("status", number, step.verb, seen.status))
        if step.verb == "check":
            faults += [Fault("values", number, step.body, seen.error)] if seen.error else []
        elif plain:
            faults += _differences(number, plain[number], seen)
    return faults


def _differences(number: int, plain: Seen | None, cached: Seen) -> Iterator[Fault]:
    assert plain is not None
    if plain.error != cached.error:
        yield Fault("error", number, plain.error, cached.error)
    if plain.shown != cached.shown:
        yield Fault("shown", number, plain.shown, cached.shown)
    if plain.files != cached.files:
        yield Fault("files", number, plain.files, cached.files)
    for name in sorted({*plain.names, *cached.names}):
        if plain.names.get(name) != cached.names.get(name):
            yield Fault("values", number, {name: plain.names.get(name)}, {name: cached.names.get(name)})


def _live(story: Story, start: Start, home: Path, *, cached: bool) -> Iterator[Seen | None]:
    """Play all steps in one folder, which is as empty as it was afterwards."""
    home.mkdir(parents=True)
    kernel = _fresh(start(cwd=home), cached=cached)
    try:
        for step in story.steps:
            yield _act(step, kernel, home, cached=cached)
    finally:
        kernel.stop()
        shutil.rmtree(home)


def _fresh(kernel: Kernel, *, cached: bool) -> Kernel:
    if cached:
        kernel.run("%load_ext prefect_cache")
    else:
        kernel.run("")
    return kernel


def _act(step: Step, kernel: Kernel, home: Path, *, cached: bool) -> Seen | None:
    match step.verb:
        case "restart":
            kernel.restart()
            _fresh(kernel, cached=cached)
        case "write":
            (home / step.words).parent.mkdir(parents=True, exist_ok=True)
            (home / step.words).write_text(step.body + "\n")
        case "remove":
            (home / step.words).unlink()
        case "check" if not cached:
            return None
        case _:
            return _run(step, kernel, home, cached=cached)
    return None


def _run(step: Step, kernel: Kernel, home: Path, *, cached: bool) -> Seen:
    ran = kernel.run(step.source if cached else step.body, check=False)
    error = _PLACE.sub("", f"{ran.error['ename']}: {ran.error['evalue']}") if ran.error else ""
    status = kernel.value("getattr(__import__('prefect_cache').last, 'status', '')") if cached and step.cached else ""
    return Seen(kernel.value(_NAMESPACE), _shown(ran), error, status, _files(home))


def _files(home: Path) -> dict[str, str]:
    """Return what lies in the notebook's folder; of pictures and databases, which hold dates, only that they do."""
    return {
        str(path.relative_to(home)): "" if path.suffix in DATED else path.read_bytes().hex()[:4000]
        for path in sorted(home.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    }


def _shown(ran: Ran) -> list[tuple[str, str]]:
    """Return what stands below the cell, images by their beginning (two drawings of one figure differ in dates)."""
    shown: list[tuple[str, str]] = []
    for output in ran.outputs:
        kind = output["output_type"]
        if kind == "stream":
            shown.append((output["name"], _CELL.sub("<cell>", _TIMES.sub("...", output["text"]))))
        elif kind != "error" and any(map(str, output["data"].values())):  # else a word to who waited, taken back
            shown += [
                (f"{kind} {mime}", _ADDRESS.sub("", str(data)[:2000])) for mime, data in sorted(output["data"].items())
            ]
    return shown


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 600 else f"{text[:600]}..."
