"""Signatures: which entries are this user's own, so that their pickles may be opened.

A pickle runs code when it is loaded, so it is loaded only where the manifest that names it carries a
signature by a key that the user holds. The signature is an HMAC-SHA256 over the bytes of
``manifest.json``, one for each key held when the entry was made::

    hmac-sha256 7d0f63a1b2c4e5f6 5b6c...

and lies beside it in a file ``signature``. Someone without the key can neither change a manifest nor
move files between entries unnoticed. The digests of plain data in a manifest tell contents apart but
do not resist a forger, so files that may run code when read carry a SHA-256 besides (see :func:`.verify.seal`).
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from prefect_cache.errors import StoreUnwritable, Untrusted

if TYPE_CHECKING:
    from collections.abc import Iterable

KEY_FILE_VARIABLE = "PREFECT_CACHE_KEY_FILE"
ALGORITHM = "hmac-sha256"
HEADER = "prefect-cache-key"
KEY_BYTES = 32

_shared: list[Path] = []
"""Key files that :func:`trust` added for this process."""


def trust(key_file: str | os.PathLike[str]) -> None:
    """Trust entries signed with the key in a file, and sign with it too, for the rest of this process.

    A team that shares a store gives each member a copy of one key file. It is made on first use where
    it does not exist; only its owner may read it (``chmod 600``).

    Raises
    ------
    Untrusted
        The file is no key, or others may read or write it.
    StoreUnwritable
        It does not exist and cannot be made.
    """
    path = Path(key_file).expanduser().resolve()
    make_key(path)
    if path not in _shared:
        _shared.append(path)


def default_key_file() -> Path:
    """Return where this user's own key lies: ``PREFECT_CACHE_KEY_FILE``, else in the user's config folder."""
    if named := os.environ.get(KEY_FILE_VARIABLE):
        return Path(named).expanduser()
    import platformdirs

    return platformdirs.user_config_path("prefect_cache") / "key"


class Trust:
    """The keys that one user holds.

    Parameters
    ----------
    own
        The file of the user's own key; None: :func:`default_key_file`.
    others
        Further key files; entries are signed with them too.
    """

    def __init__(self, own: Path | None = None, others: Iterable[Path] = ()) -> None:
        self._own = own
        self._others = tuple(others)
        self._known: dict[Path, tuple[tuple[int, int, int], bytes]] = {}

    def sign(self, data: bytes) -> bytes:
        """Return the signature file's content for `data`; the user's own key is made on first need."""
        make_key(self._own or default_key_file())
        lines = [f"{ALGORITHM} {name_of(key)} {_mac(key, data)}\n" for key in self._keys()]
        return "".join(lines).encode("ascii")

    def signer(self, data: bytes, signature: bytes) -> str:
        """Return the name of a key held here that signed `data`; empty where none did."""
        stated = _parse(signature)
        if not stated:
            return ""
        for key in self._keys():
            name = name_of(key)
            if name in stated and hmac.compare_digest(stated[name], _mac(key, data)):
                return name
        return ""

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Tell whether a key held here signed `data`."""
        return bool(self.signer(data, signature))

    def names(self) -> frozenset[str]:
        """Return the names of the keys held here."""
        return frozenset(map(name_of, self._keys()))

    def _keys(self) -> list[bytes]:
        """Return the keys that there are; a key file that others can read is refused aloud, not skipped."""
        found: dict[bytes, None] = {}
        for path in (self._own or default_key_file(), *self._others, *_shared):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                found[self._key(path)] = None
        return list(found)

    def _key(self, path: Path) -> bytes:
        """Return the key in a file, read again only when the file has changed."""
        status = path.stat()
        version = (status.st_ino, status.st_mtime_ns, status.st_mode)
        known = self._known.get(path)
        if known is None or known[0] != version:
            known = self._known[path] = (version, read_key(path))
        return known[1]


def name_of(key: bytes) -> str:
    """Return the name by which a signature states its key; it does not betray the key."""
    return hashlib.sha256(HEADER.encode() + key).hexdigest()[:16]


def read_key(path: Path) -> bytes:
    """Return the key in a file that only its owner can read.

    Raises
    ------
    FileNotFoundError
        There is none.
    Untrusted
        It is no key file, or others may read or write it.
    """
    try:
        with path.open("rb") as file:
            _check_owner(path, os.fstat(file.fileno()))
            words = file.read(4096).split()
    except (FileNotFoundError, Untrusted):
        raise
    except (IsADirectoryError, PermissionError) as error:
        what = f"is no key file that can be read: {error.strerror}"
        raise _refused(path, what, "name a key file of your own") from error
    if len(words) != len(("header", "key")) or words[0] != HEADER.encode():
        raise _refused(path, "is not a key file of prefect_cache", "restore it, or remove it and a new one is made")
    try:
        key = bytes.fromhex(words[1].decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise _refused(path, "is a damaged key file", "restore it, or remove it and a new one is made")
    return key


def _check_owner(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _refused(path, "is not a regular file", "name a key file")
    if os.name != "posix":
        return
    if status.st_mode & 0o077:
        what = f"can be read or written by others (mode {stat.S_IMODE(status.st_mode):04o})"
        raise _refused(path, what, f"if nobody else has seen it: chmod 600 {path}; otherwise remove it")
    if status.st_uid not in (os.getuid(), 0):
        raise _refused(path, "belongs to another user", "make a copy of your own, with chmod 600")


def _refused(path: Path, what: str, remedy: str) -> Untrusted:
    return Untrusted(f"the key {path} {what}", remedy=remedy)


def make_key(path: Path) -> None:
    """Have a key at `path`: made there if there was none, and whole before it has the name."""
    if path.exists():
        read_key(path)
        return
    beside = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(f"{HEADER} {secrets.token_hex(KEY_BYTES)}\n".encode())
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):  # another process was first: its key is the user's
                os.link(beside, path)
        finally:
            beside.unlink()
    except OSError as error:
        message = f"the key that signs entries cannot be made at {path}: {error.strerror or error}"
        remedy = f"make the folder writable, or set {KEY_FILE_VARIABLE} to a file that can be made"
        raise StoreUnwritable(message, remedy=remedy) from error


def _mac(key: bytes, data: bytes) -> str:
    return hmac.digest(key, data, "sha256").hex()


def _parse(signature: bytes) -> dict[str, str]:
    """Return key names and codes as the file states them; lines that are none of ours count for nothing."""
    lines = (line.split() for line in signature.decode("ascii", "replace").splitlines())
    stated = (words[1:] for words in lines if words[:1] == [ALGORITHM])
    return {words[0]: words[1] for words in stated if len(words) == len(("name", "code")) and words[1].isascii()}
