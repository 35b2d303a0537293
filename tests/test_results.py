from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from prefect import task
from prefect.cache_policies import INPUTS

from offline import offline
from prefect_cache import cli, results
from prefect_cache.results import PAYLOADS, YOUNG

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FRAME = pd.DataFrame({"n": np.arange(1000.0)})
DAY = 86400.0
LATER = YOUNG * 2


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def run(folder) -> Callable[..., list[object]]:
    """Run a task that persists a result, as often as asked; return the calls that its function got."""

    def run(*arguments, serializer="arrow", policy=INPUTS, name="load", **options) -> list[object]:
        calls = []

        def load(n):
            calls.append(n)
            return FRAME + n if serializer != "json" else n

        made = task(load, name=name, persist_result=True, result_serializer=serializer, cache_policy=policy, **options)
        with offline(folder):
            for argument in arguments:
                made(argument)
        return calls

    return run


def age(folder: Path, seconds: float) -> None:
    """Make all that is there older."""
    for path in folder.rglob("*"):
        then = path.stat().st_mtime - seconds
        os.utime(path, (then, then))


def prune(folder: Path, **limits) -> results.ResultPlan:
    found = results.scan(folder)
    planned = results.plan(found, **limits)
    assert results.carry_out(planned, found) == ()
    return planned


class TestScan:
    @pytest.mark.parametrize("serializer", ["arrow", "pickle", "json", "compressed/arrow", "compressed/pickle"])
    def test_it_reads_the_records_of_any_serializer(self, folder, run, serializer):
        import prefect

        run(1, serializer=serializer, cache_expiration=timedelta(days=1))
        (result,) = results.scan(folder).results
        assert (result.serializer, result.version) == (serializer, prefect.__version__)
        assert result.expires == pytest.approx(time.time() + DAY, abs=60)
        assert result.state() == "current"
        assert result.size == sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

    def test_the_serializer_arrow_says_which_task_it_was(self, folder, run):
        run(1, name="orders")
        assert results.scan(folder).results[0].task == "orders"

    def test_a_flows_result_has_no_record_and_is_known_all_the_same(self, folder):
        from prefect_cache import ArrowSerializer

        folder.mkdir()
        serializer = ArrowSerializer(mode="pointer", folder=folder / PAYLOADS)
        (folder / "f00d").write_bytes(serializer.dumps(FRAME))
        (result,) = results.scan(folder).results
        assert (result.serializer, result.state(), len(result.files)) == ("arrow", "current", 1)
        age(folder, LATER)
        assert results.plan(results.scan(folder)).sweep == ()

    def test_with_a_key_storage_the_key_and_its_result_are_one(self, folder, run, tmp_path):
        run(1, serializer="pickle", policy=INPUTS.configure(key_storage=tmp_path / "keys"))
        (result,) = results.scan(tmp_path / "keys").results
        assert [file.parent for file in result.files] == [folder]
        assert result.state() == "current"

    def test_large_records_are_not_read_whole(self, folder, run, monkeypatch):
        run(1, serializer="pickle")
        monkeypatch.setattr(results, "ENOUGH", 1000)
        (result,) = results.scan(folder).results
        assert result.serializer == "pickle"

    def test_what_is_no_record_is_a_problem_and_hides_nothing(self, folder, run):
        run(1)
        (folder / "notes.txt").write_text("mine")
        (folder / "list.json").write_text("[1]")
        found = results.scan(folder)
        assert len(found.results) == 1
        assert {problem.path.name for problem in found.problems} == {"notes.txt", "list.json"}

    def test_a_folder_that_is_not_there_has_no_results(self, folder):
        assert results.scan(folder).results == ()

    def test_it_does_not_import_prefect(self, folder):
        code = (
            "import sys; from prefect_cache import results; results.scan(results.default_folder());"
            "print([m for m in ('prefect', 'pandas', 'pyarrow') if m in sys.modules])"
        )
        assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"

    def test_the_default_folder_is_prefects(self):
        from prefect.settings import get_current_settings

        assert results.default_folder() == get_current_settings().results.local_storage_path


class TestPlan:
    def test_what_is_expired_goes(self, folder, run):
        run(1, cache_expiration=timedelta(seconds=1))
        run(2)
        later = time.time() + 2
        planned = results.plan(results.scan(folder), now=later)
        assert [reason for _, reason in planned.evict] == ["expired"]

    def test_what_is_too_old_goes(self, folder, run):
        run(1)
        age(folder, 2 * DAY)
        run(2)
        planned = results.plan(results.scan(folder), max_age=DAY)
        assert [reason for _, reason in planned.evict] == ["older than the age limit"]

    def test_over_the_size_limit_the_oldest_goes(self, folder, run):
        for n in range(3):
            run(n)
            age(folder, LATER)
        found = results.scan(folder)
        oldest = min(found.results, key=lambda r: r.written)
        planned = results.plan(found, max_bytes=found.size - 1)
        assert [result for result, _ in planned.evict] == [oldest]
        assert planned.freed == oldest.size

    def test_shared_files_are_freed_by_the_last_that_has_them(self, folder, run):
        run(1, name="one", policy=INPUTS + results_policy("a"))
        run(1, name="two", policy=INPUTS + results_policy("b"))
        age(folder, 2 * DAY)
        found = results.scan(folder)
        assert len(found.results) == 2
        assert results.plan(found, max_age=DAY).freed == found.size
        first = results.plan(found, max_bytes=found.size - 1)
        assert first.freed == first.evict[0][0].record.stat().st_size

    def test_what_was_written_just_now_stays(self, folder, run):
        run(1)
        assert not results.plan(results.scan(folder), max_age=0, max_bytes=0)

    def test_payloads_that_no_record_names_are_swept_and_other_files_are_not(self, folder, run):
        run(1)
        for record in results.scan(folder).results:
            record.record.unlink()
        (folder / PAYLOADS / "keep.me").write_text("mine")
        age(folder, LATER)
        planned = results.plan(results.scan(folder))
        assert len(planned.sweep) == 1
        assert planned.freed > FRAME.size * 8


