"""A second store for the same entries: a bucket, a shared folder, whatever Prefect or fsspec can write to.

The local store comes first. What it lacks is looked for here before a cell runs (:meth:`Remote.pull`), and what
a cell made is sent here in the background (:class:`Uploads`). Layout, below the storage's root::

    entries/<key>            signature and manifest of one run; <key>-1 ... where runs saw other files
    files/<digest>.arrow     the files of all entries, each content once

An entry is there when its object under ``entries`` is, which is written last and goes first. Files are named after
their content, so that an upload cut short, or two at once, can never mix. What is fetched is verified in full
before it becomes an entry of the local store, and keeps its own signature: another user's pickles
stay closed until that user's key is trusted.

A storage is named by an fsspec URL (``s3://bucket/cache``, ``file:///mnt/team``) or as a Prefect block
(``s3-bucket/team-cache``). Blocks that can only read and write have no listing and no eviction.
"""

from __future__ import annotations

import atexit
import contextlib
import queue
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from .digests import file_digest
from .errors import CacheError, Damaged, NotFound, StoreUnwritable, UsageProblem
from .store.entries import VARIANTS
from .store.manifest import MANIFEST, SIGNATURE, from_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from .model import Digest, Entry, Manifest, Output
    from .store import Store

FAREWELL = 10.0
"""Seconds that the end of the process waits for uploads."""

ROOM = 256
"""Uploads that may wait; more are left to the next time the entry is used."""


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
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        draft = f"{path}.{threading.get_native_id()}.part"
        try:
            put(draft)
            Path(draft).replace(path)
        finally:
            Path(draft).unlink(missing_ok=True)

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
            remedy = "check the address, the credentials and the network; the cell runs without it"
            raise StoreUnwritable(f"{self.place.url}: {type(error).__name__}: {error}", remedy=remedy) from error

    def pull(self, key: Digest) -> tuple[Entry, ...]:
        """Fetch the entries of a key into the local store; return them.

        Raises
        ------
        StoreUnwritable
            The storage cannot be reached.
        Damaged
            What it holds is not what it says.
        """
        fetched: list[Entry] = []
        with self._reaching():
            for name in _slots(key):
                try:
                    content = self.place.read(f"entries/{name}")
                except FileNotFoundError:
                    break
                with contextlib.suppress(FileNotFoundError):  # evicted there meanwhile
                    fetched.append(self._fetch(key, content))
        return tuple(fetched)

    def _fetch(self, key: Digest, content: bytes) -> Entry:
        signature, data = _unpack(content)
        manifest = from_bytes(data)
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
        """Return the name under which an entry belongs; None where it is there."""
        slots = _slots(manifest.key.digest)
        for name in slots:
            try:
                there = self.place.read(f"entries/{name}")
                if there == content:
                    return None
                if from_bytes(_unpack(there)[1]).observed == manifest.observed:
                    return name
            except (FileNotFoundError, Damaged):
                return name
        return slots[0]

    def entries(self) -> tuple[RemoteEntry, ...]:
        """Return all entries of the storage; damaged ones are left out, and can be evicted by name."""
        found: list[RemoteEntry] = []
        with self._reaching():
            for name in self.place.names("entries"):
                with contextlib.suppress(Damaged, FileNotFoundError):
                    manifest = from_bytes(_unpack(self.place.read(name))[1])
                    found.append(RemoteEntry(name.removeprefix("entries/"), manifest))
        return tuple(found)

    def evict(self, entries: Sequence[RemoteEntry]) -> int:
        """Evict entries, and those of their files that no other entry has; return the bytes freed."""
        names = {entry.name for entry in entries}
        kept = {file for entry in self.entries() if entry.name not in names for file in entry.files}
        sizes = {_file(output): output.size for entry in entries for output in entry.manifest.outputs}
        with self._reaching():
            for name in names:
                self.place.delete(f"entries/{name}")
            for file in sizes.keys() - kept:
                self.place.delete(file)
        return sum(size for file, size in sizes.items() if file not in kept)

    def plan(
        self, *, max_age: float | None = None, max_bytes: int | None = None, now: float
    ) -> tuple[RemoteEntry, ...]:
        """Choose what to evict: what is older than `max_age`, then the oldest over `max_bytes`."""
        entries = sorted(self.entries(), key=lambda entry: entry.manifest.run.started)
        total = sum(entry.size for entry in entries)
        chosen: list[RemoteEntry] = []
        for entry in entries:
            too_old = max_age is not None and now - entry.manifest.run.started > max_age
            if too_old or (max_bytes is not None and total > max_bytes):
                chosen.append(entry)
                total -= entry.size
        return tuple(chosen)


class Uploads:
    """Sends entries in the background, one after the other, each once.

    Parameters
    ----------
    remote
        Where to.
    on_problem
        Called, in the background, with what went wrong.
    """

    def __init__(self, remote: Remote, on_problem: Callable[[str], None] = lambda _: None) -> None:
        self.remote = remote
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
                self.remote.push(entry, self._arrived)
            except (StoreUnwritable, Damaged, OSError) as error:
                self._known.discard(str(entry.path))
                self._on_problem(f"{entry.manifest.name} was not sent: {error}")
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
        self._open: dict[str, Uploads] = {}

    def fetch(self, key: Digest, storage: str) -> bool:
        """Bring the entries of a key from a storage into the local store; return whether there were any."""
        try:
            return bool(self._uploads(storage).remote.pull(key))
        except CacheError as error:
            self._problem(error)
            return False

    def keep(self, entry: Entry, storage: str) -> None:
        """Send an entry to a storage, in the background."""
        try:
            self._uploads(storage).add(entry)
        except CacheError as error:
            self._problem(error)

    def close(self) -> None:
        """End all uploads, as far as there is time for them."""
        for uploads in self._open.values():
            uploads.close()

    def _uploads(self, storage: str) -> Uploads:
        if storage not in self._open:
            self._open[storage] = Uploads(Remote(open_place(storage), self._store), self._say)
        return self._open[storage]

    def _problem(self, error: CacheError) -> None:
        self._say(f"{error.message}; {error.remedy}" if error.remedy else error.message)

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
