"""What a cell depends on outside of the namespace, seen while it runs, and verified before a hit.

Python's audit events tell of opened files, listed folders, files made and removed; stand-ins for a few functions
of ``os`` tell who asked whether a file exists, when it changed, where we are and what an environment
variable holds; the kernel tells what native readers and other programs opened (:mod:`~prefect_cache.cells.watch`).
Of texts that a library evaluates (the formula in ``smf.ols("y ~ squared(x)", df)``) the code tells which names it asks
for.

What the kernel tells has no sender: an editor or the Jupyter server may have opened a file as well. So an
opening that Python did not see counts where the cell may be behind it: the file is no program text or notebook, or the
cell names it, or started a program. Depending on a file too many costs a run when it changes; one too few
would cost the truth.
"""

from __future__ import annotations

import functools
import glob
import os
import re
import shlex
import sys
import threading
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any, Final, Literal

from prefect_cache import digests, modules
from prefect_cache.cells import disk, places
from prefect_cache.cells.code import code_facts
from prefect_cache.cells.randomness import NAMES, UNSEEDED, WATCH
from prefect_cache.cells.standins import StandIn, put_originals_back
from prefect_cache.cells.trace import Contradiction, Trace
from prefect_cache.cells.watch import ACCESS, CREATE, DELETE, FOLDER, MODIFY, MOVED_FROM, MOVED_TO, OPEN, Watch
from prefect_cache.model import Change, Observed, Part

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, MutableMapping, Sequence
    from types import FrameType, TracebackType
    from typing import Self

    from prefect_cache.cells.trace import Seen
    from prefect_cache.cells.watch import Event
    from prefect_cache.model import Json

MAX_SECONDS = 1.0
"""How long the walk through a folder that a text names may take, once in a process."""

MAX_FILES = 2000
"""Files in a named folder that count as read where nobody tells which ones are."""

MAX_NAMES = 2000
"""Of so many texts, those that look most like names of files, it is tried whether there is such a file."""

VOLATILE = ("JPY_", "PREFECT_", "KERNEL_", "PYDEVD_", "COLUMNS", "LINES", "_RJEM_")
"""Environment variables that say which kernel this is, not what it computes; read by the tools around it.

The last is how polars tells its allocator what to do, when it is imported.
"""

ENVIRONMENT = "the environment of programs that it starts"
"""The name of what is observed where a cell starts a program, which inherits all variables."""

PROGRAM_TEXT = (".py", ".ipynb", ".md", ".toml", ".cfg", ".lock", ".log", "~", ".swp", ".tmp")
"""Endings of files that editors and servers open at any time."""

_OPENING_BY_FOLDER = frozenset({"_rmtree_safe_fd", "_rmtree_safe_fd_step", "_fwalk"})
"""Functions of the standard library that open a name relative to an open folder, which the event does not tell."""

_MAKING = frozenset({"makedirs", "mkdir", "copy", "copy2", "copyfile", "copytree", "move"})
"""Functions that look at what they are about to make, and make it either way."""

_ISDIR = frozenset({"isdir", "is_dir", "stat"})
"""Functions by which programs ask whether a path is a folder."""

_WRITING_ANYWAY = frozenset({"PIL.Image.save", "polars._utils.various.normalize_filepath"})
"""Functions of packages that ask whether a file is there, and write it unless it is a folder (Pillow 13, polars 1)."""

_DATES = frozenset({"stat", "lstat", "getmtime", "getsize", "getctime", "getatime"})


class Observer:
    """Sees what happens between ``with`` and the end of its block.

    Parameters
    ----------
    strings
        Texts of the cell and its inputs that may name files.
    files
        Patterns of files on which the cell depends besides.
    store_root
        Our own store, whose files are of no account.
    namespace
        The notebook's; functions that a cell took from ``os`` while they were replaced are put right there.
    names
        Names of the notebook on which the cell is known to depend.

    Attributes
    ----------
    observed
        What a later run depends on, once the block has ended.
    tainted
        Why nothing may be stored, or an empty text.
    notes
        What the user should know.
    evaluated
        Names of the notebook that texts asked for which somebody evaluated, where they stood for what they stood for
        when the block began.
    """

    def __init__(
        self,
        *,
        strings: Collection[str] = (),
        files: Collection[str] = (),
        store_root: Path | None = None,
        namespace: MutableMapping[str, object] | None = None,
        names: Collection[str] = (),
    ) -> None:
        self.observed: tuple[Observed, ...] = ()
        self.tainted = ""
        self.notes: tuple[str, ...] = ()
        self.evaluated: set[str] = set()
        self._strings = sorted(set(strings), key=_unlikely)[:MAX_NAMES]
        self._files = sorted(set(files))
        self._namespace = namespace
        # By id: a value that the cell lets go of must not be kept alive.
        self._held = {name: id(value) for name, value in (namespace or {}).items()}
        self._names = frozenset(names)
        self._threads = frozenset[threading.Thread]()
        self._trace = Trace(self._strings, places.ignored(str(store_root.absolute()) if store_root else None))
        self._named: dict[str, Seen] = {}
        self._arguments: set[str] = set()
        self._named_folders: set[str] = set()
        self._watched = {self._trace.cwd}
        self._partly: set[str] = set()
        self._environ: dict[str, bytes | None] = {}
        self._settings: tuple[tuple[str, str], ...] | None = None
        self._environ_before: dict[bytes, bytes] = {}

    def __enter__(self) -> Self:
        global _active  # noqa: PLW0603 - the audit hook belongs to the process
        if _active is not None:
            self.tainted = "it ran inside another cell that is being cached"
            return self
        try:
            self._prepare()
        except Exception as error:  # noqa: BLE001 - what we cannot do is no fault of the cell's: it runs, unseen
            self.fail(f"what the cell does cannot be observed ({type(error).__name__}: {error})")
            return self
        WATCH.begin()
        _active = self
        _listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        global _active  # noqa: PLW0603 - as above
        if _active is not self:
            return
        _active = None
        _stop_listening()
        drawn = WATCH.end()
        if self._namespace is not None:
            put_originals_back(self._namespace)
        if error is None:
            try:
                self._told_by_kernel(_watch().drain())
                self._conclude(drawn)
            except Exception as failure:  # noqa: BLE001 - as in __enter__
                self.fail(f"what the cell did could not be observed ({type(failure).__name__}: {failure})")
        _watch().leave_files()

    # before

    def _prepare(self) -> None:
        _install()
        self._listed_before = {pattern: self._matching(pattern) for pattern in self._files}
        _watch().follow_tree(self._trace.cwd)
        for text in self._strings:
            self._expect(text)
        for path, seen in self._named.items():
            if seen.before.kind == "file" and seen.sample is None:
                sample = disk.sample(path)  # first: it is a reading as well
                seen.sample = sample if _watch().follow_file(path) else None
        self._environ_before = {**_environ_data()}
        self._threads = frozenset(threading.enumerate())
        _watch().drain()
        _watch().overflowed = False

    def _expect(self, text: str) -> None:
        """Watch what a text names, if it names something."""
        path = places.absolute(os.path.expanduser(text), self._trace.cwd)
        found = disk.look(path)
        if found.kind == "folder":
            self._named_folders.add(path)
            self._watch_folder(path)
        elif found.kind == "file" or os.path.isdir(os.path.dirname(path)):
            self._watch_folder(os.path.dirname(path), deep=False)
            real = os.path.realpath(path)
            if real != path:
                self._watch_folder(os.path.dirname(real), deep=False)
            if seen := self._trace.of(path, text):
                self._named[path] = self._named[real] = seen

    def _watch_folder(self, folder: str, *, deep: bool = True) -> None:
        if self._trace.ignores(folder + os.sep) or folder == os.sep:
            return
        self._watched.add(folder)
        whole = _watch().follow_tree(folder, MAX_SECONDS) if deep else _watch().follow(folder)
        if not whole and not self._trace.cwd.startswith(folder):
            self._partly.add(folder)

    def _matching(self, pattern: str) -> list[str]:
        return sorted(glob.glob(os.path.expanduser(pattern), recursive=True))

    # while it runs: called by the audit hook and the stand-ins

    def opened(self, path: str, flags: int, *, importing: bool = False) -> None:
        """Note that Python opens a file; what it imports from the working folder is found relative to it."""
        given, path = path, places.source_of(places.absolute(path))
        if importing and self._trace.contains(path):
            given = os.path.relpath(path, self._trace.cwd)
        if (seen := self._trace.of(path, given)) is None:
            return
        if seen.before.kind == "folder":  # to ask what it is, or to make an unnamed file in it
            self._trace.ask(seen, dated=False)
        elif flags & (os.O_TRUNC | os.O_EXCL):
            if flags & os.O_EXCL:
                self._trace.ask(seen, dated=False)
            self._trace.write(seen)
        elif flags & (os.O_WRONLY | os.O_RDWR):
            self._trace.write(seen, keeping=True)
        else:
            self._trace.read(seen)

    def listed(self, path: str) -> None:
        """Note that Python lists a folder; what is opened in it afterwards may be opened natively."""
        given, path = path, places.absolute(path)
        if seen := self._trace.of(path, given):
            self._trace.list(seen)
            self._watch_folder(path, deep=False)

    def made_folder(self, path: str, *, tolerant: bool) -> None:
        """Note that Python makes a folder."""
        if seen := self._trace.of(places.absolute(path), path):
            self._trace.make_folder(seen, tolerant=tolerant)
            self._watch_folder(os.path.dirname(seen.path), deep=False)

    def removed(self, path: str) -> None:
        """Note that Python removes a file or folder."""
        if seen := self._trace.of(places.absolute(path), path):
            self._trace.remove(seen)

    def renamed(self, source: str, target: str) -> None:
        """Note that Python moves something: it is read, it goes, and it comes."""
        if gone := self._trace.of(places.absolute(source), source):
            if gone.before.kind == "file":
                self._trace.read(gone)
            self._trace.remove(gone)
        if came := self._trace.of(places.absolute(target), target):
            self._trace.write(came)

    def written(self, path: str, *, keeping: bool) -> None:
        """Note that Python changes a file by its name."""
        if seen := self._trace.of(places.absolute(path), path):
            self._trace.write(seen, keeping=keeping)

    def marked(self, path: str) -> None:
        """Note that Python sets the mode, the owner or the dates of a file or folder."""
        if seen := self._trace.of(places.absolute(path), path):
            self._trace.mark(seen)

    def asked(self, path: str, *, dated: bool, only_isdir: bool = False) -> None:
        """Note that a program asks what stands at a path; `only_isdir`: whether it is a folder."""
        seen = self._trace.of(places.absolute(path), path)
        if seen is not None and only_isdir:
            self._trace.ask_isdir(seen)
        elif seen is not None:
            self._trace.ask(seen, dated=dated)

    def started(self, words: Iterable[str]) -> None:
        """Note that another program starts; what its arguments name is watched."""
        self._trace.spawned = True
        if self._settings is None:
            self._settings = _settings()
        for word in words:
            if " " not in word or os.path.exists(word):
                self._expect(word)
                self._arguments.add(places.absolute(os.path.expanduser(word), self._trace.cwd))

    def environment(self, variable: str) -> None:
        """Note that an environment variable is read, unless the cell set it."""
        key = os.fsencode(variable)
        before = self._environ_before.get(key)
        if variable.startswith(VOLATILE) or _environ_data().get(key) != before:
            return
        self._environ.setdefault(variable, before)

    def variable_set(self, key: bytes, value: bytes) -> None:
        """Note that an environment variable is set: to what it was, it leaves no change that a hit could do again."""
        if self._environ_before.get(key) == value:
            self.environment(os.fsdecode(key))

    def whole_environment(self) -> None:
        """Note that all environment variables are read."""
        for key in self._environ_before:
            self.environment(os.fsdecode(key))

    def working_folder(self) -> None:
        """Note that the user's code asks where it is."""
        if seen := self._trace.of(self._trace.cwd, self._trace.cwd):
            seen.asked = True

    def unpickled(self, module: str, name: str) -> None:
        """Note that a pickle asks for something that the notebook defines, out of sight of the source."""
        name = name.partition(".")[0]
        if module == "__main__" and name not in self._names:
            self.fail(f"it unpickles what {name} stands for; let the cell depend on it with --inputs {name}")

    def ran(self, code: CodeType) -> None:
        """Note the names that evaluated code asks for."""
        for name in {read.name for read in code_facts(code).reads}:
            # A name that the cell itself has bound since the block began is no input.
            if self._namespace and name in self._namespace and id(self._namespace[name]) == self._held.get(name):
                self.evaluated.add(name)

    def fail(self, reason: str) -> None:
        """Note that the run cannot be stored."""
        self.tainted = self.tainted or reason

    # afterwards

    def _told_by_kernel(self, events: Sequence[Event]) -> None:
        if _watch().overflowed:
            self.fail("too many files changed while the cell ran to see them all")
        for folder in self._partly & self._named_folders:
            if _watch().working and any(event.path.startswith(folder) for event in events):
                self.fail(f"there are too many folders in {folder} to see what is read in them")
        log = _EventLog(self._trace, self._named, self._named_folders)
        trees = (self._trace.cwd + os.sep, *(folder + os.sep for folder in self._named_folders))
        for event in events:
            if (
                event.path.startswith(trees)
                or os.path.dirname(event.path) in self._watched
                or event.path in self._watched
            ):
                log.add(event)
        log.close()
        for path, seen in self._named.items():
            if seen.before.kind == "file" and not _watch().follows(os.path.dirname(path)):
                self._trace.read(seen)  # nobody would have told us
        if not _watch().working:
            for folder in sorted(self._named_folders & self._partly):
                self._take_whole(folder)

    def _take_whole(self, folder: str) -> None:
        """Take a named folder and all files in it as read, where nobody tells which ones are."""
        count = 0
        for path, _, names in os.walk(folder):
            count += len(names)
            if count > MAX_FILES:
                self.fail(f"there are too many files in {folder} to depend on them all")
                return
            for seen in filter(None, (self._trace.found(os.path.join(path, name)) for name in names)):
                self._trace.read(seen)
            if (listed := self._trace.found(path)) is not None:
                self._trace.list(listed)

    def _conclude(self, drawn: Iterable[Observed]) -> None:
        if any(map(_runs_notebook_code, set(threading.enumerate()) - self._threads)):
            self.fail("it leaves a thread running")
        try:
            found = [*self._patterns(), *self._trace.observed()]
        except Contradiction as reason:
            self.fail(str(reason))
            return
        found += [Observed("absent", seen.name, disk.kind_digest(disk.ABSENT)) for seen in self._missing()]
        found += [Observed("environ", name, _environ_digest(raw)) for name, raw in sorted(self._environ.items())]
        if self._settings is not None:
            found.append(Observed("state", ENVIRONMENT, _settings_digest(self._settings)))
        found += drawn
        self.notes = tuple(f"{s.kind} was not seeded: its draws are frozen" for s in drawn if s.digest == UNSEEDED)
        self.observed = tuple({(seen.kind, seen.name): seen for seen in found}.values())

    def _missing(self) -> Iterator[Seen]:
        """Return what a text names as a file and was not there: a native program may have looked for it."""
        for seen in self._named.values():
            untouched = not (seen.asked or seen.read or seen.written)
            absent = seen.before.kind == "absent" and disk.look(seen.path).kind == "absent"
            is_argument = seen.path in self._arguments and _ARGUMENT.fullmatch(seen.name)
            if untouched and absent and (is_argument or _looks_like_file(seen.name)):
                yield seen

    def _patterns(self) -> Iterator[Observed]:
        for pattern, names in self._listed_before.items():
            yield Observed("files", pattern, digests.combine("files", *names))
            for name in names:
                if (
                    seen := self._trace.of(places.absolute(os.path.expanduser(name)), name)
                ) and seen.before.kind == "file":
                    self._trace.read(seen)


class _EventLog:
    """Sorts out what the kernel tells, for what Python did not see."""

    def __init__(self, trace: Trace, named: dict[str, Seen], folders: set[str]) -> None:
        self._trace = trace
        self._named = named
        self._folders = folders
        self._written = {path for path, seen in trace.seen.items() if seen.written}
        self._read = {path for path, seen in trace.seen.items() if seen.read}
        self._met: set[str] = set()
        self._made: dict[str, set[str]] = {}
        self._gone: dict[str, dict[str, bool]] = {}
        self._natively_read: set[str] = set()
        self._opened_folders: set[str] = set()
        self._opened: dict[str, Seen] = {}
        """Files that were opened once, and neither read nor changed since."""

    def add(self, event: Event) -> None:
        """Take one event."""
        if event.path in self._written or not self._counts(event.path):
            return
        if not event.what & FOLDER and os.path.isdir(event.path):  # an unnamed file in it
            return
        if event.what & FOLDER:
            self._folder(event)
        else:
            self._file(event)

    def _counts(self, path: str) -> bool:
        if self._trace.ignores(path):
            return False
        if path in self._named or self._trace.spawned or path in self._folders:
            return True
        name = os.path.basename(path)
        return not name.endswith(PROGRAM_TEXT) and not name.startswith(".")

    def _file(self, event: Event) -> None:
        named = self._named.get(event.path)
        seen = named or self._trace.found(event.path)
        if seen is None:
            return
        if event.path not in self._met and event.what & (CREATE | MOVED_TO | MODIFY):
            seen.read = False  # a program made it first: what Python read in it is the cell's own
        self._met.add(event.path)
        folder, name = os.path.split(event.path)
        if event.what & (CREATE | MOVED_TO):
            self._made.setdefault(folder, set()).add(name)
            if not seen.read and not named:
                seen.before = disk.ABSENT
            seen.changed = seen.changed or seen.read
            seen.written = True
        elif event.what & (DELETE | MOVED_FROM):
            self._gone.setdefault(folder, {})[name] = False
            self._trace.remove(seen)
        elif event.what & MODIFY:
            seen.changed = seen.changed or seen.read
            seen.replaced = seen.replaced or not (seen.read or seen.written)
            seen.written = True
        elif event.what & (OPEN | ACCESS) and not seen.written:
            # Whether a file is opened to be written over shows in what comes next: no reading, and a change.
            if event.what & OPEN and seen.sample is not None and seen.path not in self._opened:
                self._opened[seen.path] = seen
            else:
                self._read_natively(seen, folder)

    def _read_natively(self, seen: Seen, folder: str) -> None:
        if seen.path not in self._read:
            self._natively_read.add(folder)
        seen.read = True

    def _folder(self, event: Event) -> None:
        if event.what & OPEN:
            self._opened_folders.add(event.path)
        elif event.what & (CREATE | MOVED_TO):
            folder, name = os.path.split(event.path)
            self._made.setdefault(folder, set()).add(name)
            if seen := self._trace.found(event.path):
                seen.before = disk.ABSENT
                self._trace.make_folder(seen, tolerant=True)
                self._own(event.path)
        elif event.what & (DELETE | MOVED_FROM):
            folder, name = os.path.split(event.path)
            self._gone.setdefault(folder, {})[name] = True

    def _own(self, folder: str) -> None:
        """Take all in a new folder as written: it came before anybody could watch."""
        for path, _, names in os.walk(folder):
            for name in names:
                self._trace.found(os.path.join(path, name))

    def close(self) -> None:
        """Take files that were opened and not changed, and folders that were listed natively, as they were before."""
        for seen in self._opened.values():
            if not seen.written:  # mapped, say
                self._read_natively(seen, os.path.dirname(seen.path))
        for folder in self._opened_folders:
            if folder in self._folders or folder in self._natively_read or self._trace.spawned:
                listed = self._trace.found(folder)
                if listed is not None and not listed.listed and not listed.written:
                    listed.take(self._names_before(folder))

    def _names_before(self, folder: str) -> dict[str, bool] | None:
        names = disk.listing(folder)
        if names is None:
            return None
        made = self._made.get(folder, set())
        return {**{name: kind for name, kind in names.items() if name not in made}, **self._gone.get(folder, {})}


