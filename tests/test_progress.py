"""What is shown while people wait: nothing for a moment, then pictures in one place, and nothing in the end."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

from prefect_cache import progress
from prefect_cache.progress import Bar, Progress, Waiting

if TYPE_CHECKING:
    from pathlib import Path

    from kernels import Kernel, Ran


class Screen:
    """Takes what is shown, by place."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, str | None, bool]] = []

    def __call__(self, thing: object, display_id: str | None = None, *, update: bool = False) -> None:
        self.shown.append((repr(thing), display_id, update))

    @property
    def texts(self) -> list[str]:
        return [text for text, _, _ in self.shown]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """A screen, and people who lose patience at once."""
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setattr(progress, "EVERY", 0.01)
    return Screen()


def test_a_bar_appears_once_moves_and_goes(screen: Screen) -> None:
    with Progress(screen, "checking") as step:
        step(1, 4)
        time.sleep(0.02)
        step(4, 4)
    assert screen.texts == ["checking [#####---------------] 25 %", "checking [####################] 100 %", ""]
    assert len({identity for _, identity, _ in screen.shown}) == 1
    assert [update for _, _, update in screen.shown] == [False, True, True]


def test_quick_work_shows_nothing() -> None:
    screen = Screen()
    with Progress(screen, "checking") as step, Waiting(screen) as waiting:
        waiting.says("storing")
        step(1, 1)
    assert screen.shown == []


def test_waiting_says_what_for_and_how_long(screen: Screen) -> None:
    with Waiting(screen) as waiting:
        waiting.says("storing")
        while not screen.shown:
            time.sleep(0.01)
    assert screen.texts[0] == "storing, 0 s"
    assert screen.texts[-1] == ""


def test_nothing_is_shown_while_the_cell_itself_runs(screen: Screen) -> None:
    with Waiting(screen) as waiting:
        waiting.says("looking")
        while not screen.shown:
            time.sleep(0.01)
        waiting.says("")
        count = len(screen.shown)
        assert screen.texts[-1] == ""
        time.sleep(0.05)
        assert len(screen.shown) == count


def test_an_interrupt_clears_the_picture(screen: Screen) -> None:
    def interrupted() -> None:
        with Progress(screen, "checking") as step:
            step(1, 2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(screen.shown) == 2
    assert screen.texts[-1] == ""


def test_a_picture_in_a_notebook_is_escaped() -> None:
    assert Bar("<b>", 1, 2)._repr_html_() == '&lt;b&gt; <progress value="1" max="2"></progress>'
    assert Bar("storing")._repr_html_() == "storing <progress></progress>"
    assert Bar()._repr_html_() == ""


def test_waiting_shows_bytes_and_a_bar_once_their_number_is_known(screen: Screen) -> None:
    with Waiting(screen) as waiting:
        waiting.says("storing")
        for done, total in ((2_000_000, 0), (3_000_000, 4_000_000)):
            waiting(done, total)
            before = len(screen.shown)
            while len(screen.shown) < before + 2:
                time.sleep(0.01)
    assert "storing, 2.0 MB, 0 s" in screen.texts
    assert "storing, 3.0 MB of 4.0 MB [###############-----] 75 %" in screen.texts
    assert screen.texts[-1] == ""


# In a notebook, on a disk that takes its time.

SLOW_WRITES = """
import os, time
def write_slowly(*given, write=os.pwrite):
    time.sleep(0.3)
    return write(*given)
os.pwrite = write_slowly
"""
SLOW_READS = """
import time
from prefect_cache.digests import TreeHasher
def update_slowly(self, data, update=TreeHasher.update):
    time.sleep(0.3)
    return update(self, data)
TreeHasher.update = update_slowly
"""
CELL = "%%prefect_cache\nimport numpy as np\na = np.arange(4_000_000)\nb = np.arange(1_000_000) / 7"


def pictures(ran: Ran) -> list[str]:
    """Return the texts of all displays in the order in which they came."""
    shown = [content for kind, content in ran.messages if kind in {"display_data", "update_display_data"}]
    return [content["data"].get("text/plain", "") for content in shown]


def percents(ran: Ran) -> list[int]:
    """Return how far the bars were."""
    return [int(found[1]) for text in pictures(ran) if (found := re.search(r"(\d+) %$", text))]


def test_storing_shows_a_bar(kernel: Kernel) -> None:
    kernel.run("%load_ext prefect_cache")
    kernel.run(SLOW_WRITES)
    ran = kernel.run(CELL)
    assert "storing what the cell made" in " ".join(pictures(ran))
    assert "of 40 MB" in " ".join(pictures(ran))
    assert len(set(percents(ran))) > 2
    assert percents(ran)[-1] > percents(ran)[0] + 50
    assert not [out for out in ran.outputs if "storing" in str(out)]


def test_verifying_shows_a_bar(kernel: Kernel) -> None:
    kernel.run("%load_ext prefect_cache\n%config PrefectCache.verify = 'full'")
    kernel.run(CELL)
    kernel.restart()
    kernel.run("%load_ext prefect_cache\n%config PrefectCache.verify = 'full'")
    kernel.run(SLOW_READS)
    ran = kernel.run(CELL)
    assert kernel.value("__import__('prefect_cache').last.status") == "hit"
    assert len(set(percents(ran))) > 2
    checked = kernel.run("%prefect_cache check")
    assert "checking" in " ".join(pictures(checked))
    assert len(set(percents(checked))) > 2


def test_storing_can_be_interrupted(kernel: Kernel, store_root: Path) -> None:
    kernel.run("%load_ext prefect_cache")
    kernel.run(SLOW_WRITES)
    request = kernel.submit(CELL)
    drafts = store_root / "drafts"
    while not list(drafts.glob("*/00-a.arrow")):
        time.sleep(0.01)
    time.sleep(0.5)
    kernel.interrupt()
    ran = kernel.collect(request)
    assert ran.status == "ok"
    assert "storing it was interrupted" in " ".join(pictures(ran))
    assert kernel.value("(int(a[-1]), len(b))") == (3_999_999, 1_000_000)
    assert not list(drafts.iterdir())
    assert not list((store_root / "entries").iterdir())
    kernel.run("os.pwrite = write_slowly.__kwdefaults__['write']")
    kernel.run(CELL)
    assert kernel.value("__import__('prefect_cache').last.status") == "miss"
