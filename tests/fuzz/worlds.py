"""The same history lived twice: in a plain notebook and in a cached one, compared after every step.

A *world* is a folder and a process in it with a real ``InteractiveShell``, forked from this one (which has done the
imports); a restart is a new fork. What a step showed, raised and left behind comes back as a snapshot.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import pickle
import re
import resource
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import snapshot
from history import Remove, Restart, Run, Write

if TYPE_CHECKING:
    from history import History, Step

PRELUDE = """\
import collections, contextlib, copy, dataclasses, enum, functools, glob, itertools, json, math, operator, os, pickle
import random, re, sys, warnings
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass
from pathlib import Path
import numpy as np
import pandas as pd
from IPython.display import clear_output, display
random.seed(7)
np.random.seed(7)
"""
"""The first cell of every notebook, never cached: a kernel's life starts with imports and seeds."""

FILES = {
    "in.txt": "one\ntwo\nthree\n",
    "in.csv": "x,y,k\n1,2.5,a\n2,,b\n3,4.5,a\n4,1.5,c\n",
    "in.json": '{"rate": 1.5, "names": ["a", "b"]}',
    "helper.py": """\
RATE = 2
ITEMS = []


def scale(v):
    return v * RATE


def keep(v):
    ITEMS.append(v)
    return len(ITEMS)
""",
}
"""What lies in the folder at the start."""

PLACE = re.compile(r"<ipython-input-[\w-]+>:\d+")
"""Where a warning says that it comes from; the line with the magic is one more."""

STEP_SECONDS = 60
WORLD_BYTES = 6 * 2**30
"""Lists that hold themselves twice grow without end when they are printed: such a history ends there."""

PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Seen:
    """What one step showed and left behind, all plain values."""

    error: str = ""
    shown: tuple[tuple[str, str], ...] = ()
    names: dict[str, object] = field(default_factory=dict)
    process: dict[str, object] = field(default_factory=dict)
    status: str = ""
    note: str = ""


class World:
    """A folder, and in it a process with a shell."""

    def __init__(self, *, cached: bool) -> None:
        self.cached = cached
        self.root = Path(tempfile.mkdtemp(prefix="world-"))
        self.folder = self.root / "notebook"
        self.folder.mkdir()
        for name, text in FILES.items():
            (self.folder / name).write_text(text)
        self._pid = 0
        self._socket: socket.socket | None = None

    def send(self, step: Step) -> None:
        """Start a step; a world without a process starts one and its prelude first."""
        match step:
            case Write(file, text):
                (self.folder / file).write_text(text)
            case Remove(file):
                (self.folder / file).unlink(missing_ok=True)
            case Restart():
                self.end()
            case Run():
                if self._socket is None:
                    self._begin()
                assert self._socket is not None
                _send(self._socket, step.cached_source if self.cached else step.source)

    def receive(self, step: Step) -> Seen | None:
        """Wait for the step to end."""
        if not isinstance(step, Run):
            return None
        assert self._socket is not None
        try:
            answer = _receive(self._socket)
        except (EOFError, TimeoutError) as error:
            return Seen(error=f"the shell ended: {error!r}", note=f"the shell ended: {error!r}")
        assert isinstance(answer, Seen)
        return answer

    def end(self) -> None:
        """End the process; the folder stays."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        shutil.rmtree(self.root, ignore_errors=True)

    def _begin(self) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(STEP_SECONDS)
        self._pid = os.fork()
        if self._pid == 0:
            try:
                ours.close()
                with contextlib.suppress(EOFError):
                    _live(theirs, self.root, cached=self.cached)
            except BaseException:
                traceback.print_exc(file=sys.__stderr__)
            finally:
                os._exit(0)
        theirs.close()
        self._socket = ours


def _send(to: socket.socket, value: object) -> None:
    data = pickle.dumps(value)
    to.sendall(struct.pack("<q", len(data)) + data)


def _receive(whence: socket.socket) -> object:
    (size,) = struct.unpack("<q", _exactly(whence, 8))
    return pickle.loads(_exactly(whence, size))


def _exactly(whence: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = whence.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


# Inside the forked process


class _Stream(io.TextIOBase):
    """A stream of Python's own kind, as a kernel's is: attributes can be put on it."""

    def __init__(self, name: str, shown: list[tuple[str, str]]) -> None:
        self.name = name
        self._shown = shown

    def write(self, text: str) -> int:
        self._shown.append((self.name, text))
        return len(text)

    def writable(self) -> bool:
        return True


def _live(whence: socket.socket, root: Path, *, cached: bool) -> None:
    """Be the process of a world: run what comes, answer what was seen."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_AS, (WORLD_BYTES, WORLD_BYTES))
    sys.dont_write_bytecode = True  # Python takes a .pyc of the same second for up to date: no matter of ours
    os.environ.update(
        HOME=str(root),
        XDG_CONFIG_HOME=str(root / "config"),
        IPYTHONDIR=str(root / "ipython"),
        PREFECT_CACHE_DIR=str(root / "store"),
    )
    os.chdir(root / "notebook")
    sys.path.insert(0, "")
    shown: list[tuple[str, str]] = []
    shell = _shell(shown)
    started = {"sys.path": list(sys.path)}
    if cached:
        shell.run_line_magic("load_ext", "prefect_cache")
    shell.run_cell(PRELUDE)  # after the extension, which takes what was drawn before it for unseeded
    while True:
        source = _receive(whence)
        assert isinstance(source, str)
        shown.clear()
        _send(whence, _run(shell, source, shown, root / "notebook", started, cached=cached))


