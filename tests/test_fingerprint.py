"""Equal values meet, different ones part, and nothing is touched: the contract of fingerprints, one table of each."""

from __future__ import annotations

import array
import asyncio
import collections
import copy
import datetime as dt
import decimal
import enum
import fractions
import functools
import io
import os
import pathlib
import pickle
import random
import re
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import types
import uuid
import weakref
import zoneinfo
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeClassifier

from prefect_cache.cells import walk
from prefect_cache.cells.fingerprint import Fingerprinter, fingerprint, register, resolve
from prefect_cache.errors import Unfingerprintable

PANDAS_3 = int(pd.__version__.partition(".")[0]) >= 3


def content(value):
    """Return the digest of a value's content alone: no packages, no globals of functions."""
    return Fingerprinter({}).digest_of(value)


# ------------------------------------------------------------------------------------------ what must meet


def words(count):
    return [f"w{i % 7}é{'x' * (i % 3)}" for i in range(count)]


def split_blocks():
    frame = pd.DataFrame({"a": [1.0, 2.0]})
    frame["b"] = [3.0, 4.0]
    return frame


def garbage_under_mask(values):
    made = pd.array([1, None, 3], dtype="Int64")
    made._data[1] = values
    return made


def arrow_text(data, bits=0b101):
    """Return ``["ab", null, "c"]`` with some bytes under the null."""
    between = len(data) - 3
    offsets = struct.pack("<4i", 0, 2, 2 + between, 3 + between)
    return pa.Array.from_buffers(
        pa.string(), 3, [pa.py_buffer(bytes([bits])), pa.py_buffer(offsets), pa.py_buffer(data)]
    )


def chained(*parts):
    return pa.chunked_array([pa.array(p) for p in parts])


def colliding(*items):
    """Return a set whose order is that of insertion among colliding hashes."""
    found = set()
    for item in items:
        found.add(item)
    return found


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a, b=None):
        self.a = a
        if b is not None:
            self.b = b


@dataclass
class Point:
    x: int
    y: list = field(default_factory=list)


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


class Listed(list):
    pass


class Tagged(dict):
    def items(self):
        return [("lies", 1)]


def with_attribute(value, **attributes):
    for name, held in attributes.items():
        setattr(value, name, held)
    return value


def ring(count, values=(1,)):
    """Return a ring of lists, each of which holds the next one."""
    lists = [[values[i % len(values)]] for i in range(count)]
    for one, following in zip(lists, [*lists[1:], lists[0]], strict=True):
        one.append(following)
    return lists[0]


def twice(value):
    return [value, value]


def used(value, use):
    use(value)
    return value


def pickled(value):
    return value, pickle.loads(pickle.dumps(value))


FLOATS = np.arange(24.0).reshape(4, 6)
MANY = np.random.default_rng(1).random((3000, 40))

