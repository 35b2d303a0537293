"""A second store for the same entries: a bucket, a shared folder, whatever Prefect or fsspec can write to.

The local store comes first. What it lacks is looked for here before a cell runs (:meth:`Remote.pull`), and what
a cell made is sent here in the background (:class:`Uploads`). Layout, below the storage's root::

    entries/<key>            signature and manifest of one run; <key>-1 ... where runs saw other files
    files/<digest>.arrow     the files of all entries, each content once

An entry is there when its object under ``entries`` is, which is written last and goes first. Files are named after
their content, so that an upload cut short, or two at once, can never mix. What is fetched is verified in full
before it becomes an entry of the local store, and keeps its own signature: another user's pickles
stay closed until that user's key is trusted.

A hit of the local store is sent as well, where the storage lacks it: who names a storage wants it complete, also of
what was computed before it was named. It costs one small request in the background for each entry and session.

A storage is named by an fsspec URL (``s3://bucket/cache``, ``file:///mnt/team``) or as a Prefect block
(``s3-bucket/team-cache``). Blocks that can only read and write have no listing and no eviction. In a folder,
what is made follows the folder's own rule: where its group may write, so it may there (``chmod 2770``).
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import os
import queue
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from .digests import file_digest
from .errors import CacheError, Damaged, NotFound, StoreUnwritable, Untrusted, UsageProblem
from .store.entries import VARIANTS
from .store.manifest import MANIFEST, SIGNATURE, from_bytes
from .store.sharing import like_parent

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from .model import Digest, Entry, Manifest, Observed, Output
    from .store import Store

FAREWELL = 10.0
"""Seconds that the end of the process waits for uploads."""

SETTLED = 86_400.0
"""Seconds after which a file that no entry names belongs to no upload that is still on its way."""

PATIENCE = 10.0
"""Seconds that a cell waits for a storage's first word; their libraries wait for minutes where nobody answers."""

REST = 60.0
"""Seconds for which a storage that could not be reached is not asked again before a cell runs."""

ROOM = 256
"""Uploads that may wait; more are left to the next time the entry is used."""


UNREACHED = "check the address, the credentials and the network; the cell runs without it"

T = TypeVar("T")


class Place(Protocol):
    """Objects by name."""

    url: str

    def read(self, name: str) -> bytes:
        """Return an object; :class:`FileNotFoundError` where there is none."""

    def fetch(self, name: str, target: Path) -> None:
        """Copy an object into a new file."""

    def write(self, name: str, content: bytes) -> None:
        """Make or replace an object."""

    def send(self, name: str, source: Path) -> None:
        """Make an object of a file, unless it is there."""

    def names(self, folder: str) -> list[str]:
        """Return the names of the objects in a folder."""

    def delete(self, name: str) -> None:
        """Remove an object, if it is there."""

    def written(self, name: str) -> float | None:
        """Return when an object was written, in seconds since the epoch; None where nobody knows."""


