"""Entries for the tests of the store: made whole in a line, and read back to compare."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from prefect_cache.digests import digest, file_digest
from prefect_cache.model import FORMAT, Key, Manifest, Observed, Output, Part, Run
from prefect_cache.store.publish import System

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from prefect_cache.model import Entry, Json
    from prefect_cache.store import Draft, Store

Content = dict[str, bytes]


class Unflushed(System):
    """Writes as ever and flushes nothing: no test can cut the power."""

    def fsync(self, fd: object) -> None:
        pass


def key_of(word: object) -> str:
    """Return a key's digest that stands for a word."""
    return digest(f"key {word}".encode())


def output(folder: Path, file: str, data: bytes) -> Output:
    """Write a file as a codec does, and return what the manifest says of it."""
    path = folder / file
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(data)
    whole, pieces = file_digest(path)
    meta: dict[str, Json] = {"pieces": list(pieces)}
    return Output(file.partition(".")[0], "bytes", "raw", file, whole, len(data), meta)


def manifest_of(
    key: str,
    outputs: tuple[Output, ...] = (),
    *,
    name: str = "orders",
    seen: str = "",
    seconds: float = 1.0,
    started: float | None = None,
    options: Mapping[str, Json] | None = None,
) -> Manifest:
    """Return a manifest; `seen` is the content of a file that the run read."""
    observed = (Observed("file", "data.csv", digest(seen.encode())),) if seen else ()
    return Manifest(
        format=FORMAT,
        name=name,
        source=f"{name} = 1",
        key=Key(key, (Part("code", "", digest(name.encode())), Part("input", "x", key))),
        observed=observed,
        outputs=outputs,
        effects={"bindings": []},
        displays=(),
        run=Run(time.time() if started is None else started, seconds, notebook="shop.ipynb"),
        options=options or {},
    )


def write(draft: Draft, content: Content, **said: object) -> Manifest:
    """Write files into a draft and return their manifest."""
    outputs = tuple(output(draft.path, file, data) for file, data in content.items())
    return manifest_of(draft.key, outputs, **said)  # type: ignore[arg-type]


def save(store: Store, key: str, content: Content, **said: object) -> Entry:
    """Save an entry whose files have this content."""
    with store.draft(key) as draft:
        return store.publish(draft, write(draft, content, **said))


def content_of(store: Store, entry: Entry) -> Content:
    """Return the content of an entry's files, verified in full."""
    store.check_files(entry, full=True)
    return {output.file: (entry.path / output.file).read_bytes() for output in entry.manifest.outputs}


def contents(store: Store) -> dict[str, Content]:
    """Return all that a store holds, by the folders' names."""
    return {entry.digest: content_of(store, entry) for entry in store.catalog().entries}
