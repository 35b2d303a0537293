"""What goes first, as plans: values computed from values, with no store and no clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from prefect_cache.model import Retention
from prefect_cache.store import retention as retentions
from prefect_cache.store.retention import BLOCK, JUST_USED, Candidate, choose, default_limit, grace_bytes, value

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

NOW = 1e9
MB = 10**6
DAY = 86400.0


def candidate(
    name: str = "a",
    *,
    size: int = MB,
    seconds: float = 1.0,
    unused: float = DAY,
    expires: float | None = None,
    pinned: bool = False,
    alone: int | None = None,
) -> Candidate:
    return Candidate(name, size if alone is None else alone, size, seconds, NOW - unused, expires, pinned)


def chosen(
    candidates: list[Candidate], *, limit: int, retention: Retention | None = None, total: int | None = None
) -> list[str]:
    retention = retention or Retention()
    total = sum(c.size for c in candidates) if total is None else total
    victims, _ = choose(candidates, {}, total=total, limit=limit, retention=retention, now=NOW)
    return [victim.candidate.name for victim in victims]


def test_nothing_goes_below_the_limit() -> None:
    assert chosen([candidate("a"), candidate("b")], limit=2 * MB) == []


def test_the_cheapest_per_byte_goes_first() -> None:
    cheap, dear = candidate("cheap", seconds=1), candidate("dear", seconds=100)
    assert chosen([dear, cheap], limit=MB + 1) == ["cheap"]
    small, large = candidate("small", size=MB // 10), candidate("large", size=2 * MB)
    assert chosen([small, large], limit=2 * MB) == ["large"]


def test_time_since_use_weighs_against_cost() -> None:
    """What cost a hundred times more stays a hundred times longer unused, and no longer."""
    fresh = candidate("fresh", seconds=1, unused=DAY)
    assert chosen([fresh, candidate("old", seconds=100, unused=99 * DAY)], limit=MB + 1) == ["fresh"]
    assert chosen([fresh, candidate("old", seconds=100, unused=101 * DAY)], limit=MB + 1) == ["old"]


def test_lru_asks_for_the_last_use_alone() -> None:
    dear_old = candidate("dear", seconds=1e6, unused=2 * DAY)
    cheap_new = candidate("cheap", seconds=0.1, unused=DAY)
    assert chosen([cheap_new, dear_old], limit=MB + 1, retention=Retention(policy="lru")) == ["dear"]


def test_a_prune_makes_some_room_to_spare() -> None:
    entries = [candidate(str(n), unused=DAY * (100 - n)) for n in range(100)]
    gone = chosen(entries, limit=99 * MB, retention=Retention(policy="lru"))
    assert gone == [str(n) for n in range(6)]


def test_pins_hold_whatever_else_is_so() -> None:
    pinned = candidate("pinned", seconds=0, unused=1e8, expires=NOW - 1, pinned=True)
    retention = Retention(max_age=1.0, max_entry_bytes=1)
    assert chosen([pinned, candidate("b", size=1, unused=0)], limit=0, retention=retention) == ["b"]


def test_ttl_and_age_and_size_per_entry_apply_below_the_limit_too() -> None:
    entries = [
        candidate("expired", expires=NOW - 1),
        candidate("expires", expires=NOW + 1),
        candidate("old", unused=31 * DAY),
        candidate("large", size=3 * MB),
    ]
    retention = Retention(max_age=30 * DAY, max_entry_bytes=2 * MB)
    victims, freed = choose(entries, {}, total=6 * MB, limit=100 * MB, retention=retention, now=NOW)
    assert [(v.candidate.name, v.reason) for v in victims] == [
        ("expired", "its TTL ended 1.0 s ago"),
        ("old", "unused for 31 d"),
        ("large", "3.0 MB is over the limit of 2.0 MB per entry"),
    ]
    assert freed == 5 * MB


def test_a_reason_is_given_for_each() -> None:
    (victim,), _ = choose([candidate("a", seconds=2)], {}, total=MB, limit=0, retention=Retention(), now=NOW)
    assert victim.reason == "2.0 s of work in 1.0 MB, unused for 24 h"
    (victim,), _ = choose([candidate("a")], {}, total=MB, limit=0, retention=Retention(policy="lru"), now=NOW)
    assert victim.reason == "longest unused for 24 h"


def test_a_shared_file_comes_free_with_its_last_owner() -> None:
    one, two = (candidate(name, size=MB, alone=MB // 10) for name in ("one", "two"))
    shared = {"one": [(7, MB - MB // 10)], "two": [(7, MB - MB // 10)]}
    total = MB + MB // 10
    _, freed = choose([one], {**shared}, total=total, limit=0, retention=Retention(), now=NOW)
    assert freed == MB // 10
    _, freed = choose([one, two], shared, total=total, limit=0, retention=Retention(), now=NOW)
    assert freed == total


@given(
    st.lists(
        st.builds(
            candidate,
            name=st.uuids().map(str),
            size=st.integers(0, 10**12),
            seconds=st.floats(0, 1e9),
            unused=st.floats(-1e6, 1e9),
            expires=st.none() | st.floats(0, 2e9),
            pinned=st.booleans(),
        ),
        max_size=30,
    ),
    st.integers(0, 10**13),
    st.sampled_from(["value", "lru"]),
)
def test_a_plan_suffices_and_takes_no_more_than_it_must(candidates: list[Candidate], limit: int, policy: str) -> None:
    retention = Retention(policy=policy)  # type: ignore[arg-type]
    total = sum(c.size for c in candidates)
    victims, freed = choose(candidates, {}, total=total, limit=limit, retention=retention, now=NOW)
    gone = {victim.candidate for victim in victims}
    assert len(gone) == len(victims)
    assert freed == sum(c.size for c in gone)
    assert not any(c.pinned for c in gone)
    assert {c for c in candidates if c.expires is not None and c.expires <= NOW and not c.pinned} <= gone
    left = total - freed
    assert left <= limit or all(c.pinned for c in set(candidates) - gone)
    by_size = [v.candidate for v in victims if "TTL" not in v.reason]
    if by_size:
        room = int(limit * retentions.ROOM)
        assert left + by_size[-1].size > limit - room, "the last one need not have gone"
    if policy == "value":
        worth = [value(c, NOW) for c in by_size]
        assert worth == sorted(worth)


def test_value_has_floors() -> None:
    """Tiny files take a block, and what was used a second ago is no better than a minute ago."""
    assert value(candidate(size=1), NOW) == value(candidate(size=BLOCK), NOW)
    assert value(candidate(unused=0), NOW) == value(candidate(unused=JUST_USED), NOW)
    assert value(candidate(unused=-100), NOW) == value(candidate(unused=JUST_USED), NOW)


def test_the_default_limit_suits_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def free(amount: int) -> None:
        monkeypatch.setattr(retentions, "free_bytes", lambda _: amount)

    free(100 * 10**9)
    assert default_limit(tmp_path, 0) == 10 * 10**9
    assert default_limit(tmp_path, 10 * 10**9) == 11 * 10**9
    free(10**13)
    assert default_limit(tmp_path, 0) == 20 * 2**30
    free(0)
    assert default_limit(tmp_path, 0) == 0


def test_the_default_limit_is_known_before_there_is_a_store(tmp_path: Path) -> None:
    assert default_limit(tmp_path / "not" / "there" / "yet", 0) > 0


def test_the_grace_budget() -> None:
    assert grace_bytes(Retention(), 1000) == 100
    assert grace_bytes(Retention(grace_bytes=7), 1000) == 7
