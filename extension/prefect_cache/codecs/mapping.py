"""Stored files in memory: mapped privately and writable, one file or several as one.

What a joint lists (:mod:`prefect_cache.codecs.parts`) is mapped side by side, so that all that reads a file
finds the same bytes whether they lie in one or not.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from prefect_cache.codecs.ipc import Extent, Reader, locate
from prefect_cache.codecs.parts import Joint
from prefect_cache.errors import Damaged

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from prefect_cache.codecs.ipc import Opened

    Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Mapped:
    """A file's schema metadata and its body in memory."""

    metadata: dict[bytes, bytes]
    body: Bytes


def open_file(path: Path) -> Mapped:
    """Map a file; raise Damaged, before anything is mapped, where it is not whole.

    The mapping is private: what the notebook writes into it stays in memory, and the file may be
    unlinked meanwhile. It lives as long as any array in it.
    """
    opened, memory = _opened(path)
    start, length = opened.body
    return Mapped(opened.metadata, memory[start : start + length])


def whole(path: Path) -> Bytes:
    """Return all of a file, with what it shares with its parts, as one Arrow file in memory."""
    return _opened(path)[1]


def _opened(path: Path) -> tuple[Opened, Bytes]:
    with contextlib.ExitStack() as files:
        file, size = _open(path, files)
        opened = _locate(Reader(file), size, path.name)
        joint = Joint.of(opened.metadata)
        if joint is None:
            return opened, _map(size, [_Window(file, 0, size)])
        memory = _map(joint.size, _windows(joint, path, (file, size), opened.body, files))
        return _locate(lambda offset, count: _slice(memory, offset, count), joint.size, path.name), memory


def _open(path: Path, files: contextlib.ExitStack) -> tuple[int, int]:
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError as error:
        raise Damaged(f"{path.name} is missing") from error
    files.callback(os.close, file)
    return file, os.fstat(file).st_size


def _locate(read: Any, size: int, name: str) -> Opened:
    try:
        return locate(read, size)
    except Damaged as error:
        raise Damaged(f"{name}: {error.message}") from error


def _slice(memory: Bytes, offset: int, count: int) -> bytes:
    if not 0 <= offset <= offset + count <= len(memory):
        raise Damaged("it is cut short")
    return memory[offset : offset + count].tobytes()


class _Window(NamedTuple):
    """Some bytes of an open file."""

    file: int
    offset: int
    size: int


def _windows(
    joint: Joint, path: Path, own: tuple[int, int], body: Extent, files: contextlib.ExitStack
) -> list[_Window]:
    """Return what a joint lists, each inside its file."""
    opened = [own]
    for name, size in joint.parts:
        opened.append(_open(path.with_name(name), files))
        if opened[-1][1] != size:
            raise Damaged(f"{name} has {opened[-1][1]:,} bytes and should have {size:,}")
    windows = []
    for part, start, count in joint.extents:
        file, size = opened[part]
        offset = start if part else body.offset + start
        if not 0 <= offset <= offset + count <= size:
            raise Damaged(f"{path.name}: what it shares lies outside of its part")
        windows.append(_Window(file, offset, count))
    return windows


_NORESERVE = {"linux": 0x4000, "darwin": 0x40}.get(sys.platform, 0)
_FIXED = 0x10


def _map(size: int, windows: Sequence[_Window]) -> Bytes:
    """Return windows, `size` bytes in all, back to back as private, writable memory."""
    if os.name == "posix" and (len(windows) == 1 or _on_pages(windows)):
        return np.asarray(_Mapping(size, windows))
    if len(windows) == 1:
        return np.frombuffer(mmap.mmap(windows[0].file, size, access=mmap.ACCESS_COPY), dtype=np.uint8)
    return _read(size, windows)


def _on_pages(windows: Sequence[_Window]) -> bool:
    """Tell whether the system can map all windows back to back; its pages may be larger than the files' leaves."""
    return not any(w.offset % mmap.PAGESIZE for w in windows) and not any(w.size % mmap.PAGESIZE for w in windows[:-1])


def _read(size: int, windows: Sequence[_Window]) -> Bytes:
    memory = np.empty(size, np.uint8)
    at = 0
    for window in windows:
        with open(window.file, "rb", buffering=0, closefd=False) as file:
            file.seek(window.offset)
            view = memory[at : at + window.size].data
            while view:
                count = file.readinto(view)
                if not count:
                    raise Damaged("it is cut short")
                view = view[count:]
        at += window.size
    return memory


class _Mapping:
    """A private mapping that is given back when its last array goes.

    Python's own mmap object keeps a copy of the descriptor for its life (until 3.13), and a notebook with a
    thousand restored values would run out of them. MAP_NORESERVE, or all of the file were charged to memory at once.
    """

    def __init__(self, size: int, windows: Sequence[_Window]) -> None:
        self.address, self.size = 0, size
        libc = _libc()
        self._mmap, self._munmap = libc.mmap, libc.munmap
        private = mmap.MAP_PRIVATE | _NORESERVE
        if len(windows) == 1:
            self.address = self._placed(None, size, private, windows[0])
            return
        # The place for all is claimed first; what goes wrong further on gives it back.
        self.address = self._placed(None, size, private | mmap.MAP_ANONYMOUS, _Window(-1, 0, size))
        at = self.address
        for window in windows:
            self._placed(at, window.size, private | _FIXED, window)
            at += window.size

    def _placed(self, at: int | None, size: int, flags: int, window: _Window) -> int:
        access = mmap.PROT_READ | mmap.PROT_WRITE
        address = self._mmap(at, size, access, flags, window.file, window.offset)
        if address in (None, ctypes.c_void_p(-1).value):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return int(address)

    @property
    def __array_interface__(self) -> dict[str, object]:
        return {"version": 3, "shape": (self.size,), "typestr": "|u1", "data": (self.address, False)}

    def __del__(self) -> None:
        if self.address:
            self._munmap(self.address, self.size)


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc
