"""How a frame goes to the disk and comes back, and how it is told from another: ours, the peers', and physics'."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from prefect_cache.codecs import codec_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Way:
    """One way to keep a value in a folder; `largest` is the size in MB up to which it is asked to."""

    name = ""
    largest = float("inf")
    fast = False
    """Whether it is quick enough to be measured three times at any size."""
    slow = False
    """Whether a hundred megabytes take it seconds: then it is measured once."""

    def can(self, kind: str) -> bool:
        """Tell whether a value of this kind can be kept."""
        return True

    def ready(self) -> contextlib.AbstractContextManager[object]:
        """Return what is entered before anything is measured."""
        return contextlib.nullcontext()

    def save(self, value: Any, folder: Path) -> None:
        """Keep a value in an empty folder."""
        raise NotImplementedError

    def restore(self, folder: Path) -> Any:
        """Return the value."""
        raise NotImplementedError


class Ours(Way):
    name = "prefect_cache"
    fast = True

    def save(self, value: Any, folder: Path) -> None:
        codec_for(value).write(value, folder / "v.arrow")

    def restore(self, folder: Path) -> Any:
        return codec_for(pd.DataFrame()).read(folder / "v.arrow", {}, trusted=True)


class Pickle(Way):
    name = "pickle 5"

    def save(self, value: Any, folder: Path) -> None:
        with (folder / "v").open("wb") as file:
            pickle.dump(value, file, protocol=5)

    def restore(self, folder: Path) -> Any:
        with (folder / "v").open("rb") as file:
            return pickle.load(file)


class Joblib(Way):
    name = "joblib"

    def save(self, value: Any, folder: Path) -> None:
        import joblib

        joblib.dump(value, folder / "v")

    def restore(self, folder: Path) -> Any:
        import joblib

        return joblib.load(folder / "v")


class JoblibMapped(Joblib):
    name = "joblib mmap"

    def restore(self, folder: Path) -> Any:
        import joblib

        return joblib.load(folder / "v", mmap_mode="c")


class Feather(Way):
    name = "Feather lz4"

    def save(self, value: Any, folder: Path) -> None:
        value.to_feather(folder / "v", compression="lz4")

    def restore(self, folder: Path) -> Any:
        return pd.read_feather(folder / "v")


class Parquet(Way):
    name = "Parquet"

    def save(self, value: Any, folder: Path) -> None:
        value.to_parquet(folder / "v")

    def restore(self, folder: Path) -> Any:
        return pd.read_parquet(folder / "v")


class Diskcache(Way):
    name = "diskcache"

    def save(self, value: Any, folder: Path) -> None:
        import diskcache

        with diskcache.Cache(folder, size_limit=2**40) as cache:
            cache["v"] = value

    def restore(self, folder: Path) -> Any:
        import diskcache

        with diskcache.Cache(folder, size_limit=2**40) as cache:
            return cache["v"]


class Prefect(Way):
    """A cached task with Prefect's default serializer: the run that stores its result, and the one that hits it."""

    name = "Prefect task"
    largest = 100  # a gigabyte takes a minute and a half, and 6 GB of memory
    slow = True

    @contextlib.contextmanager
    def ready(self) -> Iterator[None]:
        from prefect import task

        from offline import offline

        with tempfile.TemporaryDirectory() as folder, offline(Path(folder)):
            task(lambda: 0, persist_result=False)()
            yield

    def _run(self, folder: Path, value: Any = None) -> Any:
        from prefect import task
        from prefect.cache_policies import CachePolicy
        from prefect.filesystems import LocalFileSystem

        policy = CachePolicy.from_cache_key_fn(lambda *_: folder.name)
        cached = task(lambda: value, persist_result=True, cache_policy=policy, cache_result_in_memory=False)
        cached.result_storage = LocalFileSystem(basepath=str(folder))  # as an argument it had to be on a server
        state = cached(return_state=True)
        return state.result(_sync=True) if state.name == "Cached" else None

    def save(self, value: Any, folder: Path) -> None:
        self._run(folder, value)

    def restore(self, folder: Path) -> Any:
        return self._run(folder)


