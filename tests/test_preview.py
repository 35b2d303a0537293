"""Pages, filters, sorts, statistics and exports of stored frames, from real Arrow files."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import panels
from prefect_cache import codecs
from prefect_cache.errors import Damaged, UsageProblem
from prefect_cache.preview import Preview
from prefect_cache.preview.export import export
from prefect_cache.preview.filters import Condition, parse
from prefect_cache.preview.statistics import Sketch
from prefect_cache.preview.text import duration, texts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EPOCH = "1970-01-01"


@pytest.fixture
def open_(tmp_path: Path) -> Callable[[object], Preview]:
    """Write a value with its codec, or a table as it is, and open it."""

    def act(value: object) -> Preview:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.arrow"
        if isinstance(value, pa.RecordBatch):
            with pa.ipc.new_file(path, value.schema) as writer:
                writer.write_batch(value)
            return Preview(path)
        codec = codecs.codec_for(value)
        assert codec is not None
        written = codec.write(value, path)
        return Preview(path, written.meta, written.size)

    return act


def column(preview: Preview, **asked: Any) -> list[str | None]:
    """The first column of a page."""
    return [row[0] for row in preview.page(**asked).rows]


class TestText:
    """Cells lose nothing that a reader would miss."""

    @pytest.mark.parametrize(
        ("array", "expected"),
        [
            (pa.array([2**63 - 1, -(2**63), None]), ["9223372036854775807", "-9223372036854775808", None]),
            (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
            (pa.array([1.0, 0.1, -0.0, math.inf, math.nan, 1e300]), ["1.0", "0.1", "-0.0", "inf", "NaN", "1e+300"]),
            (pa.array([141.91251170988502, -1 / 3e9]), ["141.9125117", "-3.333333333e-10"]),
            (pa.array([Decimal("1.10"), None]), ["1.10", None]),
            (pa.array(["null", None, ""]), ["null", None, ""]),
            (pa.array([True, None]), ["True", None]),
            (pa.array([1, 10**9], pa.timestamp("ns")), [f"{EPOCH} 00:00:00.000000001", f"{EPOCH} 00:00:01.000000000"]),
            (pa.array([0], pa.timestamp("us", "Europe/Berlin")), [f"{EPOCH} 01:00:00+0100"]),
            (pa.array([86400], pa.timestamp("s")), ["1970-01-02"]),
            (pa.array([dt.date(9999, 12, 31)]), ["9999-12-31"]),
            (pa.array([90_061_500], pa.duration("ms")), ["1 d 01:01:01.5"]),
            (pa.array(["a", None]).dictionary_encode(), ["a", None]),
            (pa.array([b"\x00x"]), [r"b'\x00x'"]),
            (pa.array([[1, None], [], None]), ["[1, null]", "[]", None]),
            (pa.array([{"a": 1, "b": "x"}]), ["{a: 1, b: 'x'}"]),
            (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), ["{'k': 1}"]),
            (pa.nulls(2), [None, None]),
        ],
        ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
    )
    def test_values_as_text(self, array: pa.Array, expected: list[str | None]) -> None:
        """Each kind of value is exact, and what is missing is None."""
        assert expected == texts(array)

    def test_long_cells_are_cut_and_cheap(self) -> None:
        """A text or list of a million elements shows its beginning."""
        (cell,) = texts(pa.array(["é" * 1_000_000]))
        assert cell == "é" * 199 + "…"
        (cell,) = texts(pa.array([list(range(1_000_000))]))
        assert cell is not None
        assert cell.endswith("1,000,000 items]")

    def test_durations(self) -> None:
        """Spans read as days and a clock."""
        assert duration(-90, 0) == "-00:01:30"
        assert duration(86_400_000_000_001, 9) == "1 d 00:00:00.000000001"


class TestPages:
    """Rows and columns by windows."""

    def test_windows_of_rows_and_columns(self, open_: Callable[[object], Preview]) -> None:
        """A page holds what was asked for and says how much there is."""
        preview = open_(pd.DataFrame({f"c{i}": np.arange(200) * i for i in range(30)}))
        page = preview.page(100, 50, columns=(10, 5))
        assert [c.name for c in page.columns] == ["c10", "c11", "c12", "c13", "c14"]
        assert page.rows[0] == ("1000", "1100", "1200", "1300", "1400")
        assert (page.first, page.total, page.total_columns, len(page.rows)) == (100, 200, 30, 50)
        assert page.numbers[0] == 100
        assert len(preview.page(190, 50).rows) == 10

    def test_the_index_comes_first_by_its_name(self, open_: Callable[[object], Preview]) -> None:
        """Index levels are columns, before the others."""
        preview = open_(pd.DataFrame({"v": [1, 2]}, index=["a", "b"]))
        page = preview.page()
        assert page.rows == (("a", "1"), ("b", "2"))
        assert page.columns[0].name == "index"

    def test_columns_carry_the_dtypes_of_pandas(self, open_: Callable[[object], Preview]) -> None:
        """The dtype is the value's own, not Arrow's."""
        names = {c.name: c.dtype for c in open_(panels.orders(20)).columns}
        assert names["quantity"] == "Int64"
        assert names["country"] == "category"

    def test_an_empty_frame_has_a_page(self, open_: Callable[[object], Preview]) -> None:
        """No rows is no error."""
        page = open_(pd.DataFrame({"a": pd.Series([], dtype="int64")})).page()
        assert (page.rows, page.total, [c.name for c in page.columns]) == ((), 0, ["a"])

    def test_a_row_beyond_the_end_is_said(self, open_: Callable[[object], Preview]) -> None:
        """Asking for too much names what there is."""
        with pytest.raises(UsageProblem, match="there is no row 101: the frame has 3 rows"):
            open_(pd.DataFrame({"a": [1, 2, 3]})).page(100)

    def test_a_wide_page_of_long_cells_stays_small(self, open_: Callable[[object], Preview]) -> None:
        """Whatever the cells hold, a page is less than 64 kB."""
        preview = open_(pd.DataFrame({f"c{i}": ["ü" * 500] * 60 for i in range(60)}))
        page = preview.page(columns=(0, 60))
        assert len(json.dumps(page.rows, ensure_ascii=False).encode()) < 64_000
        assert len(page.columns) == len(page.rows[0])
        assert preview.cell(0, 0) == "ü" * 500

    def test_a_file_of_the_wrong_size_is_not_mapped(self, tmp_path: Path) -> None:
        """A truncated file is damage, never a crash."""
        path = tmp_path / "x.arrow"
        path.write_bytes(b"ARROW1")
        with pytest.raises(Damaged, match="should have 100"):
            Preview(path, size=100)
        with pytest.raises(Damaged, match="cannot be read"):
            Preview(path)
        with pytest.raises(Damaged, match="is gone"):
            Preview(tmp_path / "gone.arrow")


class TestFilters:
    """``column op value and ...``."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("price > 130", (Condition("price", ">", ("130",)),)),
            ("`a b`==1 and c is not null", (Condition("a b", "=", ("1",)), Condition("c", "null", (), negated=True))),
            ("name = 'x and y'", (Condition("name", "=", ("x and y",)),)),
            ("city = New York", (Condition("city", "=", ("New York",)),)),
            ("n in (1, 2)", (Condition("n", "in", ("1", "2")),)),
            ("day >= 2013-01-01 10:00", (Condition("day", ">=", ("2013-01-01 10:00",)),)),
            ("note not in ('a')", (Condition("note", "in", ("a",), negated=True),)),
            ("", ()),
        ],
    )
    def test_what_people_write(self, text: str, expected: tuple[Condition, ...]) -> None:
        """Quotes, backticks, bare words and brackets."""
        assert expected == parse(text)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("price >", "the filter ends where a value"),
            ("price", "the filter ends where a comparison"),
            ("price > 1 or b < 2", "only 'and' joins"),
            ("price ~ 1", "is no comparison"),
            ("price is 3", "followed by 'null'"),
            ("price in 3", "stand in brackets"),
            ("price in (3", "a closing bracket"),
            ("name = 'x", "a quote is not closed"),
            ("> 3", "a column was expected"),
            ("__import__('os').system('x')", "is no comparison"),
            ("price > 1; drop table x", "cannot be compared"),
            ("pric > 1", "did you mean 'price'"),
            ("zzz > 1", "there is no column 'zzz'"),
            ("price > much", "cannot be compared with 'price', which is"),
            ("price contains 1", "looks into text"),
            ("tags = 1", "cannot be compared"),
            ("order_id = nan", "cannot be compared"),
            ("placed > yesterday", "cannot be compared"),
        ],
    )
    def test_what_cannot_be_read_is_said(self, text: str, words: str, open_: Callable[[object], Preview]) -> None:
        """Each mistake has its line."""
        with pytest.raises(UsageProblem, match=words):
            open_(panels.orders(20)).page(filter=text)

    @settings(max_examples=200, deadline=None)
    @given(st.text(max_size=40))
    def test_nothing_else_ever_comes_of_a_filter(self, text: str) -> None:
        """Any text parses or is refused in words."""
        with contextlib.suppress(UsageProblem):
            assert isinstance(parse(text), tuple)

    @pytest.mark.parametrize(
        ("text", "kept"),
        [
            ("order_id = 1152921504606846980", lambda f: f.order_id == 2**60 + 4),
            ("order_id > 1152921504606846980.5", lambda f: f.order_id > 2**60 + 4),
            ("order_id <= 1e30", lambda f: f.order_id > 0),
            ("quantity >= 5", lambda f: f.quantity.fillna(0) >= 5),
            ("quantity != 5", lambda f: f.quantity.notna() & (f.quantity.fillna(0) != 5)),
            ("price < 60", lambda f: f.price < 60),
            ("price is null", lambda f: f.price.isna()),
            ("customer = null", lambda f: f.customer == "null"),
            ("customer contains AD", lambda f: f.customer == "Ada"),
            ("country in (DE, FR)", lambda f: f.country.isin(["DE", "FR"])),
            ("country not in (DE, FR)", lambda f: ~f.country.isin(["DE", "FR"])),
            ("note is not null and paid = true", lambda f: f.note.notna() & f.paid),
            ("tax >= 1.005", lambda f: f.tax >= Decimal("1.005")),
            ("placed >= 2026-04-01 and placed < 2026-05-01", lambda f: f.placed.dt.month == 4),
            ("delivery > 2 d 12:00:00", lambda f: f.delivery > pd.Timedelta("2D12h")),
            ("day = 2026-03-05", lambda f: f.day == dt.date(2026, 3, 5)),
        ],
    )
    def test_a_filter_keeps_what_pandas_keeps(
        self, text: str, kept: Callable[[pd.DataFrame], pd.Series[bool]], open_: Callable[[object], Preview]
    ) -> None:
        """The rows are those of a mask in pandas, in the frame's order."""
        frame = panels.orders(500)
        page = open_(frame).page(0, 1000, filter=text)
        expected = np.flatnonzero(kept(frame).fillna(value=False).to_numpy(dtype=bool)).tolist()
        assert expected
        assert expected == list(page.numbers)
        assert page.total == len(expected)

    def test_later_pages_of_a_filter(self, open_: Callable[[object], Preview]) -> None:
        """Pages of a filter follow each other over blocks of rows."""
        preview = open_(pd.DataFrame({"n": np.arange(2_500_000)}))
        page = preview.page(1_000_000, 3, filter="n >= 1000000")
        assert page.numbers == (2_000_000, 2_000_001, 2_000_002)
        with pytest.raises(UsageProblem, match="the filter keeps 1,500,000 rows"):
            preview.page(1_500_000, 3, filter="n >= 1000000")


