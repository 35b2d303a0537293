"""Storage blocks that a real server knows."""

from __future__ import annotations

import pytest
from prefect.filesystems import LocalFileSystem

from prefect_cache.errors import UsageProblem
from prefect_cache.remote import Remote, Storages, open_place
from prefect_cache.store import Store
from stores import content_of, key_of, save

CONTENT = {"00-orders.arrow": b"orders" * 1000}


@pytest.mark.xdist_group("prefect server")
class TestBlocks:
    def test_one_that_is_saved_there_keeps_entries(self, configured, tmp_path):
        LocalFileSystem(basepath=str(tmp_path / "team")).save("team", overwrite=True, _sync=True)
        here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
        storages = Storages(here, pytest.fail)
        storages.keep(save(here, key_of("orders"), CONTENT), "local-file-system/team")
        storages.close()
        (fetched,) = Remote(open_place("local-file-system/team"), there).pull(key_of("orders"))
        assert content_of(there, fetched) == CONTENT

    @pytest.mark.parametrize("name", ["local-file-system/nobody-saved-this", "no-such-type/team"])
    def test_an_unknown_one_is_refused_with_the_remedy(self, configured, name):
        with pytest.raises(UsageProblem, match=f"no Prefect block '{name}'") as caught:
            open_place(name)
        assert "fsspec URL" in caught.value.remedy

    def test_one_that_is_no_storage_is_refused(self, configured):
        from prefect.blocks.system import Secret

        Secret(value="x").save("password", overwrite=True, _sync=True)
        with pytest.raises(UsageProblem, match="cannot store files"):
            open_place("secret/password")
