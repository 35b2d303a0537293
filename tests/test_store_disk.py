"""A disk that fills, turns read-only and loses the store: cells run, keep their values, and say so in a line.

The disk is a small file system in memory, mounted where this user sees it alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

APART = ["unshare", "--user", "--map-root-user", "--mount"]

SESSION = """
import json, shutil, subprocess, sys
from pathlib import Path
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

disk = Path(sys.argv[1])
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "prefect_cache")
steps = []

def run(source):
    with capture_output() as shown:
        shell.run_cell(source).raise_error()
    texts = [shown.stdout, *(output.data["text/plain"] for output in shown.outputs)]
    steps.append([shell.user_ns["prefect_cache"].last.status, "".join(texts)])

def remount(how):
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)

shell.run_cell("import prefect_cache, os")
run("%%prefect_cache a\\na = list(range(10))")
run("%%prefect_cache big\\nbig = os.urandom(8_000_000)")
run("%%prefect_cache b\\nb = 2")
remount("ro")
run("%%prefect_cache a\\na = list(range(10))")
run("%%prefect_cache c\\nc = 3")
run("%prefect_cache list")
run("%prefect_cache stats")
remount("rw")
run("%%prefect_cache c\\nc = 3")
shutil.rmtree(disk / "store")
run("%%prefect_cache a\\na = list(range(10))")
run("%%prefect_cache a\\na = list(range(10))")
names = shell.user_ns
print(json.dumps({"steps": steps, "values": [names["a"], len(names["big"]), names["b"], names["c"]]}))
"""


def _can_mount(disk: Path) -> bool:
    command = [*APART, "mount", "-t", "tmpfs", "none", str(disk)]
    return (
        shutil.which("unshare") is not None and not subprocess.run(command, check=False, capture_output=True).returncode
    )


def test_a_disk_that_fills_turns_read_only_and_loses_the_store(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if not _can_mount(disk):
        pytest.skip("this system lets nobody mount a disk of his own")
    (tmp_path / "session.py").write_text(SESSION)
    script = 'mount -t tmpfs -o size=4m none "$1" && exec "$2" "$3" "$1"'
    command = [*APART, "sh", "-c", script, "sh", str(disk), sys.executable, str(tmp_path / "session.py")]
    env = os.environ | {"PREFECT_CACHE_DIR": str(disk / "store")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["values"] == [list(range(10)), 8_000_000, 2, 3]
    first, full, after, restored, read_only, listed, stats, again, lost, found = told["steps"]
    assert first[0] == "miss"
    assert full[0] == "bypass"
    assert "the disk is full" in full[1]
    assert len(full[1].strip().splitlines()) == 1
    assert after[0] == "miss", "the next save works"
    assert restored[0] == "hit", "a read-only store still gives what it holds"
    assert read_only[0] == "bypass"
    assert "the file system is read-only" in read_only[1]
    assert len(read_only[1].strip().splitlines()) == 1
    assert "a" in listed[1]
    assert "2 entries" in listed[1]
    assert "2 entries" in stats[1]
    assert again[0] == "miss"
    assert (lost[0], found[0]) == ("miss", "hit"), "a store that was deleted is made again"