class TestSorts:
    """Order by a column."""

    @pytest.mark.parametrize("name", ["order_id", "placed", "customer", "quantity", "price", "tax", "delivery", "note"])
    @pytest.mark.parametrize("descending", [False, True])
    def test_a_short_frame_is_sorted_whole_and_stably(
        self, name: str, descending: bool, open_: Callable[[object], Preview]
    ) -> None:
        """The order is that of a stable sort in pandas, what is missing last."""
        frame = panels.orders(300)
        page = open_(frame).page(0, 300, sort=name, descending=descending)
        expected = frame.sort_values(name, ascending=not descending, kind="stable", na_position="last").index.tolist()
        assert expected == list(page.numbers)
        assert page.note == ""

    def test_a_long_frame_shows_its_first_rows_in_order(self, open_: Callable[[object], Preview]) -> None:
        """Of a long frame the first ten thousand rows are shown, and it is said so."""
        values = np.random.default_rng(5).integers(0, 1_000_000, 1_200_000)
        preview = open_(pd.DataFrame({"n": values}))
        for descending in (False, True):
            page = preview.page(9_950, 50, sort="n", descending=descending)
            order = np.argsort(-values if descending else values, kind="stable")
            assert order[9_950:10_000].tolist() == list(page.numbers)
            assert page.note == "sorted by n: the first 10,000 of 1,200,000 rows"
        with pytest.raises(UsageProblem, match="shows the first 10,000"):
            preview.page(10_000, sort="n")

    def test_a_sort_of_a_filter(self, open_: Callable[[object], Preview]) -> None:
        """Only what the filter keeps is sorted."""
        preview = open_(pd.DataFrame({"n": [3, 1, 2, 9], "k": list("abab")}))
        assert column(preview, filter="k = a", sort="n") == ["2", "3"]

    def test_what_has_no_order_is_said(self, open_: Callable[[object], Preview]) -> None:
        """Lists cannot be sorted by."""
        with pytest.raises(UsageProblem, match="has no order"):
            open_(panels.orders(20)).page(sort="tags")


