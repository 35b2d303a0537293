"""The panel without a browser: rows, searches, documents, the controller's answers, and when a widget is shown."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import panels
from prefect_cache import codecs
from prefect_cache.errors import UsageProblem
from prefect_cache.panel import frontend, view
from prefect_cache.panel.controller import OPERATIONS, Controller, Host
from prefect_cache.panel.jobs import Jobs
from prefect_cache.panel.watch import Watcher
from prefect_cache.panel.widget import ASSETS, BasicPanel, CachePanel, StaticPanel, show
from prefect_cache.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kernels import Kernel
    from prefect_cache.model import Entry


@pytest.fixture
def shop(tmp_path: Path) -> Store:
    """A store with one of each."""
    return panels.shop(tmp_path / "store")


def host_of(store: Store, namespace: dict[str, object] | None = None) -> Host:
    """What a notebook gives the panel."""

    def load(entry: Entry, name: str) -> object:
        output = next(o for o in entry.manifest.outputs if o.name == name)
        return codecs.codec(output.codec).read(entry.path / output.file, output.meta, trusted=entry.trusted)

    return Host(store, load, {} if namespace is None else namespace, "shop/etl.ipynb")


class Asker:
    """A controller, spoken to as the page does, and what it pushed."""

    def __init__(self, store: Store, folder: Path | None = None) -> None:
        self.namespace: dict[str, object] = {}
        self.pushed: list[dict[str, Any]] = []
        self.controller = Controller(host_of(store, self.namespace), self.pushed.append, folder)
        self.keys = {r.name: r.address for r in self.controller.listing().records}

    def ask(self, op: str, **words: object) -> dict[str, Any]:
        """The reply, after a journey through JSON."""
        reply: dict[str, Any] = json.loads(json.dumps(self.controller.handle({"op": op, "id": "7", **words})))
        assert reply.pop("id") == "7"
        return reply

    def wait_for(self, found: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """What was pushed, once it was."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for message in list(self.pushed):
                if found(message):
                    return message
            time.sleep(0.01)
        return pytest.fail(f"never pushed; there are {self.pushed}")


@pytest.fixture
def asker(shop: Store, tmp_path: Path) -> Asker:
    """The small store's controller."""
    return Asker(shop, tmp_path)


def wait_until(found: Callable[[], bool]) -> None:
    """Wait for something that happens in the background."""
    deadline = time.monotonic() + 30
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.01)


PICKLES = """
import json, os, pathlib
pathlib.Path("mine.py").write_text(
    "import time\\n"
    "class Slow:\\n    def __repr__(self): time.sleep(20)\\n"
    "class Odd:\\n    def __repr__(self): raise ValueError('no text')\\n"
)

def shown(name):
    from prefect_cache.capture import plain_text
    from prefect_cache.panel.controller import Controller, Host
    magics = get_ipython().magics_manager.registry["PrefectCache"]
    load = lambda entry, name: magics.session.load(entry, name)[name]
    text = lambda value, limit: plain_text(get_ipython(), value, limit)
    controller = Controller(Host(magics.store, load, globals(), "", text))
    (record,) = [r for r in controller.listing(fresh=True).records if r.name == name]
    (output,) = controller.handle({"op": "entry", "key": record.address})["outputs"]
    return json.dumps(controller.handle({"op": "value", "key": record.address, "file": output["file"]}))
"""