def _unlikely(text: str) -> tuple[bool, int, str]:
    """Sort texts that look like names of files first."""
    return (os.sep not in text and "." not in text, len(text), text)


_ARGUMENT: Final = re.compile(r"[\w./~+@%,=][\w./~+@%,=-]*")
"""What may be the name of a file among the words of a command line, and is no option and no operator of a shell's."""


def _looks_like_file(text: str) -> bool:
    stem, ending = os.path.splitext(text)
    return bool(stem) and 1 < len(ending) <= len(".sas7bdat") and ending[1:].isalnum() and " " not in ending


# --- listening -----------------------------------------------------------------------------------

_active: Observer | None = None
_busy = threading.local()
_the_watch: Watch | None = None
_installed = False
_standins: list[StandIn] = []
_environ_class: Any = type(os.environ)
_environ_getitem, _environ_iter = _environ_class.__getitem__, _environ_class.__iter__


def _runs_notebook_code(thread: threading.Thread) -> bool:
    # Libraries keep threads of their own, which come back when they are needed.
    target = getattr(thread, "_target", None)
    return "__main__" in {type(thread).__module__, getattr(target, "__module__", None)}


def _environ_data() -> dict[bytes, bytes]:
    """Return what ``os.environ`` wraps: to look there is not to read a variable."""
    data: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]  # noqa: SLF001
    return data


