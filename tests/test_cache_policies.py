from __future__ import annotations

import importlib
import sys
import textwrap
import threading
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from prefect import task
from prefect.cache_policies import INPUTS, NO_CACHE, TASK_SOURCE

from offline import offline
from prefect_cache import CodeAndGlobals, DataFrameInputs, cached
from prefect_cache.errors import Unfingerprintable

if TYPE_CHECKING:
    from collections.abc import Iterator


class Context:
    """What a policy reads of a task run's context."""

    def __init__(self, made):
        self.task = made


def key(policy, function, **inputs):
    made = function if hasattr(function, "fn") else task(function)
    return policy.compute_key(Context(made), inputs, {})


def use(df=None, other=None):
    return df


class TestDataFrameInputs:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (pd.DataFrame({"a": [1], "b": [2]}), pd.DataFrame({"b": [2], "a": [1]})),
            (pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [1.0]})),
            (pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [1]}, index=[1])),
            (pd.DataFrame({"a": [1]}), pd.DataFrame({"b": [1]})),
            (pd.DataFrame({"a": [1]}).rename_axis("x"), pd.DataFrame({"a": [1]})),
            ([1], (1,)),
            ({1: 2}, {"1": 2}),
            (1, True),
            (np.zeros(4), np.zeros((2, 2))),
        ],
    )
    def test_what_differs_has_another_key(self, one, other):
        assert key(DataFrameInputs(), use, df=one) != key(DataFrameInputs(), use, df=other)

    def test_equal_frames_that_were_built_another_way_meet(self):
        frame = pd.DataFrame({"a": [1, 2], "b": [3, 4], "c": ["x", "y"]})
        split = pd.DataFrame({"a": [1, 2]}).assign(b=[3, 4], c=["x", "y"])
        assert key(DataFrameInputs(), use, df=frame) == key(DataFrameInputs(), use, df=split)

    def test_column_names_of_mixed_types_are_no_obstacle(self):
        assert key(DataFrameInputs(), use, df=pd.DataFrame({1: [1], "a": [2], (2, 3): [3]}))

    def test_the_same_inputs_of_another_task_have_another_key(self):
        def other(df):
            return df

        assert key(DataFrameInputs(), use, df=1) != key(DataFrameInputs(), other, df=1)

    def test_an_argument_can_be_left_out(self):
        policy = DataFrameInputs() - "other"
        assert key(policy, use, df=1, other=2) == key(policy, use, df=1, other=3) == key(policy, use, df=1)
        assert key(policy, use, df=1) != key(policy, use, df=2)

    def test_what_cannot_be_fingerprinted_is_named_with_the_way_out(self):
        with pytest.raises(Unfingerprintable, match=r"argument 'other': .*lock.*DataFrameInputs\(\) - \"other\""):
            key(DataFrameInputs(), use, df=1, other=threading.Lock())


class TestCodeAndGlobals:
    def test_closures_with_other_captured_values_differ(self):
        def adder(n):
            def add(x):
                return x + n

            return add

        assert key(CodeAndGlobals(), adder(1)) == key(CodeAndGlobals(), adder(1)) != key(CodeAndGlobals(), adder(2))

    @pytest.fixture
    def module(self, tmp_path, monkeypatch) -> Iterator[object]:
        """Write a module with a task, import it, and return its task."""
        monkeypatch.syspath_prepend(tmp_path)

        def module(source: str) -> object:
            (tmp_path / "pipeline.py").write_text(textwrap.dedent(source))
            sys.modules.pop("pipeline", None)
            importlib.invalidate_caches()
            sys.dont_write_bytecode = True
            return importlib.import_module("pipeline").main

        yield module
        sys.modules.pop("pipeline", None)

    SOURCE = """
        from prefect import task

        LIMIT = 10

        def helper(x):
            return x < LIMIT

        @task
        def inner(x):
            return helper(x)

        @task
        def main(x):
            return inner(x)
    """

    @pytest.mark.parametrize(
        ("old", "new"),
        [("return helper(x)", "return not helper(x)"), ("x < LIMIT", "x <= LIMIT"), ("LIMIT = 10", "LIMIT = 11")],
    )
    def test_an_edit_anywhere_that_the_task_reaches_changes_the_key(self, module, old, new):
        before = key(CodeAndGlobals(), module(self.SOURCE))
        assert key(CodeAndGlobals(), module(self.SOURCE.replace(old, new))) != before

    def test_comments_and_formatting_do_not_matter(self, module):
        before = key(CodeAndGlobals(), module(self.SOURCE))
        edited = self.SOURCE.replace("return x < LIMIT", "# is it small?\n            return (x  <  LIMIT)")
        assert key(CodeAndGlobals(), module(edited)) == before