class TestStatistics:
    """What a column holds."""

    def test_a_number_column(self, open_: Callable[[object], Preview]) -> None:
        """Missing, bounds, distinct values and a histogram that counts every value."""
        frame = pd.DataFrame({"v": [1.5, math.nan, *np.linspace(0, 10, 98)]})
        found = open_(frame).statistics(0)
        assert found is not None
        assert (found.missing, found.minimum, found.maximum, found.distinct) == (1, "0.0", "10.0", 99)
        assert sum(found.histogram) == 99

    def test_few_values_are_counted_one_by_one(self, open_: Callable[[object], Preview]) -> None:
        """Categories by how frequent they are, numbers in their own order."""
        preview = open_(pd.DataFrame({"k": pd.Categorical(list("abbccc")), "n": [3, 1, 1, 2, 2, 2]}))
        categories, numbers = preview.statistics(0), preview.statistics(1)
        assert categories is not None
        assert numbers is not None
        assert (categories.labels, categories.histogram) == (("c", "b", "a"), (3, 2, 1))
        assert (numbers.labels, numbers.histogram) == (("1", "2", "3"), (2, 3, 1))

    def test_every_column_of_a_frame_has_some(self, open_: Callable[[object], Preview]) -> None:
        """No dtype is refused."""
        preview = open_(panels.orders(50))
        for i in range(len(preview.columns)):
            found = preview.statistics(i)
            assert found is not None

    def test_a_walk_can_be_stopped(self, open_: Callable[[object], Preview]) -> None:
        """Work that nobody waits for ends at once."""
        assert open_(panels.orders(50)).statistics(0, stop=lambda: True) is None

    @pytest.mark.parametrize("distinct", [100, 16_000, 300_000])
    def test_distinct_values_are_exact_or_near(self, distinct: int) -> None:
        """Exact up to sixteen thousand, within five percent beyond."""
        sketch = Sketch()
        random = np.random.default_rng(1)
        for kind in (pa.int64(), pa.large_string()):
            sketch = Sketch()
            values = np.concatenate([np.arange(distinct), random.integers(0, distinct, 50_000)])
            for part in np.array_split(values, 7):
                sketch.add(pa.array(part).cast(kind))
            assert sketch.exact == (distinct <= 16_384)
            assert abs(sketch.estimate - distinct) <= (0 if sketch.exact else 0.05 * distinct)


