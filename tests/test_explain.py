"""What happened and why, in the words that a person reads: one line under a cell, and the lines of a ``why``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from prefect_cache import explain
from prefect_cache.model import (
    Bypass,
    Change,
    Entry,
    Failed,
    Hit,
    Key,
    Manifest,
    Miss,
    Output,
    Part,
    Run,
)

if TYPE_CHECKING:
    from prefect_cache.model import Json, Outcome

NOON = time.mktime((2026, 11, 12, 12, 0, 0, 0, 0, -1))
DAY = 86400.0


def part(kind: str, name: str = "", digest: str = "0", detail: Json = None) -> Part:
    return Part(kind, name, digest, detail)


def changed(kind: str, name: str, older: Json = None, newer: Json = None) -> Change:
    return Change(kind, name, "changed", part(kind, name, "0", older), part(kind, name, "1", newer))


def entry(
    *sizes: tuple[str, int], key: Key | None = None, source: str = "x = 1", displays: tuple[Any, ...] = ()
) -> Entry:
    outputs = tuple(
        Output(name, "DataFrame", "arrow", f"{i}-{name}.arrow", "0", size) for i, (name, size) in enumerate(sizes)
    )
    effects = {"names": {name: ["file", 0] for name, _ in sizes}}
    run = Run(started=NOON, seconds=250.0)
    manifest = Manifest(1, "orders", source, key or Key("0" * 32, ()), (), outputs, effects, displays, run)
    return Entry(manifest, Path("entries") / ("0" * 32), 100, NOON)


KEY = Key("0" * 32, ())


class TestStatusLine:
    @pytest.mark.parametrize(
        ("outcome", "line"),
        [
            (
                Hit(entry(("orders", 1_100_000_000), ("model", 100_000_000)), 0.008, KEY),
                "restored orders, model (1.2 GB) in 8 ms; ran 4 min 10 s on 12 Nov",
            ),
            (
                Miss(entry(("orders", 48_000_000)), 250.0, KEY, "orders[price] changed"),
                "ran in 4 min 10 s, stored 1 output (48 MB); missed because orders[price] changed",
            ),
            (
                Miss(entry(("a", 1), ("b", 1)), 250.0, KEY, "", refreshed=True),
                "ran in 4 min 10 s, stored 2 outputs (2 B); refreshed as asked",
            ),
            (
                Bypass("lock is a _thread.lock", 2.0, KEY, "leave it out with --ignore lock"),
                "ran in 2.0 s, not stored: lock is a _thread.lock; leave it out with --ignore lock",
            ),
            (Failed(KeyError("x"), 0.5, KEY), "failed after 500 ms, nothing stored: KeyError"),
        ],
    )
    def test_says_in_one_line_what_became_of_the_cell(self, outcome: Outcome, line: str) -> None:
        assert line == explain.status_line(outcome, NOON + 3 * DAY)

    def test_says_what_the_user_should_hear_besides(self) -> None:
        outcome = Hit(entry(("x", 1)), 0.001, KEY, ("numpy.random was not seeded: its draws are frozen",))
        assert explain.status_line(outcome, NOON).endswith("; numpy.random was not seeded: its draws are frozen")

    def test_spells_out_a_few_names_only(self) -> None:
        outcome = Hit(entry(*((f"x{i}", 1) for i in range(7))), 0.001, KEY)
        assert explain.status_line(outcome, NOON).startswith("restored x0, x1, x2, x3 and 3 more (7 B)")

    def test_of_a_cell_that_only_printed(self) -> None:
        outcome = Hit(entry(displays=({"output_type": "stream"},)), 0.0001, KEY)
        assert explain.status_line(outcome, NOON).startswith("restored its output in under 1 ms")

    def test_in_a_notebook_is_the_same_words(self) -> None:
        outcome = Miss(entry(("x", 1)), 1.0, KEY, "x changed")
        html = explain.status_html(outcome, NOON)
        assert "<b>ran</b> in 4 min 10 s, stored 1 output (1 B); missed because x changed" in html

    def test_in_a_notebook_shows_data_as_text(self) -> None:
        outcome = Bypass("<img src=x onerror=alert(1)>", 1.0, KEY)
        assert "<img" not in explain.status_html(outcome, NOON)
        assert "&lt;img" in explain.status_html(outcome, NOON)


@pytest.mark.parametrize(("later", "said"), [(60.0, "at 12:00"), (3 * DAY, "on 12 Nov"), (200 * DAY, "on 12 Nov 2026")])
def test_a_moment_is_said_as_in_a_sentence(later: float, said: str) -> None:
    assert said == explain.day(NOON, NOON + later)


FRAME = {"type": "DataFrame", "rows": 10, "columns": {"price": "a", "item": "b", "time": "c"}}


@pytest.mark.parametrize(
    ("change", "clause"),
    [
        (changed("code", ""), "the cell's code changed"),
        (changed("input", "x", {"type": "int", "value": "1"}, {"type": "int", "value": "2"}), "x changed"),
        (
            changed("input", "orders", FRAME, {**FRAME, "columns": {**FRAME["columns"], "price": "z"}}),
            "orders[price] changed",
        ),
        (changed("input", "orders", FRAME, {**FRAME, "rows": 13}), "orders changed"),
        (Change("input", "y", "new", None, part("input", "y")), "y is an input that it did not have"),
        (Change("input", "y", "gone", part("input", "y"), None), "y is no longer an input"),
        (changed("function", "clean"), "helper clean changed"),
        (changed("package", "pandas", "3.0", "3.1"), "pandas 3.0 -> 3.1"),
        (changed("python", "", "3.11", "3.12"), "Python 3.11 -> 3.12"),
        (changed("file", "data/2013.csv"), "data/2013.csv changed"),
        (Change("file", "gone.csv", "gone", part("file", "gone.csv"), None), "gone.csv is gone"),
        (Change("absent", "new.csv", "changed"), "new.csv now exists"),
        (Change("exists", "old.csv", "gone"), "old.csv, which it looked for, is gone"),
        (Change("dates", "old.csv", "changed"), "old.csv was written since"),
        (Change("written", "out.csv", "gone"), "out.csv, which it wrote, is missing"),
        (changed("folder", "data"), "the files in data changed"),
        (
            changed("files", "*.csv", {"a.csv": "1", "b.csv": "2"}, {"a.csv": "3", "b.csv": "2"}),
            "file a.csv differs (1 other equal)",
        ),
        (changed("environ", "MODE"), "$MODE changed"),
        (changed("state", "shell"), "how the shell runs cells changed"),
        (changed("state", "pandas[display.max_rows]"), "pandas[display.max_rows] changed"),
        (changed("random", "random"), "the state of random changed"),
        (Change("expired", "orders", "gone"), "its stored run has expired"),
        (changed("a kind of tomorrow", "thing"), "thing changed"),
    ],
)
def test_a_change_is_one_clause(change: Change, clause: str) -> None:
    assert clause == explain.because(change)


def test_of_many_changes_the_most_telling_are_said() -> None:
    changes = [
        changed("package", "pandas", "3.0", "3.1"),
        changed("input", "x"),
        changed("code", ""),
        changed("input", "y"),
    ]
    assert explain.because_all(changes) == "the cell's code changed, x changed and 2 more things changed"


def test_without_an_earlier_run_there_is_nothing_to_compare() -> None:
    assert explain.because_all(()) == explain.NEVER_RUN


class TestWhy:
    def test_says_how_a_frame_differs(self) -> None:
        newer = {**FRAME, "rows": 13, "columns": {"price": "z", "item": "b", "time": "c"}}
        assert explain.why([changed("input", "orders", FRAME, newer)]) == [
            "orders: 3 rows added, column price differs (2 others equal)"
        ]

    def test_says_which_columns_came_went_or_moved(self) -> None:
        newer = {**FRAME, "columns": {"item": "b", "time": "c", "weight": "d"}}
        assert explain.why([changed("input", "orders", FRAME, newer)]) == [
            "orders: column weight added, column price removed"
        ]
        moved = {**FRAME, "columns": {"item": "b", "price": "a", "time": "c"}}
        assert explain.why([changed("input", "orders", FRAME, moved)]) == ["orders: order of columns changed"]

    def test_says_how_values_differ(self) -> None:
        older, newer = {"type": "int", "value": "1"}, {"type": "int", "value": "2"}
        assert explain.why([changed("input", "x", older, newer)]) == ["x: 1 -> 2"]
        assert explain.why([changed("input", "x", older, {"type": "str", "value": "'1'"})]) == ["x: was int, is str"]

    def test_shows_what_was_edited_in_a_helper(self) -> None:
        older = {"type": "function", "source": "def clean(x):\n    return x.strip()\n"}
        newer = {"type": "function", "source": "def clean(x):\n    return x.strip().lower()\n"}
        assert explain.why([changed("function", "clean", older, newer)]) == [
            "helper clean: changed",
            "     def clean(x):",
            "    -    return x.strip()",
            "    +    return x.strip().lower()",
        ]

    def test_shows_what_was_edited_in_the_cell(self) -> None:
        lines = explain.why([changed("code", "")], older_source="x = 1\n", source="x = 2\n")
        assert lines == ["the cell's code: changed", "    -x = 1", "    +x = 2"]

    def test_says_versions(self) -> None:
        assert explain.why([changed("package", "pandas", "3.0", "3.1")]) == ["package pandas: 3.0 -> 3.1"]


class TestNearest:
    def entries(self) -> dict[str, Entry]:
        def key(code: str, x: str) -> Key:
            return Key(code + x, (part("code", "", code), part("input", "x", x), part("input", "y", "same")))

        return {code + x: entry(key=key(code, x), source=code) for code, x in ("a1", "a2", "b1", "c9")}

    def test_is_the_entry_of_the_same_code(self) -> None:
        found = self.entries()
        wanted = Key("new", (part("code", "", "b"), part("input", "x", "77"), part("input", "y", "other")))
        assert explain.nearest(wanted, found.values()) is found["b1"]

    def test_is_the_entry_with_most_in_common(self) -> None:
        found = self.entries()
        wanted = Key("new", (part("code", "", "a"), part("input", "x", "2"), part("input", "z", "new")))
        assert explain.nearest(wanted, found.values()) is found["a2"]

    def test_is_none_where_nothing_is_alike(self) -> None:
        wanted = Key("new", (part("code", "", "zzz"), part("input", "q", "1")))
        assert explain.nearest(wanted, self.entries().values()) is None
        assert explain.nearest(wanted, ()) is None


class TestTable:
    table = explain.Table(
        ("Name", "Size"), (("<b>", "1 B"), ("orders", "48 MB")), right=(1,), caption="2 entries", footer=("end",)
    )

    def test_is_aligned_text(self) -> None:
        assert str(self.table).splitlines() == ["2 entries", "Name     Size", "<b>       1 B", "orders  48 MB", "end"]

    def test_is_escaped_html(self) -> None:
        html = self.table._repr_html_()
        assert '<td style="text-align:left">&lt;b&gt;</td>' in html
        assert "<b>" not in html

    def test_without_rows_is_its_caption(self) -> None:
        assert str(explain.Table(("a",), (), caption="nothing")) == "nothing"


def test_lines_of_a_diff_are_coloured_and_escaped() -> None:
    html = explain.Lines(("x: changed", "    -<old>", "      +new", "       - same"), headed=True)._repr_html_()
    assert '<span style="color:#cf222e">    -&lt;old&gt;</span>' in html
    assert '<span style="color:#2da44e">      +new</span>' in html
    assert "\n       - same</pre>" in html
    assert "<b>x: changed</b>" in html


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        (Hit(entry(), 0.0, KEY), "hit"),
        (Miss(entry(), 0.0, KEY, ""), "miss"),
        (Miss(entry(), 0.0, KEY, "", refreshed=True), "refresh"),
        (Bypass("", 0.0), "bypass"),
        (Failed(ValueError(), 0.0), "failed"),
    ],
)
def test_each_outcome_has_one_word(outcome: Outcome, word: str) -> None:
    assert word == explain.status(outcome)
