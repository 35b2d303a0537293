"""Prefect's own results in the panel: written by real tasks, asked for as the page asks."""

from __future__ import annotations

import json
import os
import shutil
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from prefect import task
from prefect.cache_policies import INPUTS

from offline import offline
from prefect_cache import results
from prefect_cache.panel.controller import Controller, Host
from prefect_cache.store import Store

FRAME = pd.DataFrame({"n": np.arange(1000.0), "word": ["a", "b"] * 500})
OLD = results.YOUNG * 2


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    """Prefect's result storage, with a result of each kind."""
    place = tmp_path_factory.mktemp("prefect") / "storage"
    made = {
        "orders": ("arrow", FRAME, {}),
        "rates": ("json", {"eur": 1.08}, {}),
        "model": ("pickle", object, {}),
        "brief": ("json", [1, 2], {"cache_expiration": timedelta(milliseconds=1)}),
    }
    with offline(place):
        for name, (serializer, value, more) in made.items():

            def produce(n, value=value):
                return value

            options = {"persist_result": True, "result_serializer": serializer, "cache_policy": INPUTS, **more}
            task(produce, name=name, **options)(name)
    return place


@pytest.fixture
def folder(stored, tmp_path, monkeypatch) -> Path:
    """The same for one test alone, none of it young."""
    place = shutil.copytree(stored, tmp_path / "storage")
    monkeypatch.setenv("PREFECT_RESULTS_LOCAL_STORAGE_PATH", str(place))
    for record in filter(Path.is_file, place.iterdir()):  # they say where they were written
        record.write_text(record.read_text().replace(str(stored), str(place)))
    for path in place.rglob("*"):
        then = time.time() - OLD
        os.utime(path, (then, then))
    return place


class Page:
    """The panel, spoken to as the page does."""

    def __init__(self, store: Store) -> None:
        self.controller = Controller(Host(store, lambda _entry, _name: None, {}))

    def ask(self, op: str, **words: object) -> dict[str, Any]:
        reply = json.loads(json.dumps(self.controller.handle({"op": op, "id": 1, **words})))
        assert reply.pop("id") == 1
        return reply

    def rows(self, search: str = "", **words: object) -> list[list[Any]]:
        return self.ask("list", flags=["results"], search=search, fresh=True, sort="name", **words)["rows"]

    def key(self, search: str) -> str:
        (row,) = self.rows(search)
        return row[0]


@pytest.fixture
def page(tmp_path, folder) -> Page:
    return Page(Store(tmp_path / "store"))


def test_they_are_listed_by_a_filter_and_marked_as_what_they_are(page, folder):
    reply = page.ask("list", flags=["results"], fresh=True, sort="size", descending=True)
    assert reply["total"] == reply["all"] == 4
    assert reply["rows"][0][1] == "orders"  # the serializer "arrow" says which task it was
    assert {row[2] for row in reply["rows"]} == {"arrow", "json", "pickle"}
    assert sorted(row[3] for row in reply["rows"]) == ["r", "r", "r", "xr"]
    assert reply["where"].endswith("storage")
    assert page.ask("list", fresh=True)["total"] == 0  # no entries of ours among them


def test_words_choose(page):
    assert [row[1] for row in page.rows("orders")] == ["orders"]
    assert len(page.rows("json")) == 2
    assert page.rows("size>1GB") == []


def test_an_arrow_result_is_shown_by_rows(page):
    key = page.key("orders")
    entry = page.ask("entry", key=key)
    (output,) = entry["outputs"]
    assert (entry["name"], output["frame"]) == ("orders", True)
    shown = page.ask("page", key=key, file=output["file"], first=10, count=2)
    assert ([c[0] for c in shown["columns"]], shown["total"]) == (["n", "word"], 1000)
    assert shown["rows"] == [["10.0", "a"], ["11.0", "b"]]
    assert page.ask("page", key=key, file=output["file"], filter="n > 997")["total"] == 2
    assert [c[1] for c in page.ask("schema", key=key, file=output["file"])["columns"]] == ["n", "word"]
    assert page.ask("cell", key=key, file=output["file"], row=3, column=1)["text"] == "b"


def test_a_json_result_is_shown_as_text_and_a_pickle_stays_closed(page):
    keys = {row[2]: row[0] for row in page.rows() if "x" not in row[3]}
    assert "1.08" in json.dumps(page.ask("value", key=keys["json"], file=""))
    assert "stays closed" in json.dumps(page.ask("value", key=keys["pickle"], file=""))


def test_it_says_which_serializer_wrote_it_and_whether_prefect_would_use_it(page):
    told = json.dumps(page.ask("provenance", key=page.key("orders")))
    assert "arrow" in told
    assert "used again for ever" in told
    (expired,) = [row for row in page.rows() if "x" in row[3]]
    assert "the task runs again" in json.dumps(page.ask("provenance", key=expired[0]))


def test_evicting_is_planned_shown_and_done_record_first(page, folder, monkeypatch):
    key = page.key("orders")
    planned = page.ask("plan", keys=[key])
    assert planned["count"] == 1
    assert "cannot be undone" in planned["text"]
    deleted = []
    delete = results._delete

    def watched(path, problems):
        deleted.append(path)
        return delete(path, problems)

    monkeypatch.setattr(results, "_delete", watched)
    assert page.ask("evict", keys=[key])["undo"] == 0
    assert [path.is_relative_to(folder / results.PAYLOADS) for path in deleted] == [False, True]
    assert page.rows("orders") == []
    assert not list((folder / results.PAYLOADS).iterdir())
    assert "gone" in page.ask("entry", key=key)["error"]


def test_all_that_a_filter_finds_can_be_evicted(page):
    assert page.ask("evict", flags=["results"], search="json", every=True)["text"].startswith("Evicted 2 results")
    assert {row[2] for row in page.rows()} == {"pickle", "arrow"}


@pytest.mark.parametrize("op", ["pin", "load", "export", "undo"])
def test_what_cannot_be_done_with_results_is_said(page, op):
    key = page.key("orders")
    assert "looked at and evicted" in page.ask(op, key=key, keys=[key])["error"]


def test_a_result_whose_payload_is_gone_is_damaged_in_the_list(page, folder):
    next((folder / results.PAYLOADS).iterdir()).rename(folder.parent / "elsewhere")
    (row,) = [row for row in page.rows() if row[3] == "!"]
    assert "is gone" in row[2]
