"""What is shown while people wait: nothing for a moment, then pictures in one place, and nothing in the end."""

from __future__ import annotations

import time

import pytest

from prefect_cache import progress
from prefect_cache.progress import Bar, Progress, Waiting


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