class TestList:
    """Rows, searches, filters and orders."""

    @pytest.mark.parametrize(
        ("search", "names"),
        [
            ("ORDERS", {"orders"}),
            ("customer_id name", {"orders"}),
            ("sensor_499", {"sensors"}),
            ("lab/", {"sensors"}),
            ("size>1.7MB", {"orders", "sensors"}),
            ("size < 10 kB".replace(" k", "k"), {panels.EVIL, "unreadable entry"}),
            ("rows>5000", {"orders"}),
            ("hits>3", {"features"}),
            ("no such thing", set()),
        ],
    )
    def test_searches(self, search: str, names: set[str], asker: Asker) -> None:
        """Words in any name; sizes, rows, hits and times by comparison."""
        assert names == {row[1] for row in asker.ask("list", search=search)["rows"]}

    @pytest.mark.parametrize(
        ("flag", "names"),
        [
            ("pinned", {"features"}),
            ("stale", {"old prices"}),
            ("damaged", {"unreadable entry"}),
            ("notebook", {"orders", "features", "revenue"}),
        ],
    )
    def test_filters(self, flag: str, names: set[str], asker: Asker) -> None:
        """Each button keeps its own."""
        assert names == {row[1] for row in asker.ask("list", flags=[flag])["rows"]}

    @pytest.mark.parametrize("sort", view.SORTS)
    def test_every_column_sorts_both_ways(self, sort: str, asker: Asker) -> None:
        """No order loses a row, and what has no value stands last."""
        up = [row[0] for row in asker.ask("list", sort=sort)["rows"]]
        down = [row[0] for row in asker.ask("list", sort=sort, descending=True)["rows"]]
        assert sorted(up) == sorted(down) == sorted(asker.keys.values())
        if sort in {"rows", "columns"}:
            assert {up[-1], down[-1]} <= {asker.keys["revenue"], asker.keys["unreadable entry"]}

    def test_a_window_of_ten_thousand(self, tmp_path: Path) -> None:
        """Any part of a long list comes by itself, and is small."""
        asker = Asker(panels.many(tmp_path / "many", 300))
        reply = asker.ask("list", sort="name", first=290, count=60)
        assert (reply["first"], reply["total"], len(reply["rows"])) == (290, 300, 10)
        assert len(json.dumps(asker.ask("list", count=60))) < 16_000

    def test_what_cannot_be_searched_is_a_line(self, asker: Asker) -> None:
        """A size that is none, an order that does not exist."""
        assert "is no size" in asker.ask("list", search="size>big")["error"]
        assert "is no time span" in asker.ask("list", search="unused>long")["error"]
        assert "is no number" in asker.ask("list", search="rows>many")["error"]
        assert "cannot be sorted" in asker.ask("list", sort="colour")["error"]
        assert "is no filter" in asker.ask("list", flags=["shiny"])["error"]