def _watch() -> Watch:
    global _the_watch  # noqa: PLW0603 - one for the process, made when first needed
    if _the_watch is None or not _the_watch.working:
        _the_watch = Watch()
    return _the_watch


def _install() -> None:
    """Install the audit hook, which no one can remove: once."""
    global _installed  # noqa: PLW0603 - as above
    if not _installed:
        sys.addaudithook(_hook)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_leave_child_alone)
        _installed = True


def _leave_child_alone() -> None:
    """Stop observing in a forked process: it cannot tell us anything."""
    global _active  # noqa: PLW0603 - as above
    if _active is not None:
        _active = None
        _stop_listening()


def _listen() -> None:
    for name, tell in (("stat", _tell_stat), ("lstat", _tell_stat), ("access", _tell_access), ("getcwd", _tell_getcwd)):
        standin = StandIn(os, name, tell)
        standin.install()
        _standins.append(standin)
    _environ_class.__getitem__ = _getitem
    _environ_class.__iter__ = _iter


def _stop_listening() -> None:
    _environ_class.__getitem__, _environ_class.__iter__ = _environ_getitem, _environ_iter
    while _standins:
        _standins.pop().remove()


def _hook(event: str, args: tuple[Any, ...]) -> None:
    observer = _active
    if observer is None or event not in _HANDLERS:
        return
    _quietly(observer, _HANDLERS[event], args)


