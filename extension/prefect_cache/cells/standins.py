"""Functions of a module replaced for a while, to be told of calls that nothing else tells of.

``os.path.exists`` and ``random.seed`` raise no audit event. A stand-in does what the original does, looks like it,
is pickled as it and can be found again where a cell took it along (``from os import getcwd``).
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from types import ModuleType

_CAPABILITIES = tuple(
    getattr(os, name)
    for name in ("supports_dir_fd", "supports_effective_ids", "supports_fd", "supports_follow_symlinks")
)
"""Sets in which the standard library looks functions up, to know what they can do."""


class StandIn:
    """Calls `tell` with the arguments, then the original."""

    def __init__(self, module: ModuleType, name: str, tell: Callable[..., None]) -> None:
        self._original: Callable[..., Any] = getattr(module, name)
        self._module = module
        self._name = name
        self._tell = tell

    @property
    def original(self) -> Callable[..., Any]:
        """The function that it stands for."""
        return self._original

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Do what the original does, having told of it."""
        self._tell(*args, **kwargs)
        return self._original(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_original"], name)

    def __repr__(self) -> str:
        return repr(self._original)

    def __reduce__(self) -> tuple[Callable[[str, str], object], tuple[str, str]]:
        return _function, (self._module.__name__, self._name)

    def install(self) -> None:
        """Take the original's place."""
        for capable in _CAPABILITIES:
            if self._original in capable:
                capable.add(self)
        setattr(self._module, self._name, self)

    def remove(self) -> None:
        """Put the original back, unless somebody else has taken the place since."""
        for capable in _CAPABILITIES:
            capable.discard(self)
        if getattr(self._module, self._name, None) is self:
            setattr(self._module, self._name, self._original)


def put_originals_back(namespace: MutableMapping[str, object]) -> None:
    """Replace the stand-ins that a cell bound to names of its own."""
    for name, value in [*namespace.items()]:
        if type(value) is StandIn:
            namespace[name] = value.original


def _function(module: str, name: str) -> object:
    return getattr(importlib.import_module(module), name)