class TestEntries:
    """What one entry holds."""

    def test_outputs_of_every_kind(self, asker: Asker) -> None:
        """Frames have pages, arrays a corner, others their text, displays their pictures."""
        reply = asker.ask("entry", key=asker.keys["orders"])
        assert [(o["name"], o["frame"]) for o in reply["outputs"]] == [("orders", True), ("customers", True)]
        array = asker.ask("value", key=asker.keys["features"], file="00-features.arrow")
        grid = array["columns"][0][1]
        assert (len(grid["rows"]), len(grid["rows"][0])) == (8, 8)
        model = asker.ask("value", key=asker.keys["revenue"], file="00-model.pickle")
        assert "'alpha': 0.3" in json.dumps(model)
        figures = asker.ask("figures", key=asker.keys["revenue"])
        assert figures["columns"][0][0]["url"].startswith("data:image/png;base64,iVBOR")

    def test_pages(self, asker: Asker) -> None:
        """A page by its place, and lines for what cannot be shown."""
        place = {"key": asker.keys["orders"], "file": "00-orders.arrow"}
        page = asker.ask("page", **place, first=100, count=50, column=1, columns=2)
        assert [c[0] for c in page["columns"]] == ["placed", "customer"]
        assert page["numbers"][:2] == [100, 101]
        assert "there is no row" in asker.ask("page", **place, first=10**9)["error"]
        assert "there is no column" in asker.ask("page", **place, sort="gone")["error"]
        assert "must be a whole number" in asker.ask("page", **place, first="1")["error"]
        assert "no such output" in asker.ask("page", key=asker.keys["orders"], file="../../key")["error"]
        assert asker.ask("cell", **place, row=0, column=0) == {"text": str(2**60 + 1)}
        assert "not in the frame" in asker.ask("cell", **place, row=10**9)["error"]

    def test_statistics_come_in_the_background_and_are_kept(self, asker: Asker) -> None:
        """The columns come at once, their statistics one by one, the second time all together."""
        place = {"key": asker.keys["orders"], "file": "00-orders.arrow"}
        first = asker.ask("schema", **place, statistics=True)
        assert [c[4] for c in first["columns"]] == [None] * 12
        asker.wait_for(lambda m: m["push"] == "statistics" and m["column"] == 11)
        again = asker.ask("schema", **place)
        assert again["columns"][7][4]["missing"] == 13_333

    def test_statistics_outlive_the_kernel_and_go_with_the_entry(self, asker: Asker, shop: Store) -> None:
        """They lie beside the entry; another panel finds them, and what is damaged of them is worked out again."""
        place = {"key": asker.keys["orders"], "file": "00-orders.arrow"}
        asker.ask("schema", **place, statistics=True)
        told = asker.wait_for(lambda m: m["push"] == "statistics" and m["column"] == 11)["statistics"]
        file = shop.get(asker.keys["orders"]).path / "statistics"
        wait_until(file.exists)
        assert [p.path.name for p in shop.check()] == [asker.keys["unreadable entry"]]
        assert Asker(shop).ask("schema", **place)["columns"][11][4] == json.loads(json.dumps(told))
        whole = file.read_text()
        texts = [
            "",
            "[]",
            "{",
            '{"version": 1, "files": 3}',
            whole.replace('"missing": ', '"missing": 1.5'),
            whole[:-9],
        ]
        for wrong in texts:
            file.write_text(wrong)
            assert Asker(shop).ask("schema", **place)["columns"][11][4] is None
        shop.evict([shop.get(asker.keys["orders"])], undoable=False)
        assert not file.exists()

    def test_a_pickle_of_ones_own_is_shown_as_the_notebook_shows_it(self, kernel: Kernel) -> None:
        """Also what is slow to show, long, or fails; what another has signed stays closed."""
        kernel.run("%load_ext prefect_cache")
        kernel.run(PICKLES)
        kernel.run("%%prefect_cache settings\nsettings = {i: 'x' * 30 for i in range(4)}")
        kernel.run("%%prefect_cache long\nlong = [str(i) * 9 for i in range(5000)]")
        kernel.run("%%prefect_cache slow\nimport mine; slow = mine.Slow()")
        kernel.run("%%prefect_cache odd\nimport mine; odd = mine.Odd()")
        told = {name: kernel.value(f"shown({name!r})") for name in ("settings", "long", "slow", "odd")}
        assert "{0: 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx',\\n 1: " in told["settings"]
        assert 9_000 < len(told["long"]) < 15_000
        assert "takes long" in told["slow"]
        assert "cannot be shown here: ValueError: no text" in told["odd"]
        kernel.run("os.environ['PREFECT_CACHE_KEY_FILE'] = 'another-key'")
        other = kernel.value("shown('settings')")
        assert "stays closed" in other
        assert "xxx" not in other

    def test_provenance_and_files(self, asker: Asker) -> None:
        """Source, run, inputs, observed files; paths, bytes, formats and code."""
        told = json.dumps(asker.ask("provenance", key=asker.keys["orders"]))
        for words in ("4 min 10 s", "orders.parquet changed", "customers", "etl.ipynb on atlas", "prefect.example"):
            assert words in told
        files = json.dumps(asker.ask("files", key=asker.keys["orders"]))
        for words in ("00-orders.arrow", "Arrow IPC", "pl.read_ipc", "duckdb"):
            assert words in files

    def test_the_snippets_run(self, shop: Store) -> None:
        """Each snippet opens the file with nothing of ours."""
        entry = next(e for e in shop.catalog().entries if e.manifest.name == "sensors")
        (output,) = entry.manifest.outputs
        for code in view.snippets(entry.path / output.file, output).values():
            names: dict[str, Any] = {}
            exec(code, names)  # our own code
            assert len(names["sensors"]) == 400

    def test_a_check_reads_every_byte(self, asker: Asker, shop: Store) -> None:
        """A flipped bit is found and named."""
        key = asker.keys["sensors"]
        assert asker.ask("check", key=key)["good"]
        path = shop.get(key).path / "00-sensors.arrow"
        data = bytearray(path.read_bytes())
        data[-5000] ^= 1
        path.write_bytes(data)
        assert not asker.ask("check", key=key)["good"]

    def test_what_went_away_is_a_line(self, asker: Asker, shop: Store) -> None:
        """An evicted entry, a missing file, a store that is gone."""
        place = {"key": asker.keys["sensors"], "file": "00-sensors.arrow"}
        assert "rows" in asker.ask("page", **place)
        shop.evict([shop.get(asker.keys["sensors"])])
        assert "is no longer in the store" in asker.ask("page", **place)["error"]
        (shop.get(asker.keys["orders"]).path / "00-orders.arrow").unlink()
        assert "is gone" in asker.ask("page", key=asker.keys["orders"], file="00-orders.arrow")["error"]
        assert "is damaged" in asker.ask("entry", key=asker.keys["unreadable entry"])["error"]
        shutil.rmtree(shop.root)
        assert asker.ask("list", fresh=True)["total"] == 0
        assert "error" in asker.ask("entry", key=asker.keys["revenue"])


