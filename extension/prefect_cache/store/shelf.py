"""What the store already holds, for a codec that would rather share a file than write its bytes again."""

from __future__ import annotations

import stat
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefect_cache.model import Held
from prefect_cache.store import publish

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from prefect_cache.model import Digest, Entry
    from prefect_cache.store.publish import System


@dataclass(frozen=True, slots=True)
class Shelf:
    """The runs in the files of entries that are trusted, see ``codecs.parts``.

    Attributes
    ----------
    system
        The system calls by which a file gets another name.
    runs
        Asks the index for sample, entry, file and place of runs with some samples.
    read
        Reads an entry; None where it has gone or is damaged.
    """

    system: System
    runs: Callable[[Collection[Digest]], Sequence[tuple[str, str, str, int]]]
    read: Callable[[str], Entry | None]

    def find(self, samples: Collection[Digest]) -> Mapping[Digest, Sequence[Held]]:
        """Return where runs with these samples may be; what the index says is checked against the manifests."""
        found: dict[Digest, list[Held]] = defaultdict(list)
        entries: dict[str, Entry | None] = {}
        for sample, name, file, start in self.runs(samples):
            if name not in entries:
                entries[name] = self.read(name)
            entry = entries[name]
            output = next((o for o in entry.manifest.outputs if o.file == file), None) if entry else None
            if entry is not None and entry.trusted and output is not None:
                found[sample].append(Held(entry.path / file, start, output))
        return found

    def take(self, held: Held, path: Path) -> Path | None:
        """Make `path` another name of a file and return it; None where that cannot be, or the file has gone."""
        try:
            if not stat.S_ISREG(held.path.lstat().st_mode):
                return None
            self.system.link(held.path, path)
        except OSError as error:
            if error.errno in publish.CANNOT_LINK:
                return None
            raise
        return path