def _quietly(observer: Observer, handler: Callable[..., None], args: tuple[Any, ...]) -> None:
    """Call a handler, whose own doings are not observed and whose failures are not the cell's."""
    if getattr(_busy, "now", False):
        return
    _busy.now = True
    try:
        handler(observer, *args)
    except Contradiction as reason:
        observer.fail(str(reason))
    except Exception as error:  # noqa: BLE001 - it must not reach the user's code; the run is not stored
        observer.fail(f"what the cell did could not be observed ({type(error).__name__}: {error})")
    finally:
        _busy.now = False


def _text(path: object, folder: int = -1) -> str | None:
    """Return a path as text; None where it names nothing."""
    if isinstance(path, int):
        return _path_of(path) if sys.platform == "linux" else None
    if path is None:
        return os.curdir
    if not isinstance(path, str | bytes | os.PathLike):
        return None
    text = os.fsdecode(path)
    if folder >= 0 and not os.path.isabs(text) and sys.platform == "linux":
        return os.path.join(_path_of(folder), text)
    return text


def _path_of(descriptor: int) -> str:
    """Return the path of an open folder, relative to the working folder where it lies in there."""
    path, cwd = os.readlink(f"/proc/self/fd/{descriptor}"), places.working_folder()
    return os.path.relpath(path, cwd) if path == cwd or path.startswith(cwd + os.sep) else path


def _is_called_by(names: frozenset[str]) -> bool:
    """Tell whether an audit event comes out of one of these functions; to be called by a handler."""
    return sys._getframe(4).f_code.co_name in names  # noqa: SLF001 - no other way to a caller


_IMPORTLIB: Final = "<frozen importlib"
_METADATA: Final = re.compile(r"/(importlib/metadata|importlib_metadata|pkg_resources)/")


def _is_importing() -> bool:
    """Tell whether an audit event comes out of the import system; to be called by a handler."""
    asking = sys._getframe(4)  # noqa: SLF001 - as above
    if not _METADATA.search(asking.f_code.co_filename):
        return asking.f_code.co_filename.startswith(_IMPORTLIB)
    # Packages ask what else is installed, for plugins say, and each folder of sys.path is looked into for that.
    asker = next((frame for frame in _stack(asking) if not _METADATA.search(frame.f_code.co_filename)), asking)
    file = asker.f_code.co_filename
    return file.startswith(_IMPORTLIB) or modules.origin_of_file(asker.f_globals.get("__name__", ""), file) != "local"


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _on_open(observer: Observer, path: object, _mode: object, flags: object = 0) -> None:
    directory = getattr(os, "O_DIRECTORY", 0)
    if isinstance(path, int) or not isinstance(flags, int) or flags & directory:
        return
    text = _text(path)
    if text and not _is_called_by(_OPENING_BY_FOLDER):
        observer.opened(text, flags, importing=_is_importing())


def _on_list(observer: Observer, path: object) -> None:
    text = _text(path)
    if text and not _is_importing():
        observer.listed(text)


def _on_remove(observer: Observer, path: object, folder: int = -1) -> None:
    if text := _text(path, folder):
        observer.removed(text)


def _on_rename(
    observer: Observer, source: object, target: object, source_folder: int = -1, target_folder: int = -1
) -> None:
    gone, came = _text(source, source_folder), _text(target, target_folder)
    if gone and came:
        observer.renamed(gone, came)


def _on_mkdir(observer: Observer, path: object, _mode: int = 0, folder: int = -1) -> None:
    if text := _text(path, folder):
        observer.made_folder(text, tolerant=_is_tolerant())


def _is_tolerant() -> bool:
    """Tell whether ``os.makedirs`` or ``Path.mkdir`` was told not to mind a folder that is there."""
    frame = sys._getframe(4)  # noqa: SLF001 - as above
    while frame.f_back is not None and frame.f_code.co_name in {"makedirs", "mkdir"}:
        if frame.f_locals.get("exist_ok"):
            return True
        frame = frame.f_back
    return False