def results_policy(salt: str):
    """A policy that tells tasks apart."""
    from prefect.cache_policies import CachePolicy

    return CachePolicy.from_cache_key_fn(lambda _context, _parameters: salt)


class TestCarryOut:
    def test_an_evicted_result_is_computed_again(self, folder, run):
        assert run(1) == [1]
        assert run(1) == []
        age(folder, 2 * DAY)
        planned = prune(folder, max_age=DAY)
        assert len(planned.evict) == 1
        assert [path for path in folder.rglob("*") if path.is_file()] == []
        assert run(1) == [1]

    def test_with_a_key_storage_too(self, folder, run, tmp_path):
        policy = INPUTS.configure(key_storage=tmp_path / "keys")
        run(1, serializer="pickle", policy=policy)
        age(tmp_path, 2 * DAY)
        prune(tmp_path / "keys", max_age=DAY)
        assert [path for path in folder.rglob("*") if path.is_file()] == []
        assert run(1, serializer="pickle", policy=policy) == [1]

    def test_a_record_whose_payload_is_gone_is_dangling_and_goes(self, folder, run):
        run(1)
        shutil.rmtree(folder / PAYLOADS)
        age(folder, LATER)
        (result,) = results.scan(folder).results
        assert (result.state(), "is gone" in results.explain(result)) == ("dangling", True)
        prune(folder)
        assert results.scan(folder).results == ()

    def test_what_others_still_name_stays(self, folder, run):
        run(1, policy=INPUTS + results_policy("a"))
        age(folder, 2 * DAY)
        run(1, policy=INPUTS + results_policy("b"))
        prune(folder, max_age=DAY)
        (left,) = results.scan(folder).results
        assert left.state() == "current"
        assert run(1, policy=INPUTS + results_policy("b")) == []

    def test_what_cannot_be_deleted_is_told(self, folder, run, monkeypatch):
        from pathlib import Path

        def denied(self, *, missing_ok=False):
            raise PermissionError(13, "Permission denied")

        run(1)
        age(folder, 2 * DAY)
        found = results.scan(folder)
        monkeypatch.setattr(Path, "unlink", denied)
        (problem,) = results.carry_out(results.plan(found, max_age=DAY), found)
        assert problem.what == "cannot be deleted: Permission denied"
        assert list((folder / PAYLOADS).iterdir()), "a record that stayed keeps its files"


def test_a_result_is_explained_in_one_line(folder, run):
    run(1, name="orders", cache_expiration=timedelta(days=1))
    (result,) = results.scan(folder).results
    assert results.explain(result).startswith("orders's result by the serializer 'arrow', Prefect ")
    assert results.explain(result, now=time.time() + 2 * DAY).endswith("expired, so that the task runs again")


def test_records_are_read_as_prefect_writes_them(folder, run):
    """Where Prefect changes its record, this says so."""
    run(1, serializer="json")
    (record,) = (path for path in folder.iterdir() if path.is_file())
    assert record.read_text().startswith('{"metadata":{')
    assert json.loads(record.read_text())["metadata"].keys() >= {"serializer", "expiration", "prefect_version"}


class TestCommand:
    @pytest.fixture
    def command(self, folder, capsys):
        def command(*words: str) -> dict[str, object]:
            assert cli.main([*words, "--results", str(folder), "--json"]) == 0
            return json.loads(capsys.readouterr().out)

        return command

    def test_ls_lists_them(self, run, command):
        run(1, name="orders")
        (result,) = command("ls")["results"]
        assert (result["task"], result["serializer"], result["state"]) == ("orders", "arrow", "current")

    def test_prune_shows_what_would_go_and_then_lets_it_go(self, folder, run, command):
        run(1)
        age(folder, 40 * DAY)
        shown = command("prune", "--max-age", "30d", "--dry-run")
        assert (len(shown["would_evict"]), shown["freed"]) == (1, 0)
        done = command("prune", "--max-age", "30d")
        assert (len(done["evicted"]), done["freed"]) == (1, shown["would_free"])
        assert command("ls")["total"] == 0

    def test_without_a_folder_it_is_prefects_own(self, capsys):
        assert cli.main(["ls", "--results"]) == 0
        assert str(results.default_folder()) in capsys.readouterr().out


def test_the_record_of_a_cell_goes_when_its_entry_has_gone(tmp_path, store_root, start_kernel, capsys):
    kernel = start_kernel(env={"PREFECT_HOME": str(tmp_path / "prefect")}, cold=True)
    kernel.run("%load_ext prefect_cache")
    for name in ("kept", "gone"):
        kernel.run(f"%%prefect_cache {name}\n{name} = 1")
    folder = tmp_path / "prefect" / "storage"
    assert [r.state() for r in results.scan(folder, entries=store_root / "entries").results] == ["current", "current"]
    kernel.run("%prefect_cache evict gone")
    age(folder, LATER)
    assert cli.main(["ls", "--results", str(folder)]) == 0
    assert capsys.readouterr().out.count("a notebook's cell") == 2
    assert cli.main(["prune", "--results", str(folder)]) == 0
    assert "is gone" in capsys.readouterr().out
    (left,) = results.scan(folder, entries=store_root / "entries").results
    assert left.state() == "current"
