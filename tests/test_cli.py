"""``prefect-cache``: what each command says, to people and to programs, and how it ends."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pexpect
import pytest

from prefect_cache import cli
from prefect_cache.store import Store
from stores import content_of, key_of, save

if TYPE_CHECKING:
    from prefect_cache.model import Entry

COMMANDS = [
    "ls", "show", "why", "evict", "undo", "pin", "unpin", "prune", "check", "stats", "where", "export-entry",
]  # fmt: skip


@pytest.fixture
def store(store_root: Path) -> Store:
    return Store(store_root)


@pytest.fixture
def orders(store: Store) -> Entry:
    return save(store, key_of(1), {"00-orders.arrow": b"x" * 9000}, name="orders", seconds=90.0)


class Said:
    """Runs a command in this process and keeps what it said."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        code = self._code(words)
        out, err = self._capsys.readouterr()
        return code, out, err

    def _code(self, words: tuple[str, ...]) -> int:
        try:
            return cli.main(words)
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else 1

    def json(self, *words: str, code: int = 0) -> Any:
        ended, out, err = self(*words, "--json")
        assert (ended, err) == (code, "")
        return json.loads(out)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Said:
    return Said(capsys)


class TestSeeing:
    def test_an_empty_store_is_no_fault(self, say: Said, store_root: Path) -> None:
        assert say("ls") == (0, "The store is empty.\n", "")
        assert say("check")[0] == say("stats")[0] == say("where")[0] == say("prune")[0] == 0
        assert not store_root.exists()

    def test_ls(self, say: Said, store: Store, orders: Entry) -> None:
        store.touch(orders)
        store.pin(orders)
        code, out, _ = say("ls")
        assert code == 0
        header, row = out.splitlines()
        assert header.split() == ["key", "name", "size", "made", "used", "hits", "took"]
        assert row.split() == [
            key_of(1)[:12],
            "orders",
            "9.9",
            "kB",
            "now",
            "now",
            "1",
            "1",
            "min",
            "30",
            "s",
            "pinned",
        ]

    def test_ls_sorts_and_ends_where_it_is_told(self, say: Said, store: Store) -> None:
        for n in range(3):
            save(store, key_of(n), {"a.bin": b"x" * n * 10_000}, name=f"cell {n}")
        listed = say.json("ls", "--sort", "size", "--limit", "2")
        assert [entry["name"] for entry in listed["entries"]] == ["cell 2", "cell 1"]
        assert listed["total"] == 3
        assert "2 of 3 entries" in say("ls", "--limit", "2")[1]
        for sort in cli.SORTS:
            assert len(say.json("ls", "--sort", sort)["entries"]) == 3

    def test_ls_names_what_is_damaged(self, say: Said, orders: Entry) -> None:
        (orders.path / "manifest.json").write_text("{}")
        assert say("check")[0] == 1
        code, out, _ = say("ls")
        assert code == 0
        assert f"damaged: {orders.digest}" in out
        assert "check --fix" in out

    def test_show(self, say: Said, orders: Entry) -> None:
        for address in (orders.digest, orders.digest[:8], "orders"):
            code, out, _ = say("show", address)
            assert code == 0
            assert orders.digest in out
            assert "orders = 1" in out
            assert "00-orders.arrow" in out
            assert "input x" in out
        assert say.json("show", "orders")["manifest"]["outputs"][0]["file"] == "00-orders.arrow"

    def test_why_says_what_differed(self, say: Said, store: Store, orders: Entry) -> None:
        code, out, _ = say("why", orders.digest)
        assert code == 0
        assert "has not run" in out
        newer = save(store, key_of(2), {}, name="orders")
        code, out, _ = say("why", newer.digest)
        assert code == 0
        assert "x changed" in out
        assert orders.digest[:8] in out
        told = say.json("why", newer.digest)
        assert told["nearest"] == orders.digest
        assert told["changes"] == [{"kind": "input", "name": "x", "how": "changed"}]

    def test_why_repeats_what_was_said_then(self, say: Said, store: Store) -> None:
        entry = save(store, key_of(1), {}, options={"because": "data.csv changed"})
        assert "orders ran because data.csv changed" in say("why", entry.digest)[1]

    def test_where_and_stats(self, say: Said, store: Store, orders: Entry, store_root: Path) -> None:
        store.touch(orders)
        assert str(store_root) in say("where")[1]
        stats = say.json("stats")
        # What else is written to the disk meanwhile changes what is free, and with it the limit.
        assert stats | {"free": 0, "limit": 0} == say.json("where") | {"free": 0, "limit": 0}
        assert (stats["entries"], stats["hits"], stats["saved"]) == (1, 1, 90.0)
        assert "1 min 30 s" in say("stats")[1]

    def test_another_store_can_be_named(self, say: Said, orders: Entry, tmp_path: Path) -> None:
        assert say.json("ls", "--store", str(tmp_path / "none"))["entries"] == []


