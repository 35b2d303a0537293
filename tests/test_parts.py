"""What a frame has in common with one in the store is not written again, and comes back all the same."""

from __future__ import annotations

import json
import os
import textwrap
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from exactness.compare import same
from hearts import Notebook
from prefect_cache.codecs import mapped, mapping, parts
from prefect_cache.digests import digest
from prefect_cache.errors import Damaged
from prefect_cache.model import Entry, Hit, Miss, Problem
from prefect_cache.preview import Preview
from prefect_cache.remote import Remote, open_place
from prefect_cache.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kernels import Kernel

ROWS = 600_000
COLUMN = 8 * ROWS
SETUP = f"""
    import numpy as np, pandas as pd
    df = pd.DataFrame(np.random.default_rng(5).random(({ROWS}, 10)), columns=list("abcdefghij"))
    df["text"] = pd.Series(np.arange({ROWS}) % 1000, dtype="str")
    df["n"] = pd.array(np.arange({ROWS}) % 7, dtype="Int64")
    df["when"] = pd.Timestamp(2026, 1, 1) + pd.to_timedelta(np.arange({ROWS}), unit="s")
"""
SLACK = 2**18
"""Bytes of manifests, skeletons and padding."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return where a store will be."""
    return tmp_path / "store"


@pytest.fixture
def notebook(root: Path) -> Notebook:
    """Return a notebook in whose store a frame of 70 MB lies."""
    made = Notebook(root)
    assert isinstance(made.cached(SETUP), Miss)
    return made


def taken(root: Path) -> int:
    """Return the bytes that a store's entries take on disk, each file once."""
    found = {(status := path.stat()).st_ino: status for path in (root / "entries").rglob("*") if path.is_file()}
    return sum(status.st_size for status in found.values())


def entry_of(outcome: Any) -> Entry:
    """Return what was stored or restored."""
    found: Entry = outcome.entry
    return found


def restarted(root: Path, cell: str) -> Notebook:
    """Return another notebook over the store, in which the setup and then `cell` were restored."""
    made = Notebook(root)
    assert isinstance(made.cached(SETUP), Hit)
    assert isinstance(made.cached(cell), Hit)
    return made


def blocks(frame: Any) -> list[tuple[Any, ...]]:
    """Return what a frame consists of inside."""
    return [
        (type(block), str(block.dtype), block.mgr_locs.as_array.tolist(), block.shape) for block in frame._mgr.blocks
    ]


DERIVED: dict[str, tuple[str, float]] = {
    "assigned": ("out = df.assign(new=np.arange(len(df)) * 0.5)", COLUMN),
    "dropped": ("out = df.drop(columns=['c', 'text'])", 0),
    "reordered": ("out = df[sorted(df.columns, reverse=True)]", 0),
    "renamed": ("out = df.rename(columns=str.upper)", 0),
    "row-major": ("out = pd.DataFrame(np.ascontiguousarray(df[list('abcdefghij')].to_numpy()), index=df.index)", 0),
    "of two frames": ("out = pd.concat([df, df[['a']].mul(2).rename(columns={'a': 'twice'})], axis=1)", COLUMN),
    "one value changed": ("out = df.copy()\nout.loc[7, 'b'] = -1.0", COLUMN),
    "in place": ("df['new'] = np.arange(len(df)) * 0.5", COLUMN),
    "array": ("out = df[list('abcdefghij')].to_numpy().T", 0),
}


@pytest.mark.parametrize("how", DERIVED)
def test_only_what_is_new_is_written(notebook: Notebook, root: Path, how: str) -> None:
    cell, new = DERIVED[how]
    before = taken(root)
    outcome = notebook.cached(cell)
    assert isinstance(outcome, Miss)
    assert new <= taken(root) - before <= new + ROWS / 8 * 15 + SLACK

    again = restarted(root, cell)
    name = "out" if "out" in notebook else "df"
    same(again[name], notebook[name])
    if isinstance(again[name], pd.DataFrame):
        assert blocks(again[name]) == blocks(notebook[name])


def test_the_store_counts_what_is_shared_once(notebook: Notebook, root: Path) -> None:
    notebook.cached(DERIVED["assigned"][0])
    usage = notebook.store.usage()
    assert usage.size == pytest.approx(taken(root), abs=SLACK)
    assert usage.linked > 9 * COLUMN
    assert not notebook.store.check()


def test_a_derived_frame_outlives_the_one_that_it_shares_with(notebook: Notebook, root: Path) -> None:
    cell, _ = DERIVED["assigned"]
    expected = entry_of(notebook.cached(cell))
    first = next(entry for entry in notebook.store.catalog().entries if entry.digest != expected.digest)
    notebook.store.evict([first], undoable=False)

    other = Notebook(root)
    other.run(SETUP)
    assert isinstance(other.cached(cell), Hit)
    same(other["out"], notebook["out"])
    assert not notebook.store.check()


