"""Every scenario, in real kernels: what comes of each cell, and that all is as without the cache."""

from __future__ import annotations

import zlib
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest
from play import play
from story import AREAS, Story, stories

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import StartKernel

PANDAS = int(version("pandas").split(".")[0])
STORIES = [story for story in stories() if PANDAS >= 3 or "(pandas 3)" not in story.id]
"""Before pandas 3 a slice is a window onto its frame, and two frames that share memory are not stored: a bypass."""


def _is_long(story: Story) -> bool:
    """Tell whether a story is told with ``--long`` alone: one in three, the same ones on every day."""
    return zlib.crc32(story.id.encode()) % 3 == 0


TOLD = [pytest.param(s, id=s.id, marks=[pytest.mark.long] if _is_long(s) else []) for s in STORIES]
"""All of them take a quarter of an hour and more on two cores; ``table.py`` plays all."""


@pytest.mark.parametrize("story", TOLD)
def test_the_notebook_is_as_it_would_be_without_the_cache(
    story: Story, start_kernel: StartKernel, tmp_path: Path
) -> None:
    assert [str(fault) for fault in play(story, start_kernel, tmp_path)] == []


def test_there_are_scenarios_enough_and_no_two_of_one_name() -> None:
    assert len(STORIES) >= 150
    assert len({story.id for story in STORIES}) == len(STORIES)
    assert {story.area for story in STORIES} == set(AREAS)


@pytest.mark.parametrize("area", AREAS)
def test_every_area_has_hits_and_misses(area: str) -> None:
    verbs = {step.verb for story in STORIES if story.area == area for step in story.steps}
    assert {"hit", "miss"} <= verbs
