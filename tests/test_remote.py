from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
import uuid
from typing import TYPE_CHECKING

import fsspec
import pytest
from moto.core import set_initial_no_auth_action_count
from moto.server import ThreadedMotoServer
from prefect.filesystems import RemoteFileSystem

from prefect_cache import cli, inventory, remote
from prefect_cache.errors import Damaged, NotFound, StoreUnwritable, UsageProblem
from prefect_cache.remote import BlockPlace, Remote, RemotePlan, Storages, Uploads, open_place
from prefect_cache.store import Store
from prefect_cache.store.trust import Trust
from stores import content_of, key_of, save

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTENT = {"00-orders.arrow": b"orders" * 1000, "01-model.pickle": b"model"}


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3 server on loopback, and its address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3, monkeypatch) -> str:
    """A bucket of its own, as the user's environment names it."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    url = f"s3://{uuid.uuid4().hex}"
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(url.removeprefix("s3://"))
    return f"{url}/cache"


@pytest.fixture
def memory() -> Iterator[RemoteFileSystem]:
    block = RemoteFileSystem(basepath=f"memory://{uuid.uuid4().hex}")
    yield block
    with contextlib.suppress(FileNotFoundError):
        block.filesystem.rm(block.basepath, recursive=True)


@pytest.fixture(params=["folder", "s3", "block"])
def place(request, tmp_path):
    match request.param:
        case "folder":
            return open_place((tmp_path / "team").as_uri())
        case "s3":
            return open_place(request.getfixturevalue("bucket"))
        case _:
            return BlockPlace(request.getfixturevalue("memory"), "block:remote-file-system/team")


@pytest.fixture
def here(tmp_path) -> Store:
    return Store(tmp_path / "here")


@pytest.fixture
def there(tmp_path) -> Store:
    """The empty store of another machine."""
    return Store(tmp_path / "there")


class TestAnyStorage:
    def test_another_machine_finds_what_was_sent(self, place, here, there):
        entry = save(here, key_of("orders"), CONTENT)
        Remote(place, here).push(entry)
        (fetched,) = Remote(place, there).pull(key_of("orders"))
        assert content_of(there, fetched) == CONTENT
        assert fetched.manifest == entry.manifest
        assert [e.digest for e in there.variants(key_of("orders"))] == [entry.digest]

    def test_what_is_not_there_is_not_found(self, place, there):
        assert Remote(place, there).pull(key_of("nothing")) == ()

    def test_runs_that_saw_other_files_are_all_there(self, place, here, there):
        for seen in ("a", "b"):
            Remote(place, here).push(save(here, key_of("orders"), CONTENT, seen=seen))
        assert len(Remote(place, there).pull(key_of("orders"))) == 2

    def test_a_run_that_saw_the_same_takes_the_olders_place(self, place, here, there):
        for data in (b"old", b"new"):
            Remote(place, here).push(save(here, key_of("orders"), {"a.arrow": data}))
        (fetched,) = Remote(place, there).pull(key_of("orders"))
        assert content_of(there, fetched) == {"a.arrow": b"new"}

    def test_what_arrives_damaged_is_refused_and_leaves_nothing(self, place, here, there):
        entry = save(here, key_of("orders"), CONTENT)
        Remote(place, here).push(entry)
        output = entry.manifest.outputs[0]
        place.write(f"files/{output.digest}.arrow", b"x" * output.size)
        with pytest.raises(Damaged, match="is not what the entry says"):
            Remote(place, there).pull(key_of("orders"))
        assert there.variants(key_of("orders")) == ()

    def test_an_upload_that_was_cut_short_is_nothing(self, place, here, there, monkeypatch):
        entry = save(here, key_of("orders"), CONTENT)

        def cut(name, content):
            raise OSError("connection reset")

        with monkeypatch.context() as broken:
            broken.setattr(place, "write", cut)
            if isinstance(place, BlockPlace):
                broken.setattr(place, "send", lambda _name, _source: None)
            with pytest.raises(StoreUnwritable, match="connection reset"):
                Remote(place, here).push(entry)
        assert Remote(place, there).pull(key_of("orders")) == ()

    def test_an_entry_keeps_the_signature_of_who_made_it(self, place, here, tmp_path):
        Remote(place, here).push(save(here, key_of("orders"), CONTENT))
        stranger = Store(tmp_path / "stranger", trust=Trust(tmp_path / "another key"))
        (fetched,) = Remote(place, stranger).pull(key_of("orders"))
        assert not fetched.trusted
        friend = Store(tmp_path / "friend")
        (fetched,) = Remote(place, friend).pull(key_of("orders"))
        assert fetched.trusted

    def test_what_is_there_is_not_sent_again(self, place, here, monkeypatch):
        entry = save(here, key_of("orders"), CONTENT)
        Remote(place, here).push(entry)
        monkeypatch.setattr(place, "write", None)
        monkeypatch.setattr(place, "send", None)
        Remote(place, here).push(entry)


def names(plan: RemotePlan) -> list[str]:
    return [entry.manifest.name for entry, _ in plan.evict]


class TestAStorageThatLists:
    @pytest.fixture(params=["folder", "s3"])
    def place(self, request, tmp_path):
        return open_place(
            (tmp_path / "team").as_uri() if request.param == "folder" else request.getfixturevalue("bucket")
        )

    def test_its_entries_are_listed(self, place, here):
        store = Remote(place, here)
        for word in ("a", "b"):
            store.push(save(here, key_of(word), CONTENT, name=word))
        assert {entry.manifest.name for entry in store.catalog().entries} == {"a", "b"}

    def test_evicting_leaves_files_that_others_have(self, place, here, there):
        store = Remote(place, here)
        store.push(save(here, key_of("a"), CONTENT))
        store.push(save(here, key_of("b"), {**CONTENT, "02-own.arrow": b"own"}))
        first, second = sorted(store.catalog().entries, key=lambda entry: len(entry.files))
        assert store.evict([second]) == 3
        assert Remote(place, there).pull(key_of("b")) == ()
        assert len(Remote(place, there).pull(key_of("a"))) == 1
        assert store.evict([first]) == first.size
        assert place.names("files") == place.names("entries") == []

    def test_retention_takes_the_old_and_then_the_oldest(self, place, here):
        store, now = Remote(place, here), time.time()
        for number in range(3):
            store.push(
                save(here, key_of(number), {"a.arrow": b"%d" % number * 100}, name=str(number), started=now - number)
            )
        assert names(store.plan(max_age=1.5, now=now)) == ["2"]
        assert names(store.plan(max_bytes=100, now=now)) == ["2", "1"]
        store.push(save(here, key_of("brief"), CONTENT, name="brief", started=now - 10, options={"ttl": 5}))
        assert store.plan(now=now).evict[0][1] == "expired"
        store.carry_out(store.plan(max_bytes=100, now=now))
        assert [entry.manifest.name for entry in store.catalog().entries] == ["0"]

    def test_files_that_no_entry_names_are_swept_once_no_upload_can_be_on_its_way(self, place, here):
        store, now = Remote(place, here), time.time()
        store.push(save(here, key_of("a"), CONTENT))
        place.write("files/0123.arrow", b"of an upload cut short")
        assert store.plan(now=now).sweep == ()
        plan = store.plan(now=now + 100_000)
        assert plan.sweep == ("files/0123.arrow",)
        store.carry_out(plan)
        assert len(place.names("files")) == 2

    def test_a_damaged_entry_is_told_and_hides_no_other(self, place, here):
        store = Remote(place, here)
        store.push(save(here, key_of("a"), CONTENT))
        place.write("entries/" + key_of("b"), b"not an entry")
        place.write("files/0123.arrow", b"perhaps of the damaged one")
        catalog = store.catalog()
        assert (len(catalog.entries), catalog.problems) == (1, (key_of("b"),))
        assert store.plan(now=time.time() + 100_000).sweep == ()
        inventory.evict(store, [key_of("b")])
        assert store.catalog().problems == ()


class TestAFolder:
    def test_nobody_reads_half_a_file(self, tmp_path, here):
        place = open_place((tmp_path / "team").as_uri())
        Remote(place, here).push(save(here, key_of("orders"), CONTENT))
        assert list((tmp_path / "team").rglob("*.part")) == []

    def test_what_is_made_in_it_is_the_groups_where_the_folder_is(self, tmp_path, here):
        (tmp_path / "team").mkdir()
        (tmp_path / "team").chmod(0o2770)
        place = open_place((tmp_path / "team").as_uri())
        Remote(place, here).push(save(here, key_of("orders"), CONTENT))
        made = list((tmp_path / "team").rglob("*"))
        assert len(made) == 5
        for path in made:
            mode = path.stat().st_mode
            assert (mode >> 3) & 0o6 == 0o6, path

    def test_two_users_share_it(self, tmp_path, here):
        """Each with a home, a key and a store of their own; one trusts the other's key."""
        place = open_place((tmp_path / "team").as_uri())
        other = Store(tmp_path / "other", trust=Trust(tmp_path / "other key"))
        Remote(place, other).push(save(other, key_of("orders"), CONTENT))
        (fetched,) = Remote(place, here).pull(key_of("orders"))
        assert (content_of(here, fetched), fetched.trusted) == (CONTENT, False)
        friend = Store(tmp_path / "friend", trust=Trust(tmp_path / "own key", others=[tmp_path / "other key"]))
        (fetched,) = Remote(place, friend).pull(key_of("orders"))
        assert fetched.trusted