def _on_link(observer: Observer, source: object, target: object, source_folder: int = -1, folder: int = -1) -> None:
    if text := _text(source, source_folder):
        observer.opened(text, os.O_RDONLY)
    if text := _text(target, folder):
        observer.written(text, keeping=False)


def _on_symlink(observer: Observer, _source: object, target: object, folder: int = -1) -> None:
    if text := _text(target, folder):
        observer.written(text, keeping=False)


def _on_mark(observer: Observer, path: object, *rest: object) -> None:
    folder = rest[-1] if rest and isinstance(rest[-1], int) else -1
    if not isinstance(path, int) and (text := _text(path, folder)):
        observer.marked(text)


def _on_truncate(observer: Observer, path: object, length: int) -> None:
    if not isinstance(path, int) and (text := _text(path)):
        observer.written(text, keeping=length > 0)


def _on_database(observer: Observer, path: object, *_: object) -> None:
    text = _text(path)
    if text and not text.startswith(":memory:") and not isinstance(path, int):
        observer.opened(text.removeprefix("file:").partition("?")[0], os.O_RDONLY)


def _on_program(observer: Observer, program: object, args: object = (), *_: object) -> None:
    found: list[str] = []
    for part in [program, *(args if isinstance(args, list | tuple) else [args])]:
        if isinstance(part, str | bytes):
            found += _words(os.fsdecode(part))
    observer.started(found)


def _words(line: str) -> list[str]:
    try:
        return [line, *shlex.split(line)] if line.isprintable() else []
    except ValueError:
        return line.split()


def _on_putenv(observer: Observer, key: object, value: object) -> None:
    if isinstance(key, bytes) and isinstance(value, bytes):
        observer.variable_set(key, value)


def _on_fork(observer: Observer, *_: object) -> None:
    observer.started(())


def _on_library(observer: Observer, path: object) -> None:
    if isinstance(path, str) and os.sep in path:
        observer.opened(path, os.O_RDONLY)


_ANALYSED: Final = ("<ipython-input", "<timed ", "<magic-", "<frozen ", "<cell>")
"""How code is named that was read before it ran: that of cells and of IPython's magics, and Python's own."""


def _on_exec(observer: Observer, code: object) -> None:
    if isinstance(code, CodeType) and code.co_filename.startswith("<") and not code.co_filename.startswith(_ANALYSED):
        observer.ran(code)


_HANDLERS: dict[str, Callable[..., None]] = {
    "exec": _on_exec,
    "open": _on_open,
    "os.listdir": _on_list,
    "os.scandir": _on_list,
    "os.remove": _on_remove,
    "os.rmdir": _on_remove,
    "os.rename": _on_rename,
    "os.mkdir": _on_mkdir,
    "os.putenv": _on_putenv,
    "os.link": _on_link,
    "os.symlink": _on_symlink,
    "os.chmod": _on_mark,
    "os.chown": _on_mark,
    "os.utime": _on_mark,
    "os.truncate": _on_truncate,
    "pickle.find_class": Observer.unpickled,
    "sqlite3.connect": _on_database,
    "subprocess.Popen": _on_program,
    "os.system": _on_program,
    "os.posix_spawn": _on_program,
    "os.fork": _on_fork,
    "os.forkpty": _on_fork,
    "ctypes.dlopen": _on_library,
}


def _tell_stat(path: object = None, **options: object) -> None:
    observer = _active
    if observer is not None and not isinstance(path, int) and options.get("dir_fd") is None:
        _quietly(observer, _asked, (path, *places.asker(2)))


def _asked(observer: Observer, path: object, package: str, through: list[str]) -> None:
    text = _text(path)
    if text and _MAKING.isdisjoint(through):
        only_isdir = _ISDIR.issuperset(through) and through[-1:] in (["isdir"], ["is_dir"])
        only_isdir |= package in _WRITING_ANYWAY
        observer.asked(text, dated=not package and _DATES.issuperset(through), only_isdir=only_isdir)


def _tell_access(path: object = None, *_: object, **options: object) -> None:
    observer = _active
    if observer is not None and not isinstance(path, int) and options.get("dir_fd") is None:
        _quietly(observer, _asked, (path, "?", []))


def _tell_getcwd() -> None:
    observer = _active
    if observer is not None and not places.asker(2)[0]:
        _quietly(observer, Observer.working_folder, ())


