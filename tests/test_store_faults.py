"""A fault at every system call: afterwards each entry is whole, nothing else is there, and the store works again."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from prefect_cache.errors import StoreUnwritable
from prefect_cache.model import Retention
from prefect_cache.store import Store, locks
from prefect_cache.store.publish import System
from stores import Content, Unflushed, contents, key_of, save

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHARED = b"in two entries " * 1000
OLD: Content = {"a.bin": b"old", "shared.bin": SHARED}
NEW: Content = {"a.bin": b"new" * 3000, "shared.bin": SHARED}
CALLS = [name for name in vars(System) if not name.startswith("_")]


class Died(BaseException):
    """The process was killed: no system call is made any more."""


class Faulty(System):
    """Does what it is asked until the call with a certain number."""

    def __init__(self, number: int, fault: BaseException | None, *, lasting: bool, exchanges: bool = True) -> None:
        self.calls = 0
        for name in CALLS:
            call = getattr(Unflushed(), name) if exchanges or name != "exchange" else _no_exchange
            setattr(self, name, self._faulty(call, number, fault, lasting))

    def _faulty(
        self, call: Callable[..., Any], number: int, fault: BaseException | None, lasting: bool
    ) -> Callable[..., Any]:
        def act(*arguments: Any) -> Any:
            self.calls += 1
            struck = self.calls == number or (lasting and self.calls > number)
            if struck and fault is not None and call is not os.close:
                raise fault
            if struck and call is os.write:  # a write cut short
                return call(arguments[0], bytes(arguments[1])[:1])
            return call(*arguments)

        return act


def _no_exchange(one: Path, other: Path) -> None:
    raise OSError(errno.ENOSYS, "no such call")


RETENTION = Retention(grace=1e9, grace_bytes=10**9)


def _prepare(root: Path) -> None:
    """Entries 1 and 2 with a file in common, 3 evicted, 4 soon expired."""
    store = Store(root, RETENTION, system=Unflushed())
    for n in (1, 2, 3):
        save(store, key_of(n), OLD)
    save(store, key_of(4), {"a.bin": b"expired"}, options={"ttl": 1e5})
    store.evict([store.get(key_of(3))])


BEFORE = {key_of(1): OLD, key_of(2): OLD, key_of(4): {"a.bin": b"expired"}}
ACTS: dict[str, tuple[Callable[[Store], object], dict[str, Content]]] = {
    "save": (lambda s: save(s, key_of(5), NEW), {**BEFORE, key_of(5): NEW}),
    "replace": (lambda s: save(s, key_of(1), NEW), {**BEFORE, key_of(1): NEW}),
    "variant": (lambda s: save(s, key_of(1), NEW, seen="csv"), {**BEFORE, f"{key_of(1)}-1": NEW}),
    "evict": (lambda s: s.evict([s.get(key_of(2))]), {k: v for k, v in BEFORE.items() if k != key_of(2)}),
    "evict for good": (
        lambda s: s.evict([s.get(key_of(2))], undoable=False),
        {k: v for k, v in BEFORE.items() if k != key_of(2)},
    ),
    "prune": (lambda s: s.prune(s.plan(now=time.time() + 2e5)), {k: v for k, v in BEFORE.items() if k != key_of(4)}),
    "undo": (lambda s: s.undo(), {**BEFORE, key_of(3): OLD}),
    "pin": (lambda s: s.pin(s.get(key_of(1))), BEFORE),
    "statistics": (lambda s: s.keep_statistics(s.get(key_of(1)), b"{}"), BEFORE),
    "sweep": (lambda s: s.sweep(), BEFORE),
    "first save": (lambda s: save(s, key_of(1), OLD), {key_of(1): OLD}),
}


def _calls(act: str, root: Path, *, exchanges: bool = True) -> int:
    """Return how many system calls an act makes when nothing fails."""
    return _run(act, root, 0, None, exchanges=exchanges)[1].calls


def _run(
    act: str, root: Path, number: int, fault: BaseException | None, *, lasting: bool = False, exchanges: bool = True
) -> tuple[BaseException | None, Faulty]:
    if act != "first save":
        prepared = root.parent / "prepared"
        if not prepared.exists():
            _prepare(prepared)
        subprocess.run(["cp", "-a", prepared, root], check=True)  # keeps hard links
    system = Faulty(number, fault, lasting=lasting, exchanges=exchanges)
    store = Store(root, RETENTION, system=system)
    store.on_problem = lambda _: None
    try:
        ACTS[act][0](store)
    except (StoreUnwritable, Died) as error:
        return error, system
    return None, system


def _check(act: str, root: Path, *, told: bool) -> None:
    """Each entry is as it was before or as it should be after, and the store works."""
    after = ACTS[act][1]
    before = BEFORE if act != "first save" else {}
    store = Store(root, RETENTION, system=Unflushed())
    found = contents(store)
    for name, content in found.items():
        assert content in (before.get(name), after.get(name)), name
    if not told:
        assert found == after
    for name in before.keys() & after.keys():
        assert name in found, "an entry that nothing should have removed is gone"
    assert all(problem.what.startswith("left by") for problem in store.check())
    store.sweep()
    assert store.check() == []
    assert contents(store) == found
    assert list((root / "drafts").iterdir() if (root / "drafts").exists() else []) == []
    save(store, key_of(9), NEW)
    assert contents(store) == {**found, key_of(9): NEW}


FAULTS = [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS]


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> Callable[[int], list[int]]:
    """Which faults strike the call with a number: each in turn, and with --long all."""
    return lambda number: FAULTS if request.config.getoption("--long") else [FAULTS[number % len(FAULTS)]]


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
def test_a_call_that_fails(act: str, lasting: bool, faults: Callable[[int], list[int]], tmp_path: Path) -> None:
    for number in range(1, _calls(act, tmp_path / "0") + 1):
        for fault in faults(number):
            root = tmp_path / f"{number}-{fault}"
            error, _ = _run(act, root, number, OSError(fault, os.strerror(fault)), lasting=lasting)
            if error is not None:
                assert str(root) in str(error)
                assert error.remedy  # type: ignore[attr-defined]
            _check(act, root, told=error is not None)


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "two renames"])
def test_a_process_that_dies(act: str, exchanges: bool, tmp_path: Path) -> None:
    for number in range(1, _calls(act, tmp_path / "0", exchanges=exchanges) + 1):
        root = tmp_path / str(number)
        error, _ = _run(act, root, number, Died(), lasting=True, exchanges=exchanges)
        for lock in list(locks._held):
            lock.drop()  # the kernel does so for the dead
        if exchanges or act != "replace":
            _check(act, root, told=error is not None)


@pytest.mark.parametrize("act", ["save", "replace", "first save"])
def test_a_write_cut_short_goes_on(act: str, tmp_path: Path) -> None:
    for number in range(1, _calls(act, tmp_path / "0") + 1):
        error, _ = _run(act, tmp_path / str(number), number, None)
        assert error is None
        _check(act, tmp_path / str(number), told=False)


def test_without_an_exchange_a_failed_replacement_keeps_the_old(
    faults: Callable[[int], list[int]], tmp_path: Path
) -> None:
    for number in range(1, _calls("replace", tmp_path / "0", exchanges=False) + 1):
        for fault in faults(number):
            root = tmp_path / f"{number}-{fault}"
            error, _ = _run("replace", root, number, OSError(fault, os.strerror(fault)), exchanges=False)
            _check("replace", root, told=error is not None)


def test_a_codecs_fault_is_the_stores(tmp_path: Path) -> None:
    """A disk that fills while a codec writes is told as such, and gives up what could be undone."""
    _prepare(tmp_path)
    store = Store(tmp_path, RETENTION)

    def write() -> None:
        with store.draft(key_of(5)) as draft:
            (draft.path / "a.bin").write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StoreUnwritable, match="full"):
        write()
    assert store.undo() == ()
    assert contents(store) == BEFORE


def test_an_error_of_the_cells_own_objects_is_not_the_stores(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError), Store(tmp_path).draft(key_of(5)):
        raise ConnectionError("pickling asked a server")