def test_steps_share_with_all_that_came_before(notebook: Notebook, root: Path) -> None:
    before = taken(root)
    for step in range(6):
        assert isinstance(notebook.cached(f"df = df.assign(step{step}=np.arange(len(df)) + {step})"), Miss)
    assert taken(root) - before <= 6 * (COLUMN + ROWS / 8 * 20) + SLACK
    outputs = entry_of(notebook.cached("last = df")).manifest.outputs
    assert sum(output.is_part for output in outputs) <= 7
    other = Notebook(root)
    other.cached(SETUP)
    for step in range(6):
        assert isinstance(other.cached(f"df = df.assign(step{step}=np.arange(len(df)) + {step})"), Hit)
    same(other["df"], notebook["df"])


def test_two_outputs_of_one_cell_share(root: Path) -> None:
    notebook = Notebook(root)
    cell = SETUP + "    more = df.assign(new=1.5)\n"
    entry = entry_of(notebook.cached(cell))
    whole = next(output.size for output in entry.manifest.outputs if output.name == "df")
    assert taken(root) <= whole + COLUMN + ROWS / 8 * 15 + SLACK
    other = Notebook(root)
    assert isinstance(other.cached(cell), Hit)
    same(other["more"], notebook["more"])
    other["more"].loc[0, "a"] = 100.0
    assert other["df"].loc[0, "a"] != 100.0