class TestSums:
    @pytest.mark.parametrize(
        "policy",
        [
            DataFrameInputs() + TASK_SOURCE,
            DataFrameInputs() + CodeAndGlobals(),
            CodeAndGlobals() + DataFrameInputs(),
            DataFrameInputs() + (TASK_SOURCE + CodeAndGlobals()),
            DataFrameInputs() + NO_CACHE,
        ],
    )
    def test_an_argument_can_be_left_out_of_a_sum(self, policy):
        assert key(policy - "other", use, df=1, other=2) == key(policy - "other", use, df=1, other=3)
        assert key(policy, use, df=1, other=2) != key(policy, use, df=1, other=3)

    def test_with_prefects_inputs_both_leave_it_out(self):
        policy = (DataFrameInputs() + INPUTS) - "other"
        assert key(policy, use, df=1, other=2) == key(policy, use, df=1, other=3)

    def test_the_key_storage_is_kept(self, tmp_path):
        policy = DataFrameInputs().configure(key_storage=tmp_path) + CodeAndGlobals()
        assert (policy - "x").key_storage == tmp_path

    def test_only_names_can_be_left_out(self):
        with pytest.raises(TypeError):
            DataFrameInputs() - 1


class TestCached:
    def test_a_task_runs_once_for_each_content_of_its_inputs(self, tmp_path):
        runs = []

        @cached(exclude=["log"])
        def double(df, log):
            log.append(1)
            return df * 2

        with offline(tmp_path):
            first = double(pd.DataFrame({"a": [1, 2]}), runs)
            again = double(pd.DataFrame({"a": [1, 2, 3]}).iloc[:2], runs)
            other = double(pd.DataFrame({"a": [1, 3]}), runs)
        assert len(runs) == 2
        pd.testing.assert_frame_equal(first, again)
        assert other["a"].tolist() == [2, 6]

    def test_an_input_without_a_digest_is_run_each_time_and_says_why(self, tmp_path, caplog):
        runs = []

        @cached
        def hold(lock):
            runs.append(1)

        with offline(tmp_path):
            hold(threading.Lock())
            hold(threading.Lock())
        assert len(runs) == 2
        assert 'DataFrameInputs() - "lock"' in caplog.text

    def test_it_takes_all_that_a_task_takes(self):
        @cached(name="orders", retries=3, persist_result=False)
        def load():
            return 1

        assert (load.name, load.retries, load.result_serializer, load.persist_result) == ("orders", 3, "arrow", False)


def test_a_cached_task_is_rolled_back_with_its_transaction(tmp_path):
    from prefect.transactions import transaction

    told = []

    @cached(exclude=["log"])
    def load(rows, log):
        log.append("ran")
        return pd.DataFrame({"n": range(rows)})

    @load.on_rollback
    def undo(_):
        told.append("rolled back")

    def fail():
        with transaction():
            load(3, told)
            raise ConnectionError

    with offline(tmp_path):
        with pytest.raises(ConnectionError):
            fail()
        assert told == ["ran", "rolled back"]
        with transaction():
            assert len(load(3, told)) == 3
        assert len(load(3, told)) == 3
    assert told == ["ran", "rolled back", "ran"]