class TestActions:
    """What is done to entries."""

    def test_evicting_and_undoing(self, asker: Asker, shop: Store) -> None:
        """The plan says what goes, evicting does it, undo takes it back."""
        keys = [asker.keys["sensors"], asker.keys["features"]]
        plan = asker.ask("plan", keys=keys)
        assert plan["count"] == 2
        assert "That is 2 entries" in plan["text"]
        assert "1 pinned" in plan["text"]
        assert "Evicted 2 entries" in asker.ask("evict", keys=keys)["text"]
        assert len(shop.catalog().entries) == 4
        assert asker.ask("undo")["text"] == "Brought back 2 entries."
        assert asker.ask("undo")["text"] == "There is nothing to bring back."

    def test_all_that_a_search_finds(self, asker: Asker, shop: Store) -> None:
        """A query is a choice as well."""
        asker.ask("evict", every=True, search="unused>0s", flags=["notebook"])
        assert {e.manifest.name for e in shop.catalog().entries} == {"sensors", "old prices", panels.EVIL}
        assert "no entry is chosen" in asker.ask("evict", keys=["nothing"])["error"]

    def test_a_damaged_entry_can_be_evicted(self, asker: Asker, shop: Store) -> None:
        """What cannot be read can go."""
        asker.ask("evict", keys=[asker.keys["unreadable entry"]])
        assert shop.catalog().problems == ()

    def test_loading_asks_before_it_replaces(self, asker: Asker) -> None:
        """A new name is bound; one that exists is kept until that was asked for."""
        place = {"key": asker.keys["sensors"], "file": "00-sensors.arrow"}
        assert "Loaded" in asker.ask("load", **place, variable="mine")["text"]
        mine = asker.namespace["mine"]
        assert isinstance(mine, pd.DataFrame)
        assert asker.ask("load", **place, variable="mine") == {"exists": "mine", "what": "DataFrame"}
        assert asker.namespace["mine"] is mine
        asker.ask("load", **place, variable="mine", overwrite=True)
        assert asker.namespace["mine"] is not mine
        assert asker.ask("load", **place, variable="print")["exists"] == "print"
        for wrong in ("", "a b", "class", "x.y"):
            assert "cannot be the name" in asker.ask("load", **place, variable=wrong)["error"]

    def test_exporting(self, asker: Asker, tmp_path: Path) -> None:
        """The file appears in the working folder, and it is said where."""
        place = {"key": asker.keys["sensors"], "file": "00-sensors.arrow"}
        asker.ask("export", **place, format="parquet")
        assert "sensors.parquet" in asker.wait_for(lambda m: m["push"] == "line")["text"]
        assert pd.read_parquet(tmp_path / "sensors.parquet").shape == (400, 500)
        assert "is no format" in asker.ask("export", **place, format="exe")["error"]

    def test_many_threads_at_once(self, asker: Asker) -> None:
        """Requests may come from any thread, in any order."""
        place = {"key": asker.keys["orders"], "file": "00-orders.arrow"}
        replies: list[dict[str, Any]] = []

        def work(seed: int) -> None:
            random = np.random.default_rng(seed)
            for _ in range(20):
                first = int(random.integers(0, 19_000))
                replies.append(asker.ask("page", **place, first=first) | {"wanted": first})
                asker.ask("list", search="o", fresh=bool(random.integers(2)))

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(replies) == 80
        assert all(r["numbers"][0] == r["wanted"] for r in replies)


class TestRequests:
    """What a page could send."""

    @given(
        st.dictionaries(
            st.sampled_from(["id", "op", "key", "file", "first", "count", "search", "flags", "keys", "filter", "sort"]),
            st.none()
            | st.integers()
            | st.text(max_size=9)
            | st.lists(st.integers(), max_size=2)
            | st.sampled_from(list(OPERATIONS)),
        )
    )
    def test_any_request_has_a_reply(self, request_: dict[str, object]) -> None:
        """Whatever comes in, a reply goes out, and nothing is raised."""
        store = Store("/nonexistent/store")
        reply = Controller(host_of(store)).handle(request_)
        assert "id" in reply
        assert "failed" not in str(reply.get("error", ""))

    def test_a_store_that_cannot_be_read_is_a_line(self, tmp_path: Path) -> None:
        """A file where the store should be."""
        (tmp_path / "file").write_text("not a store")
        bundle: dict[str, str] = StaticPanel(host_of(Store(tmp_path / "file")))._repr_mimebundle_()
        assert bundle["text/plain"].startswith("Prefect cache")


class TestColours:
    """The cell's source in pieces."""

    @pytest.mark.parametrize(
        "source",
        [panels.SOURCE, "%matplotlib inline\nx = 1\n!ls\n", "x = '''half", "f(", "", "def é():\n\treturn 1", "x\n  y"],
    )
    def test_the_pieces_are_the_source(self, source: str) -> None:
        """Nothing is lost or added, whether it parses or not."""
        assert source == "".join(text for _, text in view.coloured(source))

    @given(st.text(max_size=60))
    def test_any_text_survives(self, source: str) -> None:
        """Any text is shown as it is."""
        assert source == "".join(text for _, text in view.coloured(source))

    def test_kinds(self) -> None:
        """Keywords, strings, numbers, comments and magics are told apart."""
        kinds = {text: kind for kind, text in view.coloured("%time\nif x: y = 'a' + 1 # why")}
        assert (kinds["%time"], kinds["if"], kinds["'a'"], kinds["1"], kinds["# why"]) == ("m", "k", "s", "n", "c")