def test_the_very_same_frame_is_one_file(notebook: Notebook, root: Path) -> None:
    before = taken(root)
    entry = entry_of(notebook.cached("same = df.copy()"))
    (output,) = entry.manifest.outputs
    assert (entry.path / output.file).stat().st_nlink == 2
    assert taken(root) - before < SLACK


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_part_is_a_miss_and_is_not_shared_again(notebook: Notebook, root: Path, damage: str) -> None:
    cell, _ = DERIVED["assigned"]
    entry = entry_of(notebook.cached(cell))
    part = next(entry.path / output.file for output in entry.manifest.outputs if output.is_part)
    if damage == "flipped":
        with part.open("r+b") as file:
            file.seek(part.stat().st_size // 2)
            file.write(b"\xff" * 4096)
    elif damage == "cut":
        os.truncate(part, part.stat().st_size - 4096)
    else:
        part.unlink()
    assert any("part1" in problem.what for problem in notebook.store.check())

    other = Notebook(root)
    problems: list[Problem] = []
    other.store.on_problem = problems.append
    other.run(SETUP)
    assert isinstance(other.cached(cell), Miss)
    assert "part1" in problems[0].what
    third = Notebook(root)
    third.session.verify = "full"
    third.run(SETUP)
    assert isinstance(third.cached(cell), Hit)
    same(third["out"], notebook["out"])


def test_restored_columns_are_independent(notebook: Notebook, root: Path) -> None:
    cell, _ = DERIVED["assigned"]
    notebook.cached(cell)
    one = restarted(root, cell)
    one["out"].loc[:, "a"] = 0.0
    one["out"]["new"] = 1.0
    assert one["df"]["a"].sum() > 0
    two = restarted(root, cell)
    same(two["out"], notebook["out"])


def test_parts_and_what_is_new_are_arrow_files_and_the_preview_shows_them_as_one(notebook: Notebook) -> None:
    entry = entry_of(notebook.cached(DERIVED["assigned"][0]))
    own, part = entry.manifest.outputs
    assert pa.ipc.open_file(pa.memory_map(str(entry.path / own.file))).read_all().column_names == ["new"]
    there = pa.ipc.open_file(pa.memory_map(str(entry.path / part.file))).read_all()
    assert there.column_names == list(notebook["df"].columns)
    preview = Preview.of(entry, own)
    assert [column.name for column in preview.columns] == list(notebook["out"].columns)
    page = preview.page(ROWS - 3, 3, columns=(0, 20))
    assert page.rows[-1][10] == str((ROWS - 1) % 1000)
    assert float(str(page.rows[-1][-1])) == (ROWS - 1) * 0.5


def test_little_is_not_worth_a_part(root: Path) -> None:
    notebook = Notebook(root)
    notebook.cached("import numpy as np, pandas as pd\ndf = pd.DataFrame(np.ones((100_000, 10)))")
    entry = entry_of(notebook.cached("out = df.assign(new=1)"))
    assert not any(output.is_part for output in entry.manifest.outputs)


def test_a_small_rest_does_not_keep_a_large_frame_alive(notebook: Notebook) -> None:
    entry = entry_of(notebook.cached("out = df[list('ab')].assign(c=df.c, d=1.0, e=2.0, f=3.0, g=4.0, h=5.0)"))
    assert not any(output.is_part for output in entry.manifest.outputs)


def test_what_is_interrupted_while_it_is_stored_leaves_nothing(
    notebook: Notebook, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = taken(root)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(notebook.session.shell), "progress", property(lambda _: interrupt), raising=False)
    assert "interrupted" in getattr(notebook.cached(DERIVED["assigned"][0]), "reason", "")
    assert taken(root) == before
    assert not list((root / "drafts").iterdir())
    assert notebook["out"]["new"].iloc[-1] == (ROWS - 1) * 0.5


def test_a_kernel_that_dies_while_it_stores_leaves_what_was_there(kernel: Kernel, store_root: Path) -> None:
    kernel.run("%load_ext prefect_cache")
    kernel.run("%%prefect_cache\n" + textwrap.dedent(SETUP))
    before = taken(store_root)
    kernel.run("import os, time\nwrite = os.pwrite\nos.pwrite = lambda *given: time.sleep(1) or write(*given)")
    kernel.submit("%%prefect_cache\n" + DERIVED["assigned"][0])
    while not list((store_root / "drafts").glob("*/*-part1.arrow")):
        time.sleep(0.01)
    kernel.kill()
    store = Store(store_root)
    assert store.sweep() == 1
    assert taken(store_root) == before
    assert not store.check()
    (path,) = store_root.glob("entries/*/00-df.arrow")
    assert path.stat().st_nlink == 1


def test_parts_go_to_a_storage_once_and_come_back(notebook: Notebook, root: Path, tmp_path: Path) -> None:
    cell, _ = DERIVED["assigned"]
    derived = entry_of(notebook.cached(cell))
    first = next(entry for entry in notebook.store.catalog().entries if entry.digest != derived.digest)
    place = open_place((tmp_path / "team").as_uri())
    for entry in (notebook.store.get(first.digest), derived):
        Remote(place, notebook.store).push(entry)
    assert sum(path.stat().st_size for path in (tmp_path / "team").rglob("*.arrow")) < taken(root) + SLACK

    other = Notebook(tmp_path / "other")
    (fetched,) = Remote(place, other.store).pull(derived.manifest.key.digest)
    assert not other.store.check()
    own = next(output for output in fetched.manifest.outputs if not output.is_part)
    same(mapped.read(fetched.path / own.file, trusted=False), notebook["out"])


# The joint itself, as someone might have changed it.


@pytest.fixture
def joined(notebook: Notebook) -> Path:
    """Return the file of a frame that shares."""
    entry = entry_of(notebook.cached(DERIVED["assigned"][0]))
    return entry.path / entry.manifest.outputs[0].file


def forged(path: Path, change: Callable[[dict[str, Any]], object]) -> dict[bytes, bytes]:
    """Return a file's metadata with another joint, whose digest is right."""
    metadata = pa.ipc.open_file(pa.memory_map(str(path))).schema.metadata
    told = json.loads(metadata[parts.JOINT])
    change(told)
    text = json.dumps(told).encode()
    return {parts.JOINT: text, parts.JOINT_DIGEST: digest(text).encode()}


FORGERIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a path": lambda told: told["parts"][0].__setitem__(0, "../x.arrow"),
    "another size": lambda told: told.__setitem__("size", told["size"] + 1),
    "no such part": lambda told: told["extents"][0].__setitem__(0, 9),
    "another format": lambda told: told.__setitem__("format", 99),
    "no extents": lambda told: told.__setitem__("extents", []),
    "words": lambda told: told.__setitem__("parts", "none"),
}


@pytest.mark.parametrize("how", FORGERIES)
def test_a_joint_that_cannot_be_is_damage(joined: Path, how: str) -> None:
    with pytest.raises(Damaged):
        parts.Joint.of(forged(joined, FORGERIES[how]))


def test_a_joint_that_was_changed_is_damage(joined: Path) -> None:
    metadata = forged(joined, lambda _: None)
    assert parts.Joint.of(metadata) is not None
    with pytest.raises(Damaged, match="changed"):
        parts.Joint.of({**metadata, parts.JOINT: metadata[parts.JOINT] + b" "})


def test_pages_larger_than_leaves_are_read(joined: Path, notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping.mmap, "PAGESIZE", 2**16)
    same(mapped.read(joined, trusted=False), notebook["out"])


def test_a_frame_of_many_columns_shares_its_block_and_a_strided_one_its_columns(tmp_path: Path) -> None:
    wide = pd.DataFrame(np.arange(40_000_000, dtype="f8").reshape(100, -1).T)
    body = mapped.Body()
    mapped.skeleton.dump(wide, body, mapped.Canon())
    assert len(list(body.runs())) == 100
    narrow = mapped.Body()
    mapped.skeleton.dump(wide.iloc[:5000], narrow, mapped.Canon())
    assert len(list(narrow.runs())) == 1
