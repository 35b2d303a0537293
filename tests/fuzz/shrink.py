"""The shortest history that still shows a difference: steps taken out, then statements, then options."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from history import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from history import History


def shrink(history: History, fails: Callable[[History], bool], *, tries: int = 60) -> History:
    """Return a history no part of which can be taken out alone (or the best after so many tries)."""
    budget = iter(range(tries))
    smaller: History | None = history
    while smaller is not None:
        history = smaller
        smaller = next((c for c in _candidates(history) if next(budget, None) is not None and fails(c)), None)
    return history


def _candidates(history: History) -> Iterator[History]:
    """Yield smaller histories, the much smaller ones first."""
    size = len(history)
    width = size // 2
    while width:
        for start in range(0, size, width):
            yield history[:start] + history[start + width :]
        width //= 2
    for statements in dict.fromkeys(step.statements for step in history if isinstance(step, Run)):
        for left_out in range(len(statements) if len(statements) > 1 else 0):
            # The same cell run again stays the same cell.
            fewer = statements[:left_out] + statements[left_out + 1 :]
            yield tuple(
                replace(step, statements=fewer) if isinstance(step, Run) and step.statements == statements else step
                for step in history
            )
    if any(isinstance(step, Run) and step.options for step in history):
        yield tuple(replace(step, options="") if isinstance(step, Run) else step for step in history)