class Marimo(Way):
    """What marimo's persistent cache does with a cell's variables."""

    name = "marimo"

    def _loader(self, folder: Path) -> Any:
        from marimo._save.loaders import PickleLoader
        from marimo._save.stores import FileStore

        return PickleLoader("bench", store=FileStore(str(folder)))

    def save(self, value: Any, folder: Path) -> None:
        from marimo._save.cache import Cache

        empty = Cache.empty(key=self._key(), defs={"v"}, stateful_refs=set())
        empty.defs["v"] = value
        empty.hit = True
        self._loader(folder).save_cache(empty)

    def restore(self, folder: Path) -> Any:
        return self._loader(folder).load_cache(self._key()).defs["v"]

    @staticmethod
    def _key() -> Any:
        from marimo._save.hash import HashKey

        return HashKey(hash="0123456789", cache_type="ContentAddressed")


class Limit(Way):
    """What no way can beat that writes the bytes, or that copies them."""

    name = "physical limit"

    def __init__(self) -> None:
        self._kept: np.ndarray | None = None
        self._room: np.ndarray | None = None

    def can(self, kind: str) -> bool:
        return kind == "numeric"

    def save(self, value: pd.DataFrame, folder: Path) -> None:
        block = value.to_numpy(copy=False).T
        with (folder / "v").open("wb", buffering=0) as file:
            view = memoryview(block).cast("B")
            while view:
                view = view[os.write(file.fileno(), view) :]
        self._kept, self._room = block, np.zeros_like(block)

    def restore(self, folder: Path) -> Any:
        assert self._kept is not None
        assert self._room is not None
        np.copyto(self._room, self._kept)
        return self._room


def ways() -> list[Way]:
    """Return all ways whose packages are here."""
    found: list[Way] = [Ours(), Limit(), Pickle(), Joblib(), JoblibMapped(), Feather(), Parquet(), Prefect()]
    if find_spec("diskcache"):
        found.append(Diskcache())
    if find_spec("marimo"):
        found.append(Marimo())
    return found


def clean(folder: Path) -> Path:
    """Return a folder with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def hashes() -> dict[str, Callable[[pd.DataFrame], Any]]:
    """Return the ways to tell a frame from another, by name."""

    def ours(frame: pd.DataFrame) -> Any:
        from prefect_cache.cells.fingerprint import fingerprint

        return fingerprint(frame)

    def joblib_hash(frame: pd.DataFrame) -> Any:
        import joblib

        return joblib.hash(frame)

    def pandas_hash(frame: pd.DataFrame) -> Any:
        return pd.util.hash_pandas_object(frame).sum()

    def prefect_hash(frame: pd.DataFrame) -> Any:
        from prefect.utilities.hashing import hash_objects

        return hash_objects(frame)

    def total(frame: pd.DataFrame) -> Any:
        """Read every byte once: the limit."""
        return [int(np.add.reduce(part)) for part in _buffers(frame)]

    return {
        "prefect_cache": ours,
        "joblib.hash": joblib_hash,
        "hash_pandas_object": pandas_hash,
        "Prefect hash_objects": prefect_hash,
        "np.sum (limit)": total,
    }


def _buffers(frame: pd.DataFrame) -> list[np.ndarray]:
    """Return a frame's memory as whole numbers of eight bytes."""
    found = []
    for block in frame._mgr.blocks:
        values = block.values  # noqa: PD011 - a block, not a frame
        if isinstance(values, np.ndarray) and values.dtype != object:
            found += [values.reshape(-1, order="A").view(np.int64)]
        elif hasattr(values, "_pa_array"):
            buffers = (b for chunk in values._pa_array.chunks for b in chunk.buffers() if b is not None and b.size >= 8)
            found += [np.frombuffer(b, np.int64, b.size // 8) for b in buffers]
        elif hasattr(values, "_data"):
            found += [values._data.view(np.int64), values._mask[: len(values) // 8 * 8].view(np.int64)]
        elif hasattr(values, "_ndarray") and values._ndarray.dtype != object:
            flat = values._ndarray.reshape(-1)
            found += [flat.view(np.uint8)[: flat.nbytes // 8 * 8].view(np.int64)]
    return found