class TestActing:
    def test_evict_and_undo(self, say: Said, store: Store, orders: Entry) -> None:
        assert say.json("evict", "orders", "--dry-run")["would_evict"][0]["key"] == orders.digest
        assert store.variants(key_of(1))
        code, out, _ = say("evict", "orders")
        assert code == 0
        assert "undo" in out
        assert store.variants(key_of(1)) == ()
        assert say.json("undo")["restored"][0]["name"] == "orders"
        assert content_of(store, store.get("orders"))
        assert say("undo") == (1, "there is nothing to bring back\n", "")

    def test_evict_for_good(self, say: Said, orders: Entry) -> None:
        code, out, _ = say("evict", orders.digest, "--forever")
        assert code == 0
        assert "undo" not in out
        assert say("undo")[0] == 1

    def test_a_name_that_several_share_needs_all(self, say: Said, store: Store, orders: Entry) -> None:
        save(store, key_of(2), {}, name="orders")
        code, out, err = say("evict", "orders")
        assert (code, out) == (3, "")
        assert "2 entries" in err
        assert len(say.json("evict", "orders", "--all")["evicted"]) == 2

    def test_pin_and_prune(self, say: Said, store: Store, orders: Entry) -> None:
        assert say("pin", "orders")[0] == 0
        assert say("prune", "--max-size", "0B") == (0, "nothing needs to go\n", "")
        assert say("unpin", "orders")[0] == 0
        planned = say.json("prune", "--max-size", "0B", "--dry-run")
        assert planned["would_evict"][0]["key"] == orders.digest
        assert planned["would_free"] == orders.size
        assert store.variants(key_of(1))
        code, out, _ = say("prune", "--max-size", "0B", "--policy", "lru")
        assert code == 0
        assert "longest unused" in out
        assert store.variants(key_of(1)) == ()

    def test_check_and_fix(self, say: Said, store: Store, orders: Entry) -> None:
        assert say("check") == (0, "everything is as it was written\n", "")
        (orders.path / "00-orders.arrow").write_bytes(b"y" * 9000)
        code, out, _ = say("check")
        assert code == 1
        assert "00-orders.arrow is not what was written" in out
        assert say.json("check", "--fix")["fixed"]
        assert say("check")[0] == 0
        assert store.variants(key_of(1)) == ()

    def test_export(self, say: Said, orders: Entry, tmp_path: Path) -> None:
        code, out, _ = say("export-entry", "orders", str(tmp_path / "out"))
        assert code == 0
        assert str(tmp_path / "out") in out
        assert (tmp_path / "out" / "00-orders.arrow").read_bytes() == b"x" * 9000
        assert say("export-entry", "orders", str(tmp_path / "out"))[0] == 2
        (tmp_path / "file").touch()
        assert say("export-entry", "orders", str(tmp_path / "file" / "out"))[0] == 4