def _shell(shown: list[tuple[str, str]]) -> Any:
    from IPython.core.displayhook import DisplayHook
    from IPython.core.displaypub import DisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    class Publisher(DisplayPublisher):  # type: ignore[misc]
        def publish(self, data: dict[str, Any], metadata: object = None, **more: Any) -> None:
            if "prefect-cache" not in data.get("text/html", ""):
                shown.append(("update" if more.get("update") else "display", data.get("text/plain", "")))

        def clear_output(self, wait: bool = False) -> None:
            shown.append(("clear", str(bool(wait))))

    class Hook(DisplayHook):  # type: ignore[misc]
        def write_output_prompt(self) -> None:
            pass

        def write_format_data(self, format_dict: dict[str, Any], md_dict: object = None) -> None:
            shown.append(("result", format_dict.get("text/plain", "")))

        def finish_displayhook(self) -> None:
            pass

    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    config.InteractiveShell.xmode = "Minimal"  # nobody reads the tracebacks, and a quarter of the time went into them
    shell = InteractiveShell.instance(config=config, display_pub_class=Publisher, displayhook_class=Hook)
    shell.showtraceback = lambda *_, **__: None
    shell.showsyntaxerror = lambda *_, **__: None
    sys.stdout, sys.stderr = _Stream("stdout", shown), _Stream("stderr", shown)
    return shell


def _run(
    shell: Any, source: str, shown: list[tuple[str, str]], folder: Path, started: dict[str, Any], *, cached: bool
) -> Seen:
    result = shell.run_cell(source, store_history=True)
    error = result.error_before_exec or result.error_in_exec
    seen = tuple(_merged(shown))
    status, note = _outcome() if cached and source.startswith("%%prefect_cache") else ("", "")
    return Seen(
        error="" if error is None else snapshot.ADDRESS.sub("", f"{type(error).__name__}: {error}"),
        shown=seen,
        names=snapshot.namespace(shell.user_ns),
        process=snapshot.process(folder, started),
        status=status,
        note=note,
    )


def _outcome() -> tuple[str, str]:
    last = sys.modules["prefect_cache"].last
    return ("none", "") if last is None else (last.status, str(last.because))


def _merged(shown: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return what was shown, each run of one stream as one text; of stderr what the grammar and the cache write."""
    merged: list[tuple[str, str]] = []
    for kind, written in shown:
        text = PLACE.sub("<cell>", snapshot.ADDRESS.sub("", written))
        if merged and merged[-1][0] == kind and kind in {"stdout", "stderr"}:
            merged[-1] = (kind, merged[-1][1] + text)
        else:
            merged.append((kind, text))
    # What else writes there is the shell's. A stored run that cannot be used is a fault, though the cell runs then.
    told = [(kind, text) for kind, text in merged if kind != "stderr" or text.startswith("err:")]
    return [*told, *(("stderr", text) for kind, text in merged if kind == "stderr" and "CacheWarning" in text)]


# Two worlds


@dataclass(frozen=True)
class Difference:
    """Where and how the two notebooks parted."""

    step: int
    status: str
    what: str


@dataclass
class Lived:
    """How a history went."""

    difference: Difference | None = None
    statuses: list[tuple[int, str, str]] = field(default_factory=list)
    seconds: float = 0.0


def live(history: History) -> Lived:
    """Live the history in both worlds, up to the first difference."""
    lived, began = Lived(), time.monotonic()
    with World(cached=False) as plain, World(cached=True) as cached:
        for number, step in enumerate(history):
            plain.send(step)
            cached.send(step)
            expected, actual = plain.receive(step), cached.receive(step)
            if expected is None or actual is None:
                continue
            if actual.status:
                lived.statuses.append((number, actual.status, actual.note))
            if "MemoryError" in expected.error + actual.error:
                break
            what = difference(expected, actual)
            if what:
                lived.difference = Difference(number, f"{actual.status} {actual.note}".strip(), what)
                break
    lived.seconds = time.monotonic() - began
    return lived


def difference(expected: Seen, actual: Seen) -> str:
    """Say how two sights of one step differ; "" where they do not."""
    if expected.error != actual.error:
        return f"error: plain {expected.error!r}, cached {actual.error!r}"
    if expected.shown != actual.shown:
        return f"shown: plain {expected.shown!r}, cached {actual.shown!r}"
    for kind in ("names", "process"):
        one, other = getattr(expected, kind), getattr(actual, kind)
        for name in [*one, *(n for n in other if n not in one)]:
            if one.get(name) != other.get(name):
                return f"{kind} {name}: plain {_short(one.get(name))}, cached {_short(other.get(name))}"
    return ""


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 700 else text[:700] + "..."