class TestStatic:
    """The form without widgets."""

    def test_html_escapes_and_stays_small(self, tmp_path: Path) -> None:
        """What stays in the notebook is a short table, whatever names hold."""
        store = panels.many(tmp_path / "many", 200)
        panels.save(store, panels.EVIL, {"x": pd.DataFrame({"a": [1]})}, age=1)
        bundle = StaticPanel(host_of(store))._repr_mimebundle_()
        assert "<img" not in bundle["text/html"]
        assert "and 189 more" in bundle["text/html"]
        assert "... and 189 more" in bundle["text/plain"]
        assert len(json.dumps(bundle)) < 10_000

    def test_modes(self, shop: Store) -> None:
        """Each form by its name; a wrong name is said; here, without a front end, auto is static."""
        assert isinstance(show(host_of(shop)), StaticPanel)
        assert isinstance(show(host_of(shop), "static"), StaticPanel)
        assert isinstance(show(host_of(shop), "basic"), BasicPanel)
        assert isinstance(show(host_of(shop), "rich"), CachePanel)
        with pytest.raises(UsageProblem, match="no form 'fancy'"):
            show(host_of(shop), "fancy")

    def test_the_page_has_its_limits(self) -> None:
        """Script and style are small, ask nobody else, and never parse text as HTML."""
        script, style = (ASSETS / "panel.js").read_text(), (ASSETS / "panel.css").read_text()
        assert len(script.encode()) + len(style.encode()) <= 40_000
        for word in ("innerHTML", "outerHTML", "insertAdjacent", "eval(", "import(", "http://", "https://"):
            assert word not in script
        assert "url(" not in style
        assert "@import" not in style


class TestFrontEnd:
    """When a widget is shown."""

    def test_a_headless_kernel_shows_none(self, kernel: Kernel) -> None:
        """nbclient, papermill and nbconvert run kernels as this one: static, and no comm is opened."""
        code = (
            "from prefect_cache.panel.widget import Host, show\nfrom prefect_cache.store import Store\n"
            "show(Host(Store('nowhere'), None, globals()))"
        )
        ran = kernel.run(code)
        assert ran.status == "ok"
        assert "comm_open" not in [kind for kind, _ in ran.messages]
        assert "application/vnd.jupyter.widget-view+json" not in json.dumps(ran.outputs)

    def test_what_a_jupyter_server_starts_shows_widgets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The server's variable counts, unless it was inherited from a notebook that runs this one."""
        shell = SimpleNamespace(kernel=object(), user_ns={})
        assert not frontend.shows_widgets(object())
        assert not frontend.shows_widgets(shell)
        monkeypatch.setenv("JPY_PARENT_PID", str(os.getpid()))
        monkeypatch.setenv("JPY_SESSION_NAME", "work/a.ipynb")
        assert frontend.shows_widgets(shell)
        monkeypatch.setattr(frontend, "_environment_of_parent", lambda: {"JPY_SESSION_NAME": "work/a.ipynb"})
        assert not frontend.shows_widgets(shell)
        shell.user_ns["__vsc_ipynb_file__"] = "/home/a.ipynb"
        assert frontend.shows_widgets(shell)


class TestBackground:
    """Jobs and the watcher."""

    def test_later_work_takes_the_place_of_earlier(self) -> None:
        """What is no longer wanted stops; what fails does not end the thread."""
        jobs, done, started = Jobs(), [], threading.Event()

        def long(stop: Callable[[], bool]) -> None:
            started.set()
            while not stop():
                time.sleep(0.001)
            done.append("stopped")

        finished = threading.Event()
        jobs.put(long, instead_of="x")
        started.wait(10)
        jobs.put(lambda _: 1 / 0, instead_of="x")
        jobs.put(lambda _: finished.set())
        assert finished.wait(10)
        assert done == ["stopped"]

    def test_a_change_of_the_store_is_noticed(self, tmp_path: Path) -> None:
        """A new entry calls, and nothing calls after the stop."""
        store, calls = Store(tmp_path / "store"), threading.Event()
        watcher = Watcher(store.root, calls.set, every=0.01)
        watcher.start()
        time.sleep(0.05)
        assert not calls.is_set()
        panels.save(store, "one", {"a": pd.DataFrame({"a": [1]})})
        assert calls.wait(10)
        watcher.stop()