MEET = {
    "a float frame, rebuilt": lambda: (pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}), split_blocks()),
    "a frame, copied": lambda: (split_blocks(), split_blocks().copy()),
    "a frame from rows in memory": lambda: (pd.DataFrame(MANY), pd.DataFrame(np.asfortranarray(MANY), copy=False)),
    "a frame sliced from a larger one": lambda: (
        pd.DataFrame({"a": [1, 2]}, index=[1, 2]),
        pd.DataFrame({"a": range(5)}, index=[*range(5)])[1:3],
    ),
    "a frame of every second row": lambda: (
        pd.DataFrame(MANY[::2]),
        pd.DataFrame(MANY).iloc[::2].reset_index(drop=True),
    ),
    "a reversed Series": lambda: (pd.Series([3, 2, 1], index=[2, 1, 0]), pd.Series([1, 2, 3], index=[0, 1, 2])[::-1]),
    "an array in Fortran's order": lambda: (MANY, np.asfortranarray(MANY)),
    "a wide array in Fortran's order": lambda: (MANY.T.copy(), MANY.T),
    "rows longer than a tile": lambda: (
        np.arange(80_000.0).reshape(2, -1),
        np.asfortranarray(np.arange(80_000.0).reshape(2, -1)),
    ),
    "three axes": lambda: (np.arange(60).reshape(3, 4, 5), np.asfortranarray(np.arange(60).reshape(3, 4, 5))),
    "three axes, long rows": lambda: (
        np.arange(60_000.0).reshape(2, 3, -1),
        np.asfortranarray(np.arange(60_000.0).reshape(2, 3, -1)),
    ),
    "negative strides": lambda: (FLOATS[::-1].copy(), FLOATS[::-1]),
    "a strided window": lambda: (FLOATS[:, ::2].copy(), FLOATS[:, ::2]),
    "a broadcast array": lambda: (locked(np.ones((3, 4))), np.broadcast_to(np.float64(1), (3, 4))),
    "padding between fields": lambda: tuple(padded(b) for b in (0, 255)),
    "padding of long doubles": lambda: tuple(long_double(b) for b in (0, 255)),
    "a structured array by fields": lambda: (np.zeros(3, "i4,f8"), np.zeros((3, 2), "i4,f8")[:, 0]),
    "objects in an array": lambda: (np.array([1, "a", None], object), np.array([1, 2, "a", 3, None], object)[::2]),
    "numbers under a mask": lambda: (garbage_under_mask(0), garbage_under_mask(99)),
    "nullable, sliced": lambda: (pd.array([2, None], dtype="Int64"), pd.array([1, 2, None, 4], dtype="Int64")[1:3]),
    "a nullable without holes": lambda: (
        pd.array([1, 2], dtype="Int64"),
        pd.array([1, None, 2], dtype="Int64")[[0, 2]],
    ),
    "bytes under a null": lambda: (arrow_text(b"abc"), arrow_text(b"abZZc")),
    "unused bits of validity": lambda: (arrow_text(b"abc"), arrow_text(b"abc", 0b11111101)),
    "text in chunks": lambda: (
        pd.Series(words(9), dtype="str"),
        pd.concat([pd.Series(words(9)[:4], dtype="str"), pd.Series(words(9)[4:], dtype="str")], ignore_index=True),
    ),
    "text, sliced": lambda: (
        pd.Series(words(9)[3:7], dtype="str"),
        pd.Series(words(9), dtype="str")[3:7].reset_index(drop=True),
    ),
    "text, filtered": lambda: (
        pd.Series(["a", "c"], dtype="str"),
        pd.Series(["a", "b", "c"], dtype="str")[[True, False, True]].reset_index(drop=True),
    ),
    "Arrow numbers in chunks": lambda: (chained([1, 2, None, 4]), chained([1], [2, None], [4])),
    "Arrow text in chunks": lambda: (chained(["a", None, "cd"]), chained(["a"], [None, "cd"])),
    "Arrow bools in chunks": lambda: (chained([True, None, False]), chained([True, None], [False])),
    "Arrow bools, sliced": lambda: (
        pa.array([False, True, None]),
        pa.array([True, False, True, None, True]).slice(1, 3),
    ),
    "Arrow lists in chunks": lambda: (chained([[1, 2], None, [], [3]]), chained([[1, 2], None], [[], [3]])),
    "Arrow lists, sliced": lambda: (pa.array([[2], None]), pa.array([[1], [2], None, [3]]).slice(1, 2)),
    "Arrow structs, sliced": lambda: (pa.array([{"a": 2}, None]), pa.array([{"a": 1}, {"a": 2}, None]).slice(1, 2)),
    "Arrow maps, sliced": lambda: (
        pa.array([[("b", 2)], None], pa.map_(pa.string(), pa.int64())),
        pa.array([[("a", 1)], [("b", 2)], None], pa.map_(pa.string(), pa.int64())).slice(1),
    ),
    "Arrow fixed lists, sliced": lambda: (
        pa.array([[3, 4], None], pa.list_(pa.int8(), 2)),
        pa.array([[1, 2], [3, 4], None], pa.list_(pa.int8(), 2)).slice(1),
    ),
    "Arrow dictionaries in chunks": lambda: (
        chained(["a", "b", "a"]).dictionary_encode(),
        pa.chunked_array([pa.array(["a", "b"]).dictionary_encode(), pa.array(["a"]).dictionary_encode()]),
    ),
    "an Arrow table in chunks": lambda: (
        pa.table({"a": [1, 2, 3]}),
        pa.concat_tables([pa.table({"a": [1]}), pa.table({"a": [2, 3]})]),
    ),
    "polars in chunks": lambda: (
        pl.DataFrame({"a": [1, 2], "b": ["x", None]}),
        pl.concat(
            [
                pl.DataFrame({"a": [1], "b": ["x"]}),
                pl.DataFrame({"a": [2], "b": [None]}, schema={"a": pl.Int64, "b": pl.String}),
            ],
            rechunk=False,
        ),
    ),
    "polars, sliced": lambda: (pl.Series("a", ["b", "c"]), pl.Series("a", ["a", "b", "c"])[1:]),
    "a list and its copy": lambda: ([1, [2, {"a": None}]], copy.deepcopy([1, [2, {"a": None}]])),
    "one object twice, or two equal ones": lambda: (twice([1]), [[1], [1]]),
    "strings that are one object, or two": lambda: (["ab" * 3] * 2, ["".join(["ab"] * 3), "".join(["ab"] * 3)]),
    "sets in another order": lambda: (colliding(0, 8, 16, "a"), colliding("a", 16, 8, 0)),
    "sets of tuples in another order": lambda: (colliding((1, 2), (3, 4)), colliding((3, 4), (1, 2))),
    "frozensets of mixed things": lambda: (
        frozenset([1, "a", (1, frozenset([2])), None]),
        frozenset([None, (1, frozenset([2])), "a", 1]),
    ),
    "rings of one period": lambda: (ring(1), ring(3)),
    "rings entered elsewhere": lambda: (ring(4, (1, 2))[1][1], ring(4, (1, 2))),
    "instances": lambda: (Point(1, [2]), copy.deepcopy(Point(1, [2]))),
    "instances with slots": lambda: (Slotted([1], 2), copy.deepcopy(Slotted([1], 2))),
    "attributes in another order": lambda: (
        with_attribute(Listed([1]), a=1, b=2),
        with_attribute(Listed([1]), b=2, a=1),
    ),
    "patterns": lambda: (re.compile("a+"), pickle.loads(pickle.dumps(re.compile("a+")))),
    "generators of random numbers": lambda: (np.random.default_rng(3), np.random.default_rng(3)),
    "sparse matrices, one of them asked": lambda: (sparse(), used(sparse(), lambda m: m.has_sorted_indices)),
    "estimators": lambda: tuple(DecisionTreeClassifier(random_state=0).fit([[0], [1]], [0, 1]) for _ in range(2)),
    "pickled estimators": lambda: pickled(LinearRegression().fit([[0], [1]], [0, 1])),
    "a caching function, called": lambda: (
        functools.lru_cache(abs),
        used(functools.lru_cache(abs), lambda f: f(-1)),
    ),
    "a GroupBy, used": lambda: (grouped(), used(grouped(), lambda g: (g.size(), g.groups))),
    "an index, used": lambda: (
        pd.Index(["a", "b"]),
        used(pd.Index(["a", "b"]), lambda i: (i.is_unique, i.get_loc("b"))),
    ),
}


def locked(array):
    array.flags.writeable = False
    return array


def padded(byte):
    raw = bytearray([byte]) * 32
    made = np.frombuffer(raw, np.dtype([("a", "i1"), ("b", "f8")], align=True))
    made["a"], made["b"] = 1, 2.0
    return made


def long_double(byte):
    made = np.frombuffer(bytearray([byte]) * 32, np.longdouble)
    made[:] = 1
    made.view(np.uint8).reshape(2, 16)[:, 10:] = byte
    return made


def sparse():
    return scipy.sparse.csr_matrix(np.eye(3))


def grouped():
    return pd.DataFrame({"a": [1, 1], "b": [2, 3]}).groupby("a")


@pytest.mark.parametrize("pair", MEET.values(), ids=MEET)
def test_equal_values_meet(pair):
    one, other = pair()
    assert content(one) == content(other)


def test_other_processes_and_hash_seeds_meet():
    program = """
import collections, enum, numpy, pandas
from prefect_cache.cells.fingerprint import fingerprint
class A:
    def __init__(self): self.friends = {self}; self.names = {"a", "b", "c", ("d", 1), None}
class E(enum.Enum):
    X = "x"
frame = pandas.DataFrame({"a": [{"q", "r"}]})
print(fingerprint([A(), {"x", "y", "z"}, frozenset(map(str, range(50))), E.X, E, frame, numpy.arange(3)]))
"""
    runs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        for seed in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout
    assert len(runs[0].stdout.strip()) == 32


# ------------------------------------------------------------------------------------------ what must part

NAN = float("nan")
OTHER_NAN = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000001))[0]
ONE_ULP = np.nextafter(1.0, 2.0)


def frame(**columns):
    return pd.DataFrame(columns or {"a": [1.0, 2.0], "b": ["x", None]})


def made(frame_, change):
    change(frame_)
    return frame_