class TestEnds:
    def test_not_found_and_damaged(self, say: Said, orders: Entry) -> None:
        for command in ("show", "why", "evict", "pin", "unpin"):
            code, out, err = say(command, "nothing")
            assert (code, out) == (3, "")
            assert "no entry is called 'nothing'" in err
        (orders.path / "manifest.json").write_text("{}")
        assert say("show", orders.digest)[0] == 3

    def test_wrong_words(self, say: Said) -> None:
        wrong = [
            [],
            ["frobnicate"],
            ["ls", "--sort", "taste"],
            ["ls", "--lim", "3"],
            ["prune", "--max-size", "much"],
            ["ls", "--limit", "-1"],
        ]
        for words in wrong:
            code, out, err = say(*words)
            assert (code, out) == (2, ""), words
            assert "--help" in err

    def test_a_store_that_cannot_be_written(self, say: Said, tmp_path: Path, orders: Entry) -> None:
        import shutil

        shutil.rmtree(orders.path.parents[1] / "drafts")
        (orders.path.parents[1] / "trash").touch()
        code, _, err = say("evict", "orders", "--forever")
        assert code == 4
        assert "cannot be written" in err

    def test_names_cannot_command_a_terminal(self, say: Said, store: Store) -> None:
        save(store, key_of(1), {}, name="evil\x1b[2J\x07\x9b1m")
        for words in (["ls"], ["show", key_of(1)], ["evict", key_of(1)]):
            _, out, _ = say(*words)
            assert "evil" in out
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", out)

    def test_a_reader_who_leaves_early_is_no_fault(self, store: Store) -> None:
        for n in range(60):
            save(store, key_of(n), {}, name=f"{n} {'long ' * 100}")
        command = f"{sys.executable} -m prefect_cache ls --json | head -c 10"
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_each_command_is_helpful(self, say: Said, command: str) -> None:
        code, out, _ = say(command, "--help")
        assert code == 0
        assert "--json" in out
        assert "exit codes:" in out
        assert "130" in out

    def test_each_command_is_listed(self, say: Said) -> None:
        code, out, _ = say("--help")
        assert code == 0
        listed = re.findall(r"^    ([a-z-]+)", out, re.MULTILINE)
        assert listed == COMMANDS
        assert "examples:" in out

    def test_the_exit_codes_are_those_in_the_module(self) -> None:
        assert cli.__doc__ is not None
        assert set(re.findall(r"^(\d+)$", cli.__doc__, re.MULTILINE)) == set(
            re.findall(r"^  (\d+)", cli.EXIT_CODES, re.MULTILINE)
        )


HEAVY = ("prefect", "pandas", "numpy", "pyarrow", "IPython", "ipywidgets", "cloudpickle", "rich", "polars")


def test_it_loads_nothing_heavy(orders: Entry) -> None:
    """Which is what makes it start in a fraction of a second."""
    for words in (["ls"], ["show", "orders"], ["check"], ["stats", "--json"], ["prune", "--dry-run"]):
        program = f"import sys; from prefect_cache import cli; cli.main({words}); print(sys.modules.keys() & {HEAVY})"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("command", [("check",), ("export-entry", "orders", "copy")], ids=lambda words: words[0])
def test_long_work_shows_a_bar_on_a_terminal(orders: Entry, tmp_path: Path, command: tuple[str, ...]) -> None:
    program = str(Path(sys.executable).parent / "prefect-cache")
    env = {**os.environ, "TERM": "xterm"}
    shell = pexpect.spawn(program, list(command), cwd=tmp_path, env=env, encoding="utf-8", timeout=60)
    shell.expect(pexpect.EOF)
    shell.close()
    assert shell.exitstatus == 0
    assert re.search("checking.*━", str(shell.before))


def test_it_starts_in_a_fraction_of_a_second(orders: Entry) -> None:
    """In processor time, which other work on the machine does not count into; the best of three."""

    def cost() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([str(Path(sys.executable).parent / "prefect-cache"), "ls"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(cost() for _ in range(3)) < 0.3


def test_it_is_a_program(orders: Entry) -> None:
    for command in ([sys.executable, "-m", "prefect_cache"], [str(Path(sys.executable).parent / "prefect-cache")]):
        done = subprocess.run([*command, "ls", "--json"], capture_output=True, text=True, check=True, env=os.environ)
        assert json.loads(done.stdout)["entries"][0]["key"] == orders.digest