class TestUploads:
    def test_entries_are_sent_in_the_background_each_once(self, tmp_path, here, there):
        store = Remote(open_place((tmp_path / "team").as_uri()), here)
        uploads = Uploads(lambda: store)
        entries = [save(here, key_of(n), {"a.arrow": b"%d" % n * 1000}) for n in range(5)]
        for entry in entries + entries:
            uploads.add(entry)
        assert uploads.wait(30)
        assert len(store.catalog().entries) == 5
        assert (uploads.sent, uploads.waiting) == (5000, 0)
        uploads.close()

    def test_a_storage_that_fails_fails_nothing_and_is_told(self, here):
        told = []
        uploads = Uploads(lambda: Remote(open_place("s3://bucket/x"), here), told.append)
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{closed.getsockname()[1]}"
            try:
                started = time.monotonic()
                uploads.add(save(here, key_of("orders"), CONTENT))
                assert time.monotonic() - started < 1
                assert uploads.wait(60)
            finally:
                del os.environ["AWS_ENDPOINT_URL"]
        assert len(told) == 1
        assert told[0].startswith("orders was not sent: s3://bucket/x")
        uploads.close()


class TestBadNames:
    @pytest.mark.parametrize("name", ["nonsense", "a/b/c", "", "nosuch://bucket/x"])
    def test_what_names_no_storage_is_refused_with_what_would(self, name):
        with pytest.raises(UsageProblem) as caught:
            open_place(name)
        assert caught.value.remedy or "nosuch" in str(caught.value)

    def test_a_denied_bucket_is_a_clear_error(self, s3, bucket, here):
        place = open_place("s3://not-a-bucket-of-ours/cache")
        with pytest.raises(StoreUnwritable, match="s3://not-a-bucket-of-ours/cache") as caught:
            Remote(place, here).push(save(here, key_of("orders"), CONTENT))
        assert "credentials" in caught.value.remedy

    @set_initial_no_auth_action_count(0)
    def test_so_is_one_that_answers_403(self, s3, bucket, here, there, monkeypatch):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-stranger")
        place = open_place(bucket)
        with pytest.raises(StoreUnwritable, match=re.escape(bucket)) as caught:
            Remote(place, here).push(save(here, key_of("orders"), CONTENT))
        assert "credentials" in caught.value.remedy
        with pytest.raises(StoreUnwritable, match=re.escape(bucket)):
            Remote(place, there).pull(key_of("orders"))
        with pytest.raises(StoreUnwritable, match=re.escape(bucket)):
            Remote(place, there).catalog()

    def test_to_a_notebook_it_is_a_sentence_with_a_remedy_once(self, s3, bucket, here):
        told = []
        storages = Storages(here, told.append)
        for name in ("orders", "orders", "rates"):
            entry = save(here, key_of(name), CONTENT, name=name)
            assert not storages.fetch(entry.manifest.key.digest, "s3://not-a-bucket-of-ours/cache")
            storages.keep(entry, "s3://not-a-bucket-of-ours/cache")
        storages.close()
        assert [line.partition(" ")[0] for line in told] == ["orders", "rates"]
        assert all("s3://not-a-bucket-of-ours/cache" in line and "credentials" in line for line in told)

    def test_a_block_that_only_reads_and_writes_says_that_it_cannot_list(self, memory, here):
        with pytest.raises(NotFound, match="cannot list"):
            Remote(BlockPlace(memory, "block:x/y"), here).catalog()


