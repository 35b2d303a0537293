"""Whose the files are: their owner's alone, unless the store's folder was opened to a group.

A team that shares a store makes its folder writable for the group (``chmod 2770``). What is made in a
folder gets the group's rights from that folder, so one decision at the top is all there is to know.
Nothing is ever given to everybody.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def like_parent(path: Path, chmod: Callable[[Path, int], None] = os.chmod) -> None:
    """Let the group do with a file or folder just made what its owner can, where the folder around it says so."""
    if not path.parent.stat().st_mode & stat.S_IWGRP:
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    shared = mode | (mode & stat.S_IRWXU) >> 3
    if shared != mode:
        with contextlib.suppress(PermissionError):  # someone else made it, and shared it
            chmod(path, shared)