PART = {
    "what may be written to": lambda: [np.arange(3), locked(np.arange(3))],
    "numbers": lambda: [
        1,
        1.0,
        True,
        "1",
        b"1",
        1j,
        decimal.Decimal(1),
        fractions.Fraction(1),
        0,
        -1,
        2**63,
        -(2**63),
        2**64,
        np.int64(1),
        np.int32(1),
        np.float64(1),
        np.float32(1),
        np.bool_(1),
        np.longdouble(1),
    ],
    "zeros and NaNs": lambda: [
        0.0,
        -0.0,
        0,
        False,
        None,
        NAN,
        OTHER_NAN,
        pd.NA,
        pd.NaT,
        np.datetime64("NaT"),
        np.timedelta64("NaT"),
        decimal.Decimal("NaN"),
        "nan",
        "",
    ],
    "one ulp": lambda: [1.0, float(ONE_ULP), np.array([1.0]), np.array([ONE_ULP])],
    "containers": lambda: [
        [],
        (),
        {},
        set(),
        frozenset(),
        None,
        "",
        b"",
        bytearray(),
        collections.deque(),
        collections.OrderedDict(),
        collections.defaultdict(list),
        collections.defaultdict(int),
        collections.Counter(),
        collections.deque(maxlen=1),
        range(0),
        array.array("i"),
        array.array("l"),
        memoryview(b""),
        Listed(),
    ],
    "lists": lambda: [
        [1, 2],
        (1, 2),
        [2, 1],
        [1, 2, None],
        [[1, 2]],
        [[1], 2],
        ["1", 2],
        [1.0, 2],
        [True, 2],
        {1: 2},
        {2: 1},
        {1, 2},
        frozenset([1, 2]),
        Listed([1, 2]),
        collections.deque([1, 2]),
        np.array([1, 2]),
        array.array("q", [1, 2]),
        bytearray([1, 2]),
        b"\1\2",
        "12",
    ],
    "texts cut elsewhere": lambda: [
        ["ab", "c"],
        ["a", "bc"],
        ["abc"],
        ["abc", ""],
        ("ab", "c"),
        "abc",
        ["a", "b", "c"],
    ],
    "long texts cut elsewhere": lambda: [["ab", "c"] * 100, ["a", "bc"] * 100, ["abc"] * 100, ["a", "b", "c"] * 100],
    "long lists of numbers": lambda: [
        [1] * 100,
        [1.0] * 100,
        [True] * 100,
        [1] * 99 + [1.0],
        [1] * 99 + [2**70],
        [1] * 101,
        ["1"] * 100,
        [None] * 100,
        [b"1"] * 100,
        [0] * 100,
        [0.0] * 100,
        [-0.0] * 100,
    ],
    "dicts": lambda: [
        {1: 2, 3: 4},
        {3: 4, 1: 2},
        {"1": 2, 3: 4},
        {1.0: 2, 3: 4},
        {1: 4, 3: 2},
        {(1,): 2, 3: 4},
        collections.OrderedDict({1: 2, 3: 4}),
        types.MappingProxyType({1: 2, 3: 4}),
        Tagged({1: 2, 3: 4}),
        [(1, 2), (3, 4)],
    ],
    "nested": lambda: [
        [[1], [2]],
        [[1, 2]],
        [[], [1, 2]],
        [[1, [2]]],
        [([1], [2])],
        {"a": [1], "b": [2]},
        {"a": [2], "b": [1]},
    ],
    "surrogates": lambda: ["\ud800", "\ud801", "?", "\ufffd"],
    "cycles": lambda: [
        ring(1),
        ring(2, (1, 2)),
        ring(2, (2, 1)),
        ring(3, (1, 1, 2)),
        [1],
        [1, [1]],
        [1, [1, [1]]],
        (used([1], lambda a: a.append(a)),),
    ],
    "moments": lambda: [
        dt.datetime(2024, 1, 1),  # noqa: DTZ001 - naive on purpose
        dt.datetime(2024, 1, 1, fold=1),  # noqa: DTZ001 - naive on purpose
        dt.date(2024, 1, 1),
        dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
        dt.datetime(2024, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")),
        dt.datetime(2024, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
        dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))),
        dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1), "X")),
        pd.Timestamp("2024-01-01").as_unit("ns"),
        pd.Timestamp("2024-01-01", tz="UTC"),
        pd.Timestamp("2024-01-01").as_unit("s"),
        np.datetime64("2024-01-01"),
        np.datetime64("2024-01-01", "ns"),
        "2024-01-01",
    ],
    "spans": lambda: [
        dt.timedelta(1),
        pd.Timedelta(days=1),
        pd.Timedelta(days=1).as_unit("s"),
        np.timedelta64(1, "D"),
        pd.Period("2024", "D"),
        pd.Period("2024", "M"),
        pd.Interval(0, 1),
        pd.Interval(0, 1, "both"),
        pd.offsets.Day(1),
        pd.offsets.MonthEnd(1),
        pd.offsets.MonthEnd(2),
    ],
    "decimals": lambda: [
        decimal.Decimal(1),
        decimal.Decimal("1.0"),
        decimal.Decimal("1.00"),
        decimal.Decimal("-0"),
        decimal.Decimal(0),
        decimal.Decimal("sNaN"),
        decimal.Decimal("NaN1"),
    ],
    "other scalars": lambda: [
        uuid.UUID(int=1),
        uuid.UUID(int=2),
        pathlib.PurePosixPath("a"),
        pathlib.PureWindowsPath("a"),
        "a",
        re.compile("a"),
        re.compile("a", re.IGNORECASE),
        slice(1),
        slice(1, None, 1),
        range(1),
        range(2),
        range(0, 2, 2),
        ...,
        NotImplemented,
        object(),
    ],
    "enums": lambda: [Colour.RED, Colour.GREEN, Colour, 1, "RED", enum.Enum("Colour", "RED BLUE").RED],
    "instances": lambda: [
        Point(1),
        Point(2),
        Point(1, [2]),
        Slotted(1),
        Slotted(1, 2),
        Slotted(1, [2]),
        with_attribute(Point(1), z=1),
        with_attribute(Listed(), a=1),
        with_attribute(Listed(), a=2),
        with_attribute(Listed(), b=1),
        Point,
        Slotted,
        {"x": 1, "y": []},
    ],
    "arrays": lambda: [
        np.arange(6),
        np.arange(6).reshape(2, 3),
        np.arange(6).reshape(3, 2),
        np.arange(6).reshape(2, 3).T,
        np.arange(6).reshape(6, 1),
        np.arange(6.0),
        np.arange(6, dtype="i4"),
        np.arange(6, dtype=">i8"),
        np.arange(6).astype(object),
        np.arange(6)[::-1],
        np.arange(6).view("m8[ns]"),
        np.arange(6).view("M8[ns]"),
        np.arange(6).view("M8[us]"),
        np.matrix(np.arange(6)),
        np.ma.array(np.arange(6)),
        np.rec.array(np.arange(6).view([("a", "i8")])),
        np.arange(6).view([("a", "i8")]),
        np.arange(6).view([("b", "i8")]),
        np.arange(6).astype(str),
        np.arange(6).astype("S9"),
        list(range(6)),
        pd.Series(range(6)),
        pd.Index(np.arange(6)),
        np.arange(7),
    ],
    "empty arrays": lambda: [
        np.empty((0,)),
        np.empty((0, 2)),
        np.empty((2, 0)),
        np.empty((0,), "i8"),
        np.empty((), "i8") * 0,
        np.empty((0,), object),
        np.empty((2,), "U0")[:0],
    ],
    "array details": lambda: [
        np.array([0.0]),
        np.array([-0.0]),
        np.array([NAN]),
        np.array([OTHER_NAN]),
        np.array(0.0),
        np.float64(0.0),
        np.array([0.0, 0.0]),
    ],
    "objects in arrays": lambda: (
        [
            np.array(v, object)
            for v in (
                [None, 1],
                [NAN, 1],
                [pd.NA, 1],
                [pd.NaT, 1],
                ["None", 1],
                [None, True],
                [None, 1.0],
                [None, "1"],
                [None, np.int64(1)],
            )
        ]
        + [objects([[1], 2]), objects([(1,), 2]), objects([[1.0], 2])]
    ),
    "masked arrays": lambda: (
        [np.ma.array([1, 2], mask=m) for m in ([0, 0], [0, 1], [1, 0])]
        + [np.ma.array([1, 2], mask=[0, 1], fill_value=7)]
    ),
    "dtypes": lambda: [
        np.dtype("f8"),
        np.dtype(">f8"),
        np.dtype("f4"),
        np.dtype("U1"),
        np.dtype("U2"),
        np.dtype("M8[s]"),
        np.dtype("M8[ns]"),
        np.dtype("i4,i4"),
        np.dtype([("a", "i4"), ("b", "i4")]),
        np.dtype("(2,)i4"),
        pd.Int64Dtype(),
        pd.StringDtype("python"),
        pd.StringDtype("pyarrow"),
        *([pd.StringDtype("python", na_value=np.nan)] if PANDAS_3 else []),
        pd.CategoricalDtype(["a"]),
        pd.CategoricalDtype(["a"], ordered=True),
        pd.CategoricalDtype(["b"]),
        pd.CategoricalDtype(),
        pd.DatetimeTZDtype("ns", "UTC"),
        pd.DatetimeTZDtype("s", "UTC"),
        pd.DatetimeTZDtype("ns", "Europe/Berlin"),
        pd.SparseDtype("i8"),
        pd.SparseDtype("i8", 1),
        pd.ArrowDtype(pa.int64()),
        pd.ArrowDtype(pa.int32()),
        pd.PeriodDtype("D"),
        pd.IntervalDtype("i8"),
        np.float64,
        float,
    ],
    "random numbers": lambda: [
        np.random.default_rng(1),
        np.random.default_rng(2),
        used(np.random.default_rng(1), lambda g: g.random()),
        used(np.random.default_rng(1), lambda g: g.spawn(1)),
        np.random.RandomState(1),
        np.random.PCG64(1),
        np.random.Generator(np.random.MT19937(1)),
        np.random.SeedSequence(1),
        np.random.SeedSequence(2),
        random.Random(1),
        random.Random(2),
        random.SystemRandom(),
    ],
    "frames": lambda: [
        frame(),
        frame().rename(columns={"a": "c"}),
        frame()[["b", "a"]],
        frame().set_axis(pd.Index([0, 1])),
        frame().set_axis(pd.Index([1, 0])),
        frame().rename_axis("i"),
        frame().rename_axis("i", axis=1),
        frame().astype({"a": "float32"}),
        frame().astype({"a": "Float64"}),
        *([frame().astype({"b": object})] if PANDAS_3 else []),
        frame().astype({"b": "string"}),
        frame().astype({"b": "category"}),
        frame().replace({"a": {1.0: ONE_ULP}}),
        frame().iloc[::-1],
        frame().iloc[:1],
        frame().T,
        made(frame(), lambda f: f.attrs.update(a=1)),
        made(frame(), lambda f: f.attrs.update(a=[1])),
        frame().set_flags(allows_duplicate_labels=False),
        frame().assign(c=1),
        frame().to_dict(),
        pa.table({"a": [1.0, 2.0], "b": ["x", None]}),
        pl.DataFrame({"a": [1.0, 2.0], "b": ["x", None]}),
        Sub(frame()),
    ],
    "empty frames": lambda: [
        pd.DataFrame(),
        pd.DataFrame(index=[0]),
        pd.DataFrame(columns=["a"]),
        pd.DataFrame(columns=["b"]),
        pd.DataFrame({"a": []}),
        pd.DataFrame({"a": [1]})[:0],
        pd.DataFrame(columns=[1]),
    ],
    "column names": lambda: [
        pd.DataFrame([[1]], columns=c)
        for c in (
            ["1"],
            [1],
            [1.0],
            [True],
            [("1",)],
            pd.Index([1], name="n"),
            pd.CategoricalIndex([1]),
            pd.RangeIndex(1, 2),
        )
    ],
    "texts of a column": lambda: (
        [
            pd.Series(["a", None], dtype=t)
            for t in (
                *(["str"] if PANDAS_3 else []),
                object,
                "string[pyarrow]",
                "string[python]",
                "category",
                pd.ArrowDtype(pa.string()),
                pd.ArrowDtype(pa.large_string()),
            )
        ]
        + [
            pd.Series(["a", NAN], dtype=object),
            pd.Series(["a", pd.NA], dtype=object),
            pd.Series(["a", "b"], dtype="str"),
            pd.Series(["a", ""], dtype="str"),
        ]
    ),
    "texts that add up": lambda: [
        pd.Series(v, dtype="str")
        for v in (["ab", "c"], ["a", "bc"], ["abc", ""], ["", "abc"], ["abc", None], [None, "abc"])
    ],
    "integers of a column": lambda: (
        [
            pd.Series([1, 2], dtype=t)
            for t in (
                "int64",
                "Int64",
                "int32",
                "float64",
                "Float64",
                object,
                "category",
                pd.ArrowDtype(pa.int64()),
                "datetime64[ns]",
                "timedelta64[ns]",
                "Sparse[int64]",
            )
        ]
        + [
            pd.Series([1, None], dtype="Int64"),
            pd.Series([1, 2], name="a"),
            pd.Series([1, 2], name=0),
            pd.Series([1, 2], index=[0, 1]),
        ]
    ),
    "categories": lambda: (
        [
            pd.Categorical(["a", "b"], categories=c, ordered=o)
            for c in (["a", "b"], ["b", "a"], ["a", "b", "c"])
            for o in (False, True)
        ]
        + [pd.Categorical(["a", None], categories=["a", "b"]), pd.Categorical(["b", "a"])]
    ),
    "zones and units": lambda: [
        pd.Series(pd.date_range("2024", periods=2, tz=z, unit=u))
        for z in (
            None,
            zoneinfo.ZoneInfo("UTC"),
            "Europe/Berlin",
            dt.UTC,
            dt.timezone(dt.timedelta(hours=1)),
        )
        for u in ("s", "ns")
    ],
    "indexes": lambda: [
        pd.RangeIndex(3),
        pd.Index([0, 1, 2]),
        pd.Index([0, 1, 2], name="a"),
        pd.Index([0, 1, 2], dtype="int32"),
        pd.Index([0.0, 1, 2]),
        pd.Index(["0", "1", "2"]),
        *([pd.Index(["0", "1", "2"], dtype=object)] if PANDAS_3 else []),
        pd.MultiIndex.from_arrays([[0, 1, 2]]),
        pd.MultiIndex.from_product([[0, 1, 2], [1]]),
        pd.MultiIndex.from_product([[0, 1, 2, 3], [1]])[:3],
        pd.CategoricalIndex([0, 1, 2]),
        pd.IntervalIndex.from_breaks([0, 1, 2, 3]),
        pd.IntervalIndex.from_breaks([0, 1, 2, 3], closed="left"),
        pd.date_range("2024", periods=3),
        pd.date_range("2024", periods=3)._with_freq(None),
        pd.date_range("2024", periods=3, freq="2D"),
        pd.period_range("2024", periods=3, freq="D"),
        pd.timedelta_range("1D", periods=3),
        pd.Index([0, 1, 2], dtype="Int64"),
        pd.RangeIndex(3, name="a"),
        pd.RangeIndex(0, 6, 2),
    ],
    "cells that are objects": lambda: [
        pd.Series(v, dtype=object)
        for v in (
            [[1]],
            [(1,)],
            [{1}],
            [{1: 1}],
            [[1.0]],
            [["1"]],
            [[[1]]],
            [np.array([1])],
            [1],
            [True],
            [b"1"],
            [Point(1)],
            [Point(2)],
            [dt.date(2024, 1, 1)],
        )
    ],
    "sparse columns": lambda: (
        [pd.arrays.SparseArray(v, fill_value=f) for v in ([0, 0, 1], [0, 1, 0], [1, 0, 0]) for f in (0, 1)]
        + [pd.arrays.SparseArray([0, 0, 1], kind="block")]
    ),
    "Arrow values": lambda: [
        pa.array([1, None]),
        pa.array([1, 0]),
        pa.array([1, None], pa.int32()),
        pa.array([1.0, None]),
        pa.array(["1", None]),
        pa.array(["1", None], pa.large_string()),
        pa.array(["1", ""]),
        pa.array([b"1", None]),
        pa.array([[1], None]),
        pa.array([[1], []]),
        pa.array([[1, None], None]),
        pa.array([{"a": 1}, None]),
        pa.array([{"a": 1}, {"a": None}]),
        pa.array([{"b": 1}, None]),
        pa.array(["1", None]).dictionary_encode(),
        pa.array([True, None]),
        pa.nulls(2),
        pa.chunked_array([[1, None]]),
        pa.array([1, None], pa.timestamp("s")),
        pa.array([1, None], pa.timestamp("s", "UTC")),
        pa.array([decimal.Decimal(1), None]),
        pa.scalar(1),
        pa.scalar(1, pa.int8()),
        pa.scalar(None, pa.int64()),
        pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
        pa.array([[1, 2], None], pa.list_(pa.int64(), 2)),
        pa.array(["1", None], pa.string_view()),
    ],
    "Arrow tables": lambda: [
        pa.table({"a": [1]}),
        pa.table({"b": [1]}),
        pa.table({"a": [1]}).replace_schema_metadata({"k": "v"}),
        pa.table({"a": [1]}, pa.schema([pa.field("a", pa.int64(), nullable=False)])),
        pa.table({"a": [1]}, pa.schema([pa.field("a", pa.int64(), metadata={"k": "v"})])),
        pa.record_batch({"a": [1]}),
        pa.table({"a": [1], "b": [1]}),
        pa.table({}),
        pa.schema([("a", pa.int64())]),
        pa.field("a", pa.int64()),
        pa.int64(),
    ],
    "polars values": lambda: [
        pl.DataFrame({"a": [1]}),
        pl.DataFrame({"b": [1]}),
        pl.DataFrame({"a": [1.0]}),
        pl.DataFrame({"a": ["1"]}),
        pl.DataFrame({"a": [None]}),
        pl.DataFrame({"a": [[1]]}),
        pl.DataFrame({"a": [{"x": 1}]}),
        pl.Series("a", [1]),
        pl.Series("a", [1], pl.Int32),
        pl.Series("a", ["x"], pl.Categorical),
        pl.Series("a", ["x"], pl.Enum(["x"])),
        pl.Series("a", ["x"], pl.Enum(["x", "y"])),
        pl.Series("a", [object()], pl.Object),
        pl.DataFrame({"a": [1, 1]}),
        pl.Series("a", [1], pl.Datetime("us")),
        pl.Series("a", [1], pl.Datetime("ns")),
        pl.Series("a", [1], pl.Datetime("us", "UTC")),
    ],
    "sparse matrices": lambda: [
        scipy.sparse.csr_matrix(np.eye(2)),
        scipy.sparse.csc_matrix(np.eye(2)),
        scipy.sparse.csr_array(np.eye(2)),
        scipy.sparse.coo_matrix(np.eye(2)),
        scipy.sparse.csr_matrix(np.eye(2) * 2),
        scipy.sparse.csr_matrix(np.eye(3)[:2]),
        scipy.sparse.lil_matrix(np.eye(2)),
        scipy.sparse.dok_matrix(np.eye(2)),
        scipy.sparse.dia_matrix(np.eye(2)),
    ],
    "estimators": lambda: [
        LinearRegression(),
        LinearRegression(fit_intercept=False),
        LinearRegression().fit([[0], [1]], [0, 1]),
        LinearRegression().fit([[0], [1]], [0, 2]),
        DecisionTreeClassifier(),
        DecisionTreeClassifier(max_depth=2),
        DecisionTreeClassifier(random_state=0).fit([[0], [1]], [0, 1]),
        DecisionTreeClassifier(random_state=0).fit([[0], [1]], [1, 0]),
    ],
    "callables": lambda: [
        len,
        abs,
        np.sum,
        np.add,
        np.mean,
        str.upper,
        str.lower,
        "a".upper,
        "b".upper,
        [1].append,
        [2].append,
        functools.partial(print, 1),
        functools.partial(print, 2),
        functools.partial(abs, 1),
        functools.lru_cache(abs),
        functools.lru_cache(maxsize=2)(abs),
        np.random.rand,
        np.random.randn,
        random.random,
        random.randint,
        list[int],
        list[str],
        int | str,
        int | bytes,
        dict,
        int,
    ],
    "buffers in memory": lambda: [
        io.BytesIO(b"ab"),
        io.BytesIO(b"ac"),
        used(io.BytesIO(b"ab"), lambda b: b.read(1)),
        io.StringIO("ab"),
        io.StringIO("ac"),
    ],
}


