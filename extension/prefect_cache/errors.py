"""Everything that this package raises by its own name.

::

    CacheError
    ├── UsageProblem (ValueError)       a magic's or command's words are off
    ├── Unfingerprintable (TypeError)   a value that no digest can stand for: the cell is bypassed
    ├── CellTimeout (TimeoutError)      the cell ran longer than its --timeout allows
    ├── Unstorable (TypeError)          an output that no codec can keep: the cell is bypassed
    └── StoreError
        ├── StoreUnwritable (OSError)   full, read-only, missing, denied: the cell runs, nothing is stored
        ├── Damaged (ValueError)        a file is not what its manifest says: a miss with a warning
        ├── Untrusted (PermissionError) a pickle without a signature that is trusted: it is not opened
        └── NotFound (LookupError)      no entry by that name

Each is also the built-in exception that a caller would catch.
"""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """Return what an exception of anybody's says, in one line of a bearable length; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def with_article(kind: type | str) -> str:
    """Return the name of a class with its article: "a list", "an Index"."""
    name = kind if isinstance(kind, str) else kind.__name__
    return f"{'an' if name[:1].lower() in set('aeio') else 'a'} {name}"


class CacheError(Exception):
    """The root of the tree; `remedy` says what the user can do, where there is something."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class UsageProblem(CacheError, ValueError):
    """A magic's or command's words are off."""


class Unfingerprintable(CacheError, TypeError):
    """A value that no digest can stand for; `name` is the input that it was reached from."""

    def __init__(self, message: str, *, name: str = "", remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.name = name


class Unstorable(CacheError, TypeError):
    """An output that no codec can keep; `name` is the output."""

    def __init__(self, message: str, *, name: str = "", remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.name = name


class CellTimeout(CacheError, TimeoutError):
    """The cell ran longer than its ``--timeout`` allows."""


class StoreError(CacheError):
    """The store could not do what was asked."""


class StoreUnwritable(StoreError, OSError):
    """Nothing can be stored now: full, read-only, missing or denied."""


class Damaged(StoreError, ValueError):
    """A file is not what its manifest says."""


class Untrusted(StoreError, PermissionError):
    """A pickle without a signature that is trusted; it was not opened."""


class NotFound(StoreError, LookupError):
    """No entry by that name."""