class FilesystemPlace:
    """A folder of an fsspec file system."""

    def __init__(self, filesystem: Any, root: str) -> None:
        self.url = cast("str", filesystem.unstrip_protocol(root))
        self._fs = filesystem
        self._root = root.rstrip("/")

    def read(self, name: str) -> bytes:
        """Return an object."""
        return cast("bytes", self._fs.cat_file(self._path(name)))

    def fetch(self, name: str, target: Path) -> None:
        """Copy an object into a new file."""
        self._fs.get_file(self._path(name), str(target))

    def write(self, name: str, content: bytes) -> None:
        """Make or replace an object; in a folder by a rename, so that nobody reads half of it."""
        self._whole(name, lambda path: self._fs.pipe_file(path, content))

    def send(self, name: str, source: Path) -> None:
        """Make an object of a file, unless one of its size is there."""
        size = source.stat().st_size
        if self._size(name) != size:
            self._whole(name, lambda path: self._fs.put_file(str(source), path))
            if (sent := self._size(name, fresh=True)) != size:
                raise OSError(f"{self.url}/{name} has {sent} bytes after {size} were sent")

    def _whole(self, name: str, put: Callable[[str], object]) -> None:
        path = self._path(name)
        if "file" not in self._protocols:
            put(path)  # object stores show an object when all of it is there
            return
        folder = Path(path).parent
        if not folder.is_dir():
            Path(self._root).mkdir(parents=True, exist_ok=True)
            folder.mkdir(exist_ok=True)
            like_parent(folder)
        draft = Path(f"{path}.{os.getpid()}-{threading.get_native_id()}.part")
        try:
            put(str(draft))
            like_parent(draft)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    @property
    def _protocols(self) -> Collection[str]:
        protocol = self._fs.protocol
        return (protocol,) if isinstance(protocol, str) else cast("Collection[str]", protocol)

    def _size(self, name: str, *, fresh: bool = False) -> int | None:
        if fresh:
            self._fs.invalidate_cache()
        try:
            return cast("int", self._fs.info(self._path(name))["size"])
        except FileNotFoundError:
            return None

    def names(self, folder: str) -> list[str]:
        """Return the names of the objects in a folder."""
        self._fs.invalidate_cache()
        try:
            found = self._fs.ls(self._path(folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted(f"{folder}/{path.rpartition('/')[2]}" for path in found if not path.endswith((".part", "/")))

    def delete(self, name: str) -> None:
        """Remove an object, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def written(self, name: str) -> float | None:
        """Return when an object was written, where the file system tells it."""
        try:
            when = self._fs.modified(self._path(name))
        except (FileNotFoundError, NotImplementedError):
            return None
        return when.timestamp() if isinstance(when, datetime) else None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


class BlockPlace:
    """A Prefect block that reads and writes, and can do no more."""

    def __init__(self, block: Any, url: str) -> None:
        self.url = url
        self._block = block
        self._sent: set[str] = set()

    def read(self, name: str) -> bytes:
        """Return an object; blocks say in many ways that there is none."""
        try:
            return cast("bytes", _now(self._block.read_path, name))
        except FileNotFoundError:
            raise
        except Exception as error:
            # Each block passes on what its own library raises: ValueError, ClientError, NotFound ...
            raise FileNotFoundError(f"{self.url}/{name}: {error}") from error

    def fetch(self, name: str, target: Path) -> None:
        """Copy an object into a new file."""
        target.write_bytes(self.read(name))

    def write(self, name: str, content: bytes) -> None:
        """Make or replace an object."""
        _now(self._block.write_path, name, content)

    def send(self, name: str, source: Path) -> None:
        """Make an object of a file."""
        if name not in self._sent:
            self.write(name, source.read_bytes())
            self._sent.add(name)

    def names(self, folder: str) -> list[str]:
        """Refuse: a block has no listing."""
        raise NotFound(
            f"{self.url} cannot list {folder}", remedy="name the storage by its fsspec URL to list and evict"
        )

    def delete(self, name: str) -> None:
        """Refuse: a block cannot delete."""
        raise StoreUnwritable(f"{self.url} cannot delete {name}", remedy="name the storage by its fsspec URL")

    def written(self, name: str) -> float | None:  # noqa: ARG002 - one signature for all places
        """Return None: a block does not tell."""
        return None


def _now(method: Callable[..., object], *arguments: object) -> object:
    """Call a block's method and wait, also where a kernel's loop runs and Prefect would return a coroutine."""
    import inspect

    from prefect.utilities.asyncutils import run_coro_as_sync

    done = method(*arguments)
    return run_coro_as_sync(done) if inspect.iscoroutine(done) else done


def open_place(storage: str) -> Place:
    """Return the storage of that name.

    Raises
    ------
    UsageProblem
        There is none such, or what it needs is not installed.
    StoreUnwritable
        It cannot be reached.
    """
    if "://" in storage:
        return _by_url(storage)
    if storage.count("/") == 1:
        return _by_block(storage)
    raise UsageProblem(
        f"{storage!r} names no storage",
        remedy="give an fsspec URL such as s3://bucket/cache, or a Prefect block such as s3-bucket/team-cache",
    )


def _by_url(url: str) -> FilesystemPlace:
    import fsspec  # type: ignore[import-untyped]

    try:
        return FilesystemPlace(*fsspec.url_to_fs(url))
    except ImportError as error:
        raise UsageProblem(f"{url} needs a package: {error}", remedy="for S3: pip install 's3fs'") from error
    except ValueError as error:
        raise UsageProblem(f"{url} names no storage: {error}") from error


def _by_block(name: str) -> Place:
    import httpx
    from prefect.blocks.core import Block
    from prefect.filesystems import LocalFileSystem, RemoteFileSystem
    from prefect.settings import get_current_settings

    if not get_current_settings().api.url:
        # Prefect would start a server of its own to look there.
        raise UsageProblem(
            f"the Prefect block {name!r} is kept on a Prefect server, and none is configured",
            remedy="set PREFECT_API_URL, or give an fsspec URL such as s3://bucket/cache",
        )
    try:
        block = _now(lambda: Block.load(name))
    except ValueError as error:
        kind, _, own = name.partition("/")
        raise UsageProblem(
            f"no Prefect block {name!r} can be loaded: {error}",
            remedy=f"save one as {own!r} of type {kind!r} on the server in PREFECT_API_URL, or give an fsspec URL",
        ) from error
    except (httpx.HTTPError, RuntimeError) as error:
        raise StoreUnwritable(f"the Prefect server that knows {name!r} does not answer: {error}") from error
    if isinstance(block, RemoteFileSystem):
        return FilesystemPlace(block.filesystem, block._resolve_path(""))  # noqa: SLF001  it has no public name
    if isinstance(block, LocalFileSystem):
        return _by_url(Path(block.basepath or Path.cwd()).expanduser().absolute().as_uri())
    if not (hasattr(block, "read_path") and hasattr(block, "write_path")):
        raise UsageProblem(f"the block {name!r} cannot store files", remedy="use a file system or bucket block")
    return BlockPlace(block, f"block:{name}")


@dataclass(frozen=True, slots=True)
class RemoteEntry:
    """One entry of a storage: under which name, and what it says of itself."""

    name: str
    manifest: Manifest

    @property
    def files(self) -> frozenset[str]:
        """The names of its files."""
        return frozenset(_file(output) for output in self.manifest.outputs)

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(output.size for output in self.manifest.outputs)


@dataclass(frozen=True, slots=True)
class RemoteCatalog:
    """What a storage holds; one damaged entry does not hide the others."""

    entries: tuple[RemoteEntry, ...]
    problems: tuple[str, ...] = ()
    """Names of the entries that cannot be read."""


@dataclass(frozen=True, slots=True)
class RemotePlan:
    """Entries to evict, with the reason for each, and files that no entry names; to show before it is carried out."""

    evict: tuple[tuple[RemoteEntry, str], ...]
    sweep: tuple[str, ...] = ()


class Remote:
    """The entries of one storage.

    Parameters
    ----------
    place
        The storage, see :func:`open_place`.
    store
        The local store.
    """

    def __init__(self, place: Place, store: Store) -> None:
        self.place = place
        self.store = store

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        """Turn whatever a storage's library raises into one error that says which storage it was."""
        try:
            yield
        except (Damaged, NotFound, StoreUnwritable, UsageProblem):
            raise
        except Exception as error:
            # boto, aiohttp, gcsfs, paramiko ... each has exceptions of its own.
            raise StoreUnwritable(f"{self.place.url}: {type(error).__name__}: {error}", remedy=UNREACHED) from error

    def pull(self, key: Digest, patience: float | None = None) -> tuple[Entry, ...]:
        """Fetch the entries of a key into the local store; return them.

        `patience` is for the storage's first word, in seconds; the files take as long as they take.

        Raises
        ------
        StoreUnwritable
            The storage cannot be reached.
        Damaged
            What it holds is not what it says.
        """
        fetched: list[Entry] = []
        seen: list[tuple[Observed, ...]] = []
        with self._reaching():
            for name in _slots(key):
                try:
                    content = _within(patience, partial(self.place.read, f"entries/{name}"), self.place.url)
                except FileNotFoundError:
                    break
                signature, data = _unpack(content)
                manifest = from_bytes(data)
                if manifest.observed in seen and not self._is_trusted(data, signature):
                    continue  # another user's run of the very same: it must not take the place of one that is trusted
                seen.append(manifest.observed)
                with contextlib.suppress(FileNotFoundError):  # evicted there meanwhile
                    fetched.append(self._fetch(key, manifest, data, signature))
        return tuple(fetched)

    def _fetch(self, key: Digest, manifest: Manifest, data: bytes, signature: bytes) -> Entry:
        if manifest.key.digest != key:
            raise Damaged(f"{self.place.url} holds another key's entry under {key}")
        with self.store.draft(key) as draft:
            for output in manifest.outputs:
                target = draft.path / output.file
                if target.parent != draft.path:
                    raise Damaged(f"{self.place.url} names a file {output.file!r}")
                self.place.fetch(_file(output), target)
                target.chmod(0o600)
                if file_digest(target)[0] != output.digest:
                    raise Damaged(f"{self.place.url}/{_file(output)} is not what the entry says")
            return self.store.publish(draft, manifest, signed=(data, signature))

    def push(self, entry: Entry, progress: Callable[[int], None] = lambda _: None) -> None:
        """Send an entry; nothing is sent that is there already.

        Raises
        ------
        StoreUnwritable
            The storage cannot be reached or written.
        """
        content = _pack((entry.path / SIGNATURE).read_bytes(), (entry.path / MANIFEST).read_bytes())
        with self._reaching():
            name = self._slot(entry.manifest, content)
            if name is None:
                return
            for output in entry.manifest.outputs:
                self.place.send(_file(output), entry.path / output.file)
                progress(output.size)
            self.place.write(f"entries/{name}", content)

    def _slot(self, manifest: Manifest, content: bytes) -> str | None:
        """Return the name under which an entry belongs; None where it is there.

        It replaces a run that saw the same, but not that of a user whose key is not held here: each serves those who
        trust it.
        """
        slots = _slots(manifest.key.digest)
        for name in slots:
            try:
                there = self.place.read(f"entries/{name}")
                if there == content:
                    return None
                signature, data = _unpack(there)
                if from_bytes(data).observed == manifest.observed and self._is_trusted(data, signature):
                    return name
            except (FileNotFoundError, Damaged):
                return name
        return slots[0]

    def _is_trusted(self, data: bytes, signature: bytes) -> bool:
        try:
            return self.store.trust.verify(data, signature)
        except Untrusted:  # a key file that others can read: the store says so where it matters
            return False

    def catalog(self) -> RemoteCatalog:
        """Return all that the storage holds, the newest run first."""
        found: list[RemoteEntry] = []
        damaged: list[str] = []
        with self._reaching():
            for place in self.place.names("entries"):
                name = place.removeprefix("entries/")
                try:
                    found.append(RemoteEntry(name, from_bytes(_unpack(self.place.read(place))[1])))
                except Damaged:
                    damaged.append(name)
                except FileNotFoundError:
                    continue  # evicted there meanwhile
        return RemoteCatalog(tuple(sorted(found, key=lambda e: -e.manifest.run.started)), tuple(damaged))

    def evict(self, entries: Sequence[RemoteEntry]) -> int:
        """Evict entries, and those of their files that no other entry has; return the bytes freed."""
        names = {entry.name for entry in entries}
        kept = {file for entry in self.catalog().entries if entry.name not in names for file in entry.files}
        sizes = {_file(output): output.size for entry in entries for output in entry.manifest.outputs}
        with self._reaching():
            for name in names:
                self.place.delete(f"entries/{name}")
            for file in sizes.keys() - kept:
                self.place.delete(file)
        return sum(size for file, size in sizes.items() if file not in kept)

    def remove_damaged(self, name: str) -> None:
        """Delete an entry that cannot be read; its files go with the next sweep."""
        with self._reaching():
            self.place.delete(f"entries/{name}")

    def plan(
        self, *, max_age: float | None = None, max_bytes: int | None = None, now: float | None = None
    ) -> RemotePlan:
        """Choose what goes: what is expired, what ran longer ago than `max_age`, then the oldest over `max_bytes`.

        A storage does not know when an entry was last used, so its age is that of its run.
        """
        now = time.time() if now is None else now
        catalog = self.catalog()
        total = sum(entry.size for entry in catalog.entries)
        chosen: list[tuple[RemoteEntry, str]] = []
        for entry in reversed(catalog.entries):
            reason = _reason(entry, now, max_age)
            if not reason and max_bytes is not None and total > max_bytes:
                reason = "the oldest, over the size limit"
            if reason:
                chosen.append((entry, reason))
                total -= entry.size
        return RemotePlan(tuple(chosen), self._leftovers(catalog, now))

    def _leftovers(self, catalog: RemoteCatalog, now: float) -> tuple[str, ...]:
        """Return the files that no entry names and that no upload is about to name.

        Where an entry cannot be read nobody knows what it names: nothing is left over then.
        """
        if catalog.problems:
            return ()
        named = {file for entry in catalog.entries for file in entry.files}
        with self._reaching():
            loose = [name for name in self.place.names("files") if name not in named]
            written = {name: self.place.written(name) for name in loose}
        return tuple(name for name, when in written.items() if when is not None and now - when > SETTLED)

    def carry_out(self, plan: RemotePlan) -> int:
        """Evict and sweep what was planned; return the bytes that the evicted entries gave back."""
        freed = self.evict([entry for entry, _ in plan.evict])
        with self._reaching():
            for file in plan.sweep:
                self.place.delete(file)
        return freed


def _within(seconds: float | None, ask: Callable[[], T], whom: str) -> T:
    """Return an answer, or raise :class:`StoreUnwritable` where there is none in time; who asked goes on without."""
    if seconds is None:
        return ask()
    answer: Future[T] = Future()

    def work() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:  # noqa: BLE001  raised again where it was asked for
            answer.set_exception(error)

    # A context of the caller's: Prefect's settings are in it.
    threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True).start()
    try:
        return answer.result(seconds)
    except FutureTimeout:
        if answer.done():
            raise
        raise StoreUnwritable(f"{whom} did not answer within {seconds:g} s", remedy=UNREACHED) from None


def _reason(entry: RemoteEntry, now: float, max_age: float | None) -> str:
    run, ttl = entry.manifest.run, entry.manifest.options.get("ttl")
    if isinstance(ttl, int | float) and run.started + run.seconds + ttl < now:
        return "expired"
    return "older than the age limit" if max_age is not None and now - run.started > max_age else ""


class Uploads:
    """Sends entries in the background, one after the other, each once.

    Parameters
    ----------
    reach
        Gives where to, in the background: what a storage needs takes a while to import and to connect.
    on_problem
        Called, in the background, with what went wrong.
    """

    def __init__(self, reach: Callable[[], Remote], on_problem: Callable[[str], None] = lambda _: None) -> None:
        self._reach = reach
        self.sent = 0
        self.waiting = 0
        """Bytes that have arrived, and bytes still to send."""
        self._on_problem = on_problem
        self._queue: queue.Queue[Entry | None] = queue.Queue(ROOM)
        self._known: set[str] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="prefect_cache-uploads", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def add(self, entry: Entry) -> None:
        """Send an entry soon; returns at once."""
        with self._lock:
            if str(entry.path) in self._known:
                return
            self._known.add(str(entry.path))
            try:
                self._queue.put_nowait(entry)
            except queue.Full:
                self._known.discard(str(entry.path))
                return
            self.waiting += entry.size

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until all has been sent or has failed, at most so long; return whether it has."""
        done = threading.Event()

        def join() -> None:
            self._queue.join()
            done.set()

        threading.Thread(target=join, daemon=True).start()
        return done.wait(seconds)

    def close(self) -> None:
        """Send what waits, as far as there is time, and end."""
        atexit.unregister(self.close)
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)
        self._thread.join(FAREWELL)

    def _work(self) -> None:
        while (entry := self._queue.get()) is not None:
            try:
                self._reach().push(entry, self._arrived)
            except (CacheError, OSError) as error:
                self._known.discard(str(entry.path))
                remedy = f"; {error.remedy}" if isinstance(error, CacheError) and error.remedy else ""
                self._on_problem(f"{entry.manifest.name} was not sent: {error}{remedy}")
            finally:
                self.waiting -= entry.size
                self._queue.task_done()
        self._queue.task_done()

    def _arrived(self, size: int) -> None:
        self.sent += size


class Storages:
    """The storages that a session's cells name, each reached when it is first needed.

    Nothing here raises for a storage's sake: what goes wrong is told, once for each storage and trouble, and the cell
    runs without it.

    Parameters
    ----------
    store
        The local store.
    tell
        Called with a sentence for the user, from any thread.
    """

    def __init__(self, store: Store, tell: Callable[[str], None]) -> None:
        self._store = store
        self._tell = tell
        self._told: set[str] = set()
        self._remotes: dict[str, Remote] = {}
        self._uploads: dict[str, Uploads] = {}
        self._resting: dict[str, float] = {}
        self._lock = threading.RLock()

    def fetch(self, key: Digest, storage: str) -> bool:
        """Bring the entries of a key from a storage into the local store; return whether there were any."""
        if time.monotonic() < self._resting.get(storage, 0.0):
            return False
        try:
            remote = _within(PATIENCE, partial(self._remote, storage), storage)
            return bool(remote.pull(key, PATIENCE))
        except CacheError as error:
            if isinstance(error, StoreUnwritable):
                self._resting[storage] = time.monotonic() + REST
            self._say(f"{error.message}; {error.remedy}" if error.remedy else error.message)
            return False

    def keep(self, entry: Entry, storage: str) -> None:
        """Send an entry to a storage, in the background, unless it is there."""
        if storage not in self._uploads:
            here = contextvars.copy_context()  # Prefect's settings are in it, and blocks are looked up by them
            self._uploads[storage] = Uploads(lambda: here.run(self._remote, storage), self._say)
        self._uploads[storage].add(entry)

    def close(self) -> None:
        """End all uploads, as far as there is time for them."""
        for uploads in self._uploads.values():
            uploads.close()

    def _remote(self, storage: str) -> Remote:
        with self._lock:
            if storage not in self._remotes:
                self._remotes[storage] = Remote(open_place(storage), self._store)
            return self._remotes[storage]

    def _say(self, trouble: str) -> None:
        if trouble not in self._told:
            self._told.add(trouble)
            self._tell(trouble)


def _slots(key: Digest) -> list[str]:
    return [key, *(f"{key}-{number}" for number in range(1, VARIANTS))]


def _file(output: Output) -> str:
    return f"files/{output.digest}{Path(output.file).suffix}"


def _pack(signature: bytes, manifest: bytes) -> bytes:
    """Join signature and manifest in one object, so that neither is ever another entry's."""
    return signature.hex().encode() + b"\n" + manifest


def _unpack(content: bytes) -> tuple[bytes, bytes]:
    signature, _, manifest = content.partition(b"\n")
    try:
        return bytes.fromhex(signature.decode("ascii")), manifest
    except ValueError as error:
        raise Damaged("an entry of the storage has no signature line") from error