class Sub(pd.DataFrame):
    @property
    def _constructor(self):
        return Sub


def objects(items):
    made_ = np.empty(len(items), object)
    made_[:] = items
    return made_


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("group", PART.values(), ids=PART)
def test_different_values_part(group):
    values = group()
    digests = [content(value) for value in values]
    seen: dict[str, object] = {}
    for value, digest in zip(values, digests, strict=True):
        assert digest not in seen, f"{value!r} meets {seen[digest]!r}"
        seen[digest] = value


# ------------------------------------------------------------------------------------------ what has no digest


async def nothing():
    """Do nothing."""


REFUSED = {
    "lock": (threading.Lock, lambda v: v.acquire(blocking=False)),
    "reentrant lock": (threading.RLock, None),
    "event": (threading.Event, None),
    "thread": (threading.Thread, None),
    "local": (threading.local, None),
    "generator": (lambda: (i for i in [1, 2]), lambda v: next(v) == 1),
    "iterator": (lambda: iter([1, 2]), lambda v: next(v) == 1),
    "zip": (lambda: zip([1], [2], strict=True), lambda v: next(v) == (1, 2)),
    "map": (lambda: map(str, [1]), lambda v: next(v) == "1"),
    "reversed": (lambda: reversed([1]), lambda v: next(v) == 1),
    "enumerate": (lambda: enumerate([1]), lambda v: next(v) == (0, 1)),
    "file": (lambda: pathlib.Path(__file__).open(), lambda v: (v.tell(), v.close()) == (0, None)),  # noqa: SIM115 - closed by the test
    "binary file": (lambda: pathlib.Path(__file__).open("rb"), lambda v: (v.tell(), v.close()) == (0, None)),  # noqa: SIM115 - closed by the test
    "socket": (socket.socket, lambda v: v.close() is None),
    "connection": (lambda: sqlite3.connect(":memory:"), lambda v: v.close() is None),
    "coroutine": (lambda: nothing(), lambda v: v.close() is None),  # noqa: PLW0108
    "reference": (lambda: weakref.ref(Colour), lambda v: v() is Colour),
    "weak dict": (weakref.WeakValueDictionary, None),
    "plan": (lambda: pl.LazyFrame({"a": [1]}), lambda v: v.collect().height == 1),
    "ufunc": (lambda: np.frompyfunc(abs, 1, 1), None),
    "event loop": (asyncio.new_event_loop, lambda v: v.close() is None),
    "frame": (sys._getframe, None),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_untouched(name):
    make, untouched = REFUSED[name]
    value = make()
    with pytest.raises(Unfingerprintable) as caught:
        Fingerprinter({"cfg": {"held": [value]}}).add("cfg")
    assert caught.value.name == "cfg"
    assert type(value).__name__ in caught.value.message
    kind = caught.value.message.split()[3]
    assert caught.value.message.startswith(f"cfg['held'][0] is {'an' if kind[0] in 'aeio' else 'a'} {kind}")
    assert caught.value.remedy
    assert untouched is None or untouched(value)


def test_a_figure_is_refused():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    with pytest.raises(Unfingerprintable, match=r"fig is a matplotlib\.figure\.Figure, a drawing"):
        Fingerprinter({"fig": figure}).add("fig")


def test_the_namespace_itself_is_refused():
    namespace: dict[str, object] = {}
    namespace["me"] = [namespace]
    with pytest.raises(Unfingerprintable, match="the notebook's namespace itself"):
        Fingerprinter(namespace).add("me")


def test_a_failed_walk_leaves_the_fingerprinter_usable():
    found = Fingerprinter({"bad": [[1], threading.Lock()], "good": [[1]]})
    with pytest.raises(Unfingerprintable):
        found.add("bad")
    assert found.add("good").digest == content([[1]])
    assert [node.path for node in found.nodes if node.path[0][1] == "good"] == [
        (("name", "good"),),
        (("name", "good"), ("index", 0)),
    ]


# ------------------------------------------------------------------------------------------ users' own types


class Handle:
    def __init__(self, number):
        self.number = number
        self.lock = threading.Lock()


def test_users_say_what_stands_for_a_type():
    with pytest.raises(Unfingerprintable):
        fingerprint(Handle(1))
    register(Handle)(lambda handle: handle.number)
    assert fingerprint([Handle(1)]) == fingerprint([Handle(1)])
    assert fingerprint(Handle(1)) != fingerprint(Handle(2))
    assert fingerprint(Handle(1)) != fingerprint(1)


# ------------------------------------------------------------------------------------------ nodes, sharing, memory


def big_namespace():
    inner = [1, [2]]
    data = np.arange(10.0)

    def counter():
        nonlocal_count = [0]

        def count():
            nonlocal_count.append(1)
            return nonlocal_count

        return count

    return {
        "cfg": {"a": inner, "b": (inner, {3: bytearray(b"x")}), ("k", 1): [4]},
        "point": Point(1, [inner]),
        "slotted": Slotted([1], {2: [3]}),
        "members": {(1, 2), frozenset([3])},
        "frame": pd.DataFrame({"a": [[1], {"x": [2]}], "b": [1, 2]}),
        "series": pd.Series([[1], {2}], dtype=object),
        "objects": objects([[1], {2: 3}]),
        "data": data,
        "window": data[2:5],
        "other": np.arange(3),
        "count": counter(),
        "rng": np.random.default_rng(1),
        "queue": collections.deque([[1]]),
        "partial": functools.partial(print, [1], end=[2]),
        "model": LinearRegression().fit([[0], [1]], [0, 1]),
        "table": pl.DataFrame({"a": [1]}),
        "sparse": sparse(),
        "grouped": grouped(),
    }


def test_every_node_is_found_again_by_its_path():
    namespace = big_namespace()
    found = Fingerprinter(namespace)
    for name in namespace:
        found.add(name)
    nodes = found.nodes
    assert len(nodes) > 40
    assert len({id(node.value) for node in nodes}) == len(nodes)
    for node in nodes:
        assert resolve(node.path, namespace) is node.value, node.path
        assert Fingerprinter({}).digest_of(node.value) == node.digest, node.path


def test_a_change_in_place_changes_the_nodes_above_it_and_no_others():
    namespace = big_namespace()
    found = Fingerprinter(namespace)
    for name in namespace:
        found.add(name)
    before = found.nodes
    namespace["cfg"]["a"][1].append(5)
    now = Fingerprinter({})
    changed = {walk.spell(node.path) for node in before if now.digest_of(node.value) != node.digest}
    assert changed == {"cfg", "cfg[key 0]", "cfg[key 0][1]", "cfg[key 1][1]", "point", "point.y"} - {"cfg[key 1][1]"}


def test_paths_that_lead_nowhere_are_lookup_errors():
    for path in (
        (),
        (("name", "x"),),
        (("name", "a"), ("index", 9)),
        (("name", "a"), ("attr", "z")),
        (("name", "a"), ("odd", 1)),
    ):
        with pytest.raises(LookupError):
            resolve(path, {"a": [1]})


def test_shared_objects_are_reported_by_both_paths():
    inner = [1]
    found = Fingerprinter({"a": {"x": inner}, "b": (inner,), "c": [1]})
    for name in "abc":
        found.add(name)
    assert found.shared == [((("name", "a"), ("key", 0)), (("name", "b"), ("index", 0)))]


def test_the_order_of_a_set_does_not_show_in_what_is_shared():
    def shared(order):
        inner = [1]
        held = {Key(name, inner) for name in order}
        found = Fingerprinter({"held": held})
        found.add("held")
        return found.shared

    assert shared("abcdefgh") == shared("hgfedcba")
    assert shared("ab")


class Key:
    def __init__(self, name, held):
        self.name, self.held = name, held


def test_labels_functions_and_classes_are_no_shared_objects():
    frame_ = pd.DataFrame({"a": [1]}, index=["x"])
    found = Fingerprinter(
        {"a": frame_, "b": frame_.assign(c=1), "c": [Point, content], "d": [Point, content], "e": [Point(1), Point(2)]}
    )
    for name in "abcde":
        found.add(name)
    assert found.shared == []


def test_overlapping_arrays_are_reported():
    namespace = big_namespace()
    found = Fingerprinter(namespace)
    for name in ("data", "window", "other"):
        found.add(name)
    assert found.overlaps == [((("name", "data"),), (("name", "window"),))]


def test_interleaved_arrays_do_not_overlap():
    data = np.arange(10.0)
    found = Fingerprinter({"a": data[::2], "b": data[1::2]})
    found.add("a")
    found.add("b")
    assert found.overlaps == []


def test_texts_that_may_name_files_are_noted():
    found = Fingerprinter(
        {"a": ["data.csv", {"x": "b.parquet"}], "b": pathlib.Path("c/d.txt"), "c": "two\nlines", "d": "e.csv"}
    )
    for name in "abcd":
        found.add(name)
    assert found.strings == {"data.csv", "b.parquet", "x", "c/d.txt", "e.csv"}


def test_deep_nesting_is_no_recursion():
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert content(deep) != content([])


def test_many_objects_that_know_each_other_are_quick():
    friends = [Key(str(i), []) for i in range(60)]
    for friend in friends:
        friend.held = friends
    assert content(friends[0]) != content(friends[1])


# ------------------------------------------------------------------------------------------ details


def test_the_detail_of_a_frame_names_its_columns():
    one = Fingerprinter({"f": frame()}).add("f").detail
    other = Fingerprinter({"f": frame().replace({"a": {1.0: 5.0}})}).add("f").detail
    assert one["rows"] == 2
    assert one["columns"]["b"] == other["columns"]["b"]
    assert one["columns"]["a"] != other["columns"]["a"]
    assert one["index"] == other["index"]


def test_details_stay_small():
    wide = pd.DataFrame(np.zeros((1, 5000)))
    for value in (
        wide,
        {str(i): i for i in range(5000)},
        "x" * 100_000,
        list(range(100_000)),
        with_attribute(Point(1), **{f"a{i}": i for i in range(5000)}),
    ):
        assert len(repr(Fingerprinter({"v": value}).add("v").detail)) < 16_384


def test_the_detail_of_a_dict_follows_its_values():
    one = Fingerprinter({"d": {"a": [1], "b": 2, "c": [3]}}).add("d").detail["keys"]
    other = Fingerprinter({"d": {"a": [1], "b": 2, "c": [4]}}).add("d").detail["keys"]
    assert [name for name in one if one[name] != other[name]] == ["'c'"]


# ------------------------------------------------------------------------------------------ properties

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.complex_numbers(),
    st.datetimes(),
    st.decimals(),
    st.fractions(),
    st.uuids(),
)
hashables = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.tuples(st.integers(), st.text(max_size=3))
)
nested = st.deferred(
    lambda: st.one_of(
        leaves,
        st.lists(nested, max_size=4),
        st.lists(nested, max_size=4).map(tuple),
        st.dictionaries(hashables, nested, max_size=4),
        st.builds(Point, nested, st.lists(nested, max_size=3)),
        st.sets(hashables, max_size=4),
    )
)


