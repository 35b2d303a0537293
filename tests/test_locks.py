"""Locks: one holder at a time, across processes and threads, and none for the dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from prefect_cache.store import Store, locks
from prefect_cache.store.locks import Busy, acquire, one_at_a_time
from stores import key_of, save

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOLDER = """
import sys, time
from pathlib import Path
from prefect_cache.store import Store
with Store(sys.argv[1]).lock(sys.argv[2], notebook="etl.ipynb") as held:
    print(held, flush=True)
    time.sleep(float(sys.argv[3]))
"""


def hold(root: Path, key: str, seconds: float = 600.0) -> subprocess.Popen[str]:
    """Start a process that holds a key's lock, and return once it does."""
    command = [sys.executable, "-c", HOLDER, str(root), key, str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_one_waits_is_told_for_whom_and_goes_on(store_root: Path) -> None:
    holder = hold(store_root, key_of(1), 0.5)
    told: list[str] = []
    with Store(store_root).lock(key_of(1), on_wait=told.append) as held:
        assert held
        assert holder.wait() == 0
    end(holder)
    assert told == [f"process {holder.pid} on {os.uname().nodename} (etl.ipynb)"]


def test_nobody_waits_where_nobody_holds(store_root: Path) -> None:
    holder = hold(store_root, key_of(1))
    with Store(store_root).lock(key_of(2), on_wait=lambda _: pytest.fail("waited")) as held:
        assert held
    end(holder)


def test_a_holders_death_frees_the_lock_at_once(store_root: Path) -> None:
    holder = hold(store_root, key_of(1))
    with Store(store_root).lock(key_of(1), on_wait=lambda _: holder.kill()) as held:
        assert held
    end(holder)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, as in a kernel: a browser's driver in the same worker keeps it to itself."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


@pytest.mark.usefixtures("interruptible")
def test_keyboard_interrupt_ends_the_wait(store_root: Path) -> None:
    holder = hold(store_root, key_of(1))

    def interrupt_main_thread_soon(_: str) -> None:
        threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()

    with pytest.raises(KeyboardInterrupt), Store(store_root).lock(key_of(1), on_wait=interrupt_main_thread_soon):
        pytest.fail("the lock is held by another")
    assert holder.poll() is None
    end(holder)
    with Store(store_root).lock(key_of(1), on_wait=lambda _: pytest.fail("waited")) as held:
        assert held


FORKER = """
import os, sys, time
from pathlib import Path
from prefect_cache.store.locks import acquire
lock = acquire(Path(sys.argv[1]))
child = os.fork()
if not child:
    time.sleep(600)
print(child, flush=True)
os._exit(0)
"""


def _is_free_within(seconds: float, path: Path) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with acquire(path):
                return True
        except Busy:
            time.sleep(0.01)
    return False


def test_a_child_does_not_keep_its_parents_lock(tmp_path: Path) -> None:
    """A forked worker that outlives the kernel must not block everyone else."""
    path = tmp_path / "a.lock"
    parent = subprocess.Popen([sys.executable, "-c", FORKER, str(path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        assert parent.wait() == 0
        assert path.exists()
        # The child lets go as soon as it gets to run, which may be after its parent has ended.
        assert _is_free_within(5, path)
    finally:
        os.kill(child, signal.SIGKILL)
        parent.stdout.close()


def test_threads_exclude_each_other(store_root: Path) -> None:
    store = Store(store_root)
    inside = 0
    most = 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with store.lock(key_of(1)) as held:
                assert held
                inside += 1
                most = max(most, inside)
                time.sleep(0.001)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_cell_within_a_cell_does_not_wait_for_itself(store_root: Path) -> None:
    store = Store(store_root)
    with store.lock(key_of(1)) as outer, store.lock(key_of(1)) as inner:
        assert (outer, inner) == (True, False)
    with store.lock(key_of(1)) as again:
        assert again


def test_nothing_is_left_behind(store_root: Path) -> None:
    with Store(store_root).lock(key_of(1)):
        assert len(list((store_root / "locks").iterdir())) == 1
    assert list((store_root / "locks").iterdir()) == []


def test_a_lock_file_left_by_the_dead_locks_nobody_out(store_root: Path) -> None:
    holder = hold(store_root, key_of(1))
    end(holder)
    assert len(list((store_root / "locks").iterdir())) == 1
    with Store(store_root).lock(key_of(1), on_wait=lambda _: pytest.fail("waited")) as held:
        assert held


def test_where_a_lock_cannot_be_the_cell_runs_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with Store(tmp_path / "file").lock(key_of(1)) as held:
        assert not held
    monkeypatch.setattr(locks, "fcntl", None)
    store = Store(tmp_path / "store")
    with store.lock(key_of(1)) as held:
        assert not held
    assert store.variants(key_of(1)) == ()
    entry = save(store, key_of(1), {"a.bin": b"a"})
    assert store.variants(key_of(1)) == (entry,)
    store.sweep()
    assert store.check() == []


def test_the_store_may_vanish_while_a_lock_is_held(store_root: Path) -> None:
    import shutil

    store = Store(store_root)
    with store.lock(key_of(1)):
        shutil.rmtree(store_root)
    with store.lock(key_of(1)) as held:
        assert held


def test_a_busy_lock_says_who_holds_it(tmp_path: Path) -> None:
    with acquire(tmp_path / "a.lock", note="process 7 on there"), pytest.raises(Busy, match="process 7 on there"):
        acquire(tmp_path / "a.lock")


def test_hundreds_of_waiters_in_turn(tmp_path: Path) -> None:
    """Each lock file is removed by its holder: nobody may go on with one that is no longer there."""
    counter = tmp_path / "counter"
    counter.write_text("0")

    def work() -> None:
        for _ in range(50):
            with one_at_a_time(tmp_path / "a.lock", note="", on_wait=lambda _: None) as held:
                assert held
                counter.write_text(str(int(counter.read_text()) + 1))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.read_text() == "400"