def test_a_cell_is_restored_on_a_second_machine_with_an_empty_store(tmp_path, bucket, start_kernel):
    cell = f"%%prefect_cache --storage {bucket}\nimport pandas as pd\ndf = pd.DataFrame({{'n': range(1000)}})"
    first = start_kernel(env={"PREFECT_CACHE_DIR": str(tmp_path / "one")})
    first.run("%load_ext prefect_cache")
    first.run(cell)
    assert first.value("__import__('prefect_cache').last.status") == "miss"
    first.run("%unload_ext prefect_cache")  # waits for uploads
    second = start_kernel(env={"PREFECT_CACHE_DIR": str(tmp_path / "two")})
    second.run("%load_ext prefect_cache")
    second.run(cell)
    assert second.value("__import__('prefect_cache').last.status") == "hit"
    assert second.value("int(df['n'].sum())") == 499500


@pytest.mark.parametrize("storage", ["no-such-type/no-such-block", "nonsense", "nosuch://bucket/x"])
def test_a_storage_that_is_not_there_is_told_and_the_cell_runs(storage, kernel):
    kernel.run("%load_ext prefect_cache")
    ran = kernel.run(f"%%prefect_cache --storage {storage}\nx = 1 + 1")
    assert storage.split("/")[0].rstrip(":") in ran.text + ran.stderr
    assert kernel.value("x") == 2