@settings(max_examples=150, deadline=None)
@given(nested)
def test_copies_of_nested_objects_meet(value):
    assert content(value) == content(copy.deepcopy(value)) == content(pickle.loads(pickle.dumps(value)))


def exactly(value):
    """Return text that tells values apart by type and bits, for comparison with fingerprints."""
    if isinstance(value, float):
        return f"float {struct.pack('<d', value).hex()}"
    if isinstance(value, complex):
        return f"complex {exactly(value.real)} {exactly(value.imag)}"
    if isinstance(value, Point):
        return f"Point({exactly(value.x)}, {exactly(value.y)})"
    if isinstance(value, dict):
        return f"dict({', '.join(f'{exactly(k)}: {exactly(v)}' for k, v in value.items())})"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({', '.join(map(exactly, value))})"
    if isinstance(value, set):
        return f"set({', '.join(sorted(map(exactly, value)))})"
    return f"{type(value).__name__} {value!r}"


@settings(max_examples=300, deadline=None)
@given(nested, nested)
def test_nested_objects_meet_exactly_where_they_are_equal(one, other):
    assert (content(one) == content(other)) == (exactly(one) == exactly(other))


columns_ = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=4, max_size=4).map(lambda v: np.array(v, "int64")),
    st.lists(st.floats(width=64), min_size=4, max_size=4).map(np.array),
    st.lists(
        st.one_of(st.none(), st.text(max_size=4, alphabet=st.characters(exclude_categories=["Cs"]))),
        min_size=4,
        max_size=4,
    ).map(lambda v: pd.array(v, dtype="str")),
    st.lists(st.one_of(st.none(), st.integers(0, 9)), min_size=4, max_size=4).map(lambda v: pd.array(v, dtype="Int64")),
    st.lists(st.sampled_from("abc"), min_size=4, max_size=4).map(lambda v: pd.Categorical(v, list("abc"))),
    st.lists(
        st.one_of(st.none(), st.integers(), st.text(max_size=3), st.lists(st.integers(), max_size=2)),
        min_size=4,
        max_size=4,
    ).map(objects),
    st.lists(st.datetimes(dt.datetime(1990, 1, 1), dt.datetime(2030, 1, 1)), min_size=4, max_size=4).map(  # noqa: DTZ001 - naive on purpose
        pd.to_datetime
    ),
)
frames = st.lists(columns_, min_size=1, max_size=5).map(
    lambda found: pd.DataFrame({f"c{i}": c for i, c in enumerate(found)})
)