def _getitem(self: os._Environ[str], key: str) -> str:
    observer = _active
    if observer is not None and self is os.environ and isinstance(key, str):
        _quietly(observer, Observer.environment, (key,))
    value: str = _environ_getitem(self, key)
    return value


def _iter(self: os._Environ[str]) -> Iterator[str]:
    observer = _active
    if observer is not None and self is os.environ and not places.asker(1)[0]:
        _quietly(observer, Observer.whole_environment, ())
    found: Iterator[str] = _environ_iter(self)
    return found


# --- verifying -----------------------------------------------------------------------------------


def verify(observed: Sequence[Observed]) -> Change | None:
    """Return the first difference between what a run observed and what is there now; None where all is as it was.

    Kind ``"name"`` is the session's: it knows the namespace.
    """
    for seen in observed:
        how = _difference(seen)
        if how is not None:
            return how
    return None


def differences(observed: Iterable[Observed]) -> tuple[Change, ...]:
    """Return all differences between what a run observed and what is there now, as :func:`verify` does the first."""
    return tuple(change for seen in observed if (change := _difference(seen)) is not None)


def _difference(seen: Observed) -> Change | None:
    if seen.kind == "name":
        return None
    now = _digest_now(seen)
    if now == seen.digest:
        return None
    newer = Part(seen.kind, seen.name, now, _detail_now(seen)) if now is not None else None
    return Change(seen.kind, seen.name, _how(seen, now), Part(seen.kind, seen.name, seen.digest, seen.detail), newer)


def _detail_now(seen: Observed) -> Json:
    """Return what a manifest would hold besides the digest, for people to read."""
    if seen.kind in {"file", "written", "absent"}:
        return disk.told(places.absolute(seen.name), None)
    return disk.listing_detail(disk.listing(places.absolute(seen.name))) if seen.kind == "folder" else None


def _how(seen: Observed, now: str | None) -> Literal["changed", "new", "gone"]:
    if seen.kind == "absent":
        return "new"
    return "gone" if now is None or now == disk.kind_digest(disk.ABSENT) else "changed"


def _digest_now(seen: Observed) -> str | None:
    """Return what the digest would be now; None where there is nothing to digest, or nobody knows how."""
    if seen.kind in NAMES:
        return next(WATCH.digest(name) for name in NAMES if name == seen.kind)
    if seen.kind == "environ":
        return _environ_digest(_environ_data().get(os.fsencode(seen.name)))
    if seen.kind == "state" and seen.name == ENVIRONMENT:
        return _settings_digest(_settings())
    if seen.kind == "cwd":
        return digests.combine("cwd", places.working_folder())
    if seen.kind == "files":
        return digests.combine("files", *sorted(glob.glob(os.path.expanduser(seen.name), recursive=True)))
    return _disk_now(seen, places.absolute(seen.name))


def _disk_now(seen: Observed, path: str) -> str | None:
    found = disk.look(path)
    if seen.kind in {"file", "written"}:
        stamp = disk.Stamp.from_json(seen.detail)
        if stamp is not None and found.stamp == stamp:
            return seen.digest
        try:
            return disk.state(path)[0]
        except OSError:
            return None
    if seen.kind in {"absent", "exists"}:
        return disk.kind_digest(found)
    if seen.kind == "isdir":
        return disk.isdir_digest(found)
    if seen.kind == "dates":
        return disk.dates_digest(found)
    if seen.kind == "folder":
        return disk.listing_digest(disk.listing(path))
    return None


@functools.cache
def _first_environment() -> dict[str, str]:
    """Return the environment with which this process was started."""
    try:
        raw = Path("/proc/self/environ").read_bytes()
    except OSError:
        return dict(os.environ)  # elsewhere: as it was when somebody first asked
    pairs = (os.fsdecode(line).partition("=") for line in raw.split(b"\0") if line)
    return {name: value for name, _, value in pairs}


def _settings() -> tuple[tuple[str, str], ...]:
    """Return the variables that this process has set or changed, which any program that it starts may read."""
    first = _first_environment()
    return tuple(sorted((k, v) for k, v in os.environ.items() if first.get(k) != v and not k.startswith(VOLATILE)))


def _settings_digest(held: tuple[tuple[str, str], ...]) -> str:
    return digests.combine("settings", *(text for pair in held for text in pair))


def _environ_digest(raw: bytes | str | None) -> str:
    return digests.combine("environ", "unset") if raw is None else digests.combine("environ", "set", raw)