def test_a_hit_is_sent_where_the_storage_lacks_it(tmp_path, kernel):
    team = (tmp_path / "team").as_uri()
    kernel.run("%load_ext prefect_cache")
    kernel.run("%%prefect_cache\nx = [1, 2]")
    kernel.run(f"%%prefect_cache --storage {team}\nx = [1, 2]")
    assert kernel.value("__import__('prefect_cache').last.status") == "hit"
    kernel.run("%unload_ext prefect_cache")  # waits for uploads
    assert len(list((tmp_path / "team" / "entries").iterdir())) == 1


TWO_CELLS = {
    "frame": "import pandas as pd\ndf = pd.DataFrame({'n': range(1000), 'word': list('abcde') * 200})",
    "model": "import collections\nmodel = collections.Counter('abracadabra')",
}


def test_two_users_share_a_folder(tmp_path, start_kernel):
    """Without each other's key tables of plain data are restored and pickles stay closed; with it all is restored."""

    def login(name: str):
        home = tmp_path / name
        home.mkdir(exist_ok=True)
        env = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "config"), "XDG_CACHE_HOME": str(home / "cache")}
        user = start_kernel(env={**env, "PREFECT_CACHE_DIR": str(home / "store")})
        user.run(f"%load_ext prefect_cache\n%config PrefectCache.storage = {(tmp_path / 'team').as_uri()!r}")
        return user

    def statuses(user) -> dict[str, str]:
        seen = {}
        for name, cell in TWO_CELLS.items():
            user.run(f"%%prefect_cache {name}\n{cell}")
            seen[name] = user.value("__import__('prefect_cache').last.status")
        return seen

    ann = login("ann")
    assert statuses(ann) == {"frame": "miss", "model": "miss"}
    ann.run("%unload_ext prefect_cache")
    bob = login("bob")
    assert statuses(bob) == {"frame": "hit", "model": "miss"}
    assert bob.value("int(df['n'].sum())") == 499500
    (tmp_path / "eve").mkdir()
    key = tmp_path / "eve" / "team key"
    key.write_bytes(next((tmp_path / "ann" / "config").rglob("key")).read_bytes())
    key.chmod(0o600)
    eve = login("eve")
    eve.run(f"import prefect_cache\nprefect_cache.trust({str(key)!r})")
    assert statuses(eve) == {"frame": "hit", "model": "hit"}
    assert eve.value("model['a']") == 5