@settings(max_examples=100, deadline=None)
@given(frames)
def test_frames_built_otherwise_meet(one):
    rebuilt = pd.DataFrame(index=one.index)
    for name in one.columns:
        rebuilt[name] = one[name].copy()
    joined = pd.concat([one.iloc[:1], one.iloc[1:]])
    doubled = pd.concat([one, one]).iloc[:4]
    assert content(one) == content(rebuilt) == content(pickle.loads(pickle.dumps(one))) == content(one.copy(deep=True))
    # concatenation makes the labels of a range into numbers
    assert content(joined.reset_index(drop=True)) == content(one) == content(doubled.reset_index(drop=True))


@settings(max_examples=100, deadline=None)
@given(frames, st.data())
def test_any_single_change_parts_frames(one, data):
    changes = {
        "a name": lambda f: f.rename(columns={f.columns[-1]: "other"}),
        "a label": lambda f: f.set_axis([9, 1, 2, 3]),
        "a name of labels": lambda f: f.rename_axis("i"),
        "a row less": lambda f: f.iloc[:3],
        "a column more": lambda f: f.assign(more=1),
        "a dtype": lambda f: (
            f.astype({f.columns[0]: object}) if f.dtypes.iloc[0] != np.dtype(object) else f.assign(c0=1)
        ),
        "an attribute": lambda f: made(f.copy(), lambda g: g.attrs.update(x=1)),
        "a cell": lambda f: changed_cell(f, data.draw(st.integers(0, 3))),
    }
    change = changes[data.draw(st.sampled_from(sorted(changes)))]
    assert content(change(one)) != content(one)