class TestExports:
    """Parquet and CSV files of a stored frame."""

    def test_parquet_holds_the_frame(self, open_: Callable[[object], Preview], tmp_path: Path) -> None:
        """Every value of every column arrives."""
        frame = panels.orders(300)
        path = export(open_(frame), tmp_path, "orders", "parquet", lambda: False)
        assert path == tmp_path / "orders.parquet"
        back = pq.read_table(path)
        assert back.column("order_id").to_pylist() == frame["order_id"].tolist()
        assert back.column("tax").to_pylist() == frame["tax"].tolist()
        assert back.num_columns == 12

    def test_nothing_is_replaced_and_no_path_escapes(self, open_: Callable[[object], Preview], tmp_path: Path) -> None:
        """Names are made safe, and an existing file keeps its content."""
        (tmp_path / "etc_passwd.csv").write_text("mine")
        path = export(open_(panels.orders(3)), tmp_path, "../etc/passwd", "csv", lambda: False)
        assert path == tmp_path / "etc_passwd-1.csv"
        assert (tmp_path / "etc_passwd.csv").read_text() == "mine"
        assert len(path.read_text().splitlines()) == 4

    def test_a_stopped_export_leaves_nothing(self, open_: Callable[[object], Preview], tmp_path: Path) -> None:
        """What is not whole is not there."""
        preview = open_(panels.orders(3))
        before = sorted(tmp_path.iterdir())
        assert export(preview, tmp_path, "orders", "parquet", lambda: True) is None
        assert sorted(tmp_path.iterdir()) == before