class TestCommands:
    """The storage's entries by the magics and in a terminal."""

    @pytest.fixture
    def team(self, tmp_path, here) -> str:
        url = (tmp_path / "team").as_uri()
        store = Remote(open_place(url), here)
        for number, name in enumerate(("orders", "rates", "old")):
            store.push(
                save(
                    here, key_of(name), {"a.arrow": name.encode() * 100}, name=name, started=time.time() - number * 1e6
                )
            )
        return url

    def in_a_terminal(self, capsys, *words: str) -> tuple[int, str]:
        code = cli.main(words)
        said = capsys.readouterr()
        return code, said.out + said.err

    def test_in_a_terminal(self, team, capsys):
        code, text = self.in_a_terminal(capsys, "ls", "--storage", team)
        assert code == 0
        assert text.splitlines()[0] == f"3 entries in {team}"
        assert [line.split()[1] for line in text.splitlines()[2:]] == ["orders", "rates", "old"]
        code, text = self.in_a_terminal(capsys, "evict", "rates", "--storage", team, "--dry-run")
        assert text.splitlines()[0].startswith("would evict rates")
        code, text = self.in_a_terminal(capsys, "evict", "rates", "--storage", team, "--json")
        assert [entry["name"] for entry in json.loads(text)["evicted"]] == ["rates"]
        code, text = self.in_a_terminal(capsys, "evict", "rates", "--storage", team)
        assert code == 3
        assert "no entry 'rates'" in text
        code, text = self.in_a_terminal(capsys, "prune", "--storage", team, "--max-age", "10d")
        assert text.splitlines()[0].startswith("evicted old")
        code, text = self.in_a_terminal(capsys, "ls", "--storage", team, "--json")
        assert [entry["name"] for entry in json.loads(text)["entries"]] == ["orders"]

    def test_in_a_notebook(self, team, kernel):
        kernel.run("%load_ext prefect_cache")
        assert "3 entries" in kernel.run(f"%prefect_cache list --storage {team}").text
        assert "1 entry" in kernel.run(f"%prefect_cache list rates --storage {team}").text
        assert "would evict old" in kernel.run(f"%prefect_cache prune --storage {team} --max-age 10d --dry-run").text
        assert "evicted rates" in kernel.run(f"%prefect_cache evict rates --storage {team}").text
        assert "2 entries" in kernel.run(f"%prefect_cache list --storage {team}").text
        ran = kernel.run("%prefect_cache list --storage nosuch://x", check=False)
        assert "nosuch" in ran.text + ran.stderr

    @pytest.mark.parametrize("command", [("ls",), ("evict", "orders"), ("prune",)])
    def test_what_cannot_be_reached_is_a_sentence_and_an_exit_code(self, command, capsys):
        code, text = self.in_a_terminal(capsys, *command, "--storage", "nosuch://x/y")
        assert code == 2
        assert "nosuch://x/y" in text


class TestAStorageThatDoesNotAnswer:
    @pytest.fixture
    def silent(self, monkeypatch) -> Iterator[str]:
        """An S3 that accepts connections and never says a word."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
            monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            fsspec.get_filesystem_class("s3").clear_instance_cache()  # it knows another server by the same name
            yield "s3://bucket/cache"
            fsspec.get_filesystem_class("s3").clear_instance_cache()

    def test_a_cell_waits_for_it_once_and_not_long(self, silent, here, monkeypatch):
        monkeypatch.setattr(remote, "PATIENCE", 0.5)
        told = []
        storages = Storages(here, told.append)
        started = time.monotonic()
        assert not storages.fetch(key_of("orders"), silent)
        assert not storages.fetch(key_of("rates"), silent)
        assert time.monotonic() - started < 5
        assert told == [f"{silent} did not answer within 0.5 s; {remote.UNREACHED}"]