def changed_cell(frame_, row):
    column = frame_.columns[0]
    values = frame_[column].astype(object).to_numpy(copy=True)
    old = values[row]
    if isinstance(frame_[column].dtype, pd.CategoricalDtype):
        values[row] = "b" if old != "b" else "a"
    elif isinstance(old, pd.Timestamp):
        values[row] = old + pd.Timedelta(1, "s")
    elif isinstance(old, float) and frame_[column].dtype == "float64":
        values[row] = 1.5 if old != 1.5 else 2.5
    elif frame_[column].dtype == "int64":
        values[row] = old - 1 if old > 0 else old + 1
    elif frame_[column].dtype == "Int64":
        values[row] = 10
    else:
        values[row] = "changed"
    return frame_.assign(**{column: pd.Series(values, dtype=frame_[column].dtype)})


# ------------------------------------------------------------------------------------------ promises to disks

PINNED = {
    "None": (None, "1222ed04f499001f8c58fd36a39398f3"),
    "int": (1, "b93945c4c9f33b1dbb9220e67e2aa751"),
    "float": (1.0, "56aab4d799581acbf582211ff77eceb9"),
    "text": ("é", "a6dc99745e965c66277e5a51475ab521"),
    "list": ([1, "a", None, [2.5]], "e2952460e9f8991b92d43220ca9b05c9"),
    "numbers": (list(range(1000)), "84837ae1baea22b7cb90b044540694bc"),
    "texts": (["a", "bc"] * 500, "2ade7a2c34e54447e98b39096b9f19aa"),
    "dict": ({"a": 1, "b": [True]}, "139d819d5a9d4714d29e18acc8c19490"),
    "set": ({"a", 1, (2, 3)}, "583a8941afe048bf473ba7e34de2a22e"),
    "date": (dt.date(2024, 1, 2), "652fcab062a98529ed6ea972412a2de8"),
    "array": (np.arange(6.0).reshape(2, 3), "10bc9863a4515a4a5f5b73fcab74c353"),
    "object array": (np.array([1, "a", None], object), "15a83c76ab3ad5238566a330adcc7782"),
    "frame": (
        pd.DataFrame({3: [1.0, 2.0], 7: pd.array([1, None], dtype="Int64"), 9: pd.Categorical([7, 8])}),
        "7e06211653423a2272ea704a32e581cf",
    ),
    "text column": (pd.Series(["a", None, "bc"], dtype="string[pyarrow]"), "915af56acbda79168565c9ce3bbe65c0"),
    "dates": (pd.date_range("2024", periods=3, tz="UTC", unit="ns"), "6a42a5243ceb5c93098ea28302124e8c"),
    "Arrow table": (pa.table({"a": [1, None], "b": ["x", "yz"]}), "526a2e5859719cd7bec73714dcd8ac81"),
}


@pytest.mark.parametrize("name", PINNED)
def test_digests_stay_what_they_are(name):
    """Entries on users' disks are found by these; who changes one raises FORMAT, and users compute all again once."""
    value, digest = PINNED[name]
    assert content(value) == digest
