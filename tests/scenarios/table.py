"""The conformance table: ``python tests/scenarios/table.py [--only WORDS] [--peers] [--markdown]``.

Each scenario is played in real kernels, with the cache and without. *Right* are those in which every value,
display and error was that of the plain notebook; *as told* those in which each cell also was the hit, miss or
bypass that the scenario says.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from play import Fault, play  # noqa: E402
from story import AREAS, Story, stories  # noqa: E402

from kernels import Kernel, Kernels  # noqa: E402 - the folders above are put on the path first

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

WORKERS = int(os.environ.get("WORKERS", "2"))


@dataclass(frozen=True, slots=True)
class Played:
    """One scenario and what went wrong in it."""

    story: Story
    faults: tuple[Fault, ...]
    seconds: float

    @property
    def right(self) -> bool:
        """Whether nothing differed from the plain notebook."""
        return all(fault.kind == "status" for fault in self.faults)


def play_all(chosen: Sequence[Story], on_each: Callable[[Played], None] = lambda _: None) -> list[Played]:
    """Play scenarios, several at a time, each with a store and a home of its own."""
    with tempfile.TemporaryDirectory(prefix="scenarios-") as root, ThreadPoolExecutor(WORKERS) as pool:
        hands = [Kernels() for _ in range(WORKERS)]
        free = list(hands)

        def one(story: Story) -> Played:
            kernels = free.pop()
            started = time.monotonic()
            try:
                folder = Path(tempfile.mkdtemp(dir=root))
                faults = play(story, lambda cwd: _start(kernels, folder, cwd), folder)
            except Exception as error:
                faults = [Fault("error", -1, "", f"{type(error).__name__}: {error}")]
            finally:
                free.append(kernels)
            played = Played(story, tuple(faults), time.monotonic() - started)
            on_each(played)
            return played

        try:
            return list(pool.map(one, chosen))
        finally:
            for kernels in hands:
                kernels.__exit__()


def _start(kernels: Kernels, folder: Path, cwd: Path) -> Kernel:
    home = folder / "home"
    home.mkdir(exist_ok=True)
    variables = {"HOME": home, "PREFECT_CACHE_DIR": folder / "store", "PREFECT_HOME": folder.parent / "prefect"}
    variables |= {f"XDG_{kind}_HOME": home / kind.lower() for kind in ("CACHE", "CONFIG", "DATA", "STATE")}
    variables |= {"MPLCONFIGDIR": folder.parent / "matplotlib", "IPYTHONDIR": folder.parent / "ipython"}
    return kernels.start(cwd=cwd, env={name: str(value) for name, value in variables.items()})


def rows(played: Sequence[Played]) -> Iterator[tuple[str, int, int, int]]:
    """Yield area, number of scenarios, those that were right, those that were as told."""
    by_area: dict[str, list[Played]] = defaultdict(list)
    for one in played:
        by_area[one.story.area].append(one)
    for area in AREAS:
        if found := by_area[area]:
            yield area, len(found), sum(one.right for one in found), sum(not one.faults for one in found)
    yield "all", len(played), sum(one.right for one in played), sum(not one.faults for one in played)


def as_markdown(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """Return a table as Markdown."""
    text = [" | ".join(head), " | ".join(["---", *["--:"] * (len(head) - 1)])]
    return "\n".join(f"| {line} |" for line in [*text, *(" | ".join(map(str, line)) for line in lines)])


def main() -> int:
    """Play and print; fail where a scenario did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="scenarios with these words in area and title")
    options = parser.parse_args()
    chosen = [story for story in stories() if options.only in story.id]
    started = time.monotonic()

    def show(played: Played) -> None:
        print("." if not played.faults else f"\n{played.story.id}", end="", flush=True)
        print(
            "".join(f"\n    {fault}" for fault in played.faults) + ("\n" if played.faults else ""), end="", flush=True
        )

    played = play_all(chosen, show)
    print("\n\n" + as_markdown(("area", "scenarios", "right", "as told"), [*rows(played)]))
    print(f"\n{time.monotonic() - started:.0f} s; slowest:")
    for one in sorted(played, key=lambda one: -one.seconds)[:5]:
        print(f"  {one.seconds:5.1f} s  {one.story.id}")
    return int(any(one.faults for one in played))


if __name__ == "__main__":
    raise SystemExit(main())
