"""Makes the serializers "arrow" and "compressed/arrow" known wherever Prefect is imported.

Prefect finds a serializer by its name only if the module that defines it was imported, and a worker, a
subprocess or a script that reads results imports no module of ours. So this file runs at the start of every Python of
the environment (``prefect_cache.pth`` imports it) and does one thing: when ``prefect.serializers`` is
imported, it lets ``prefect_cache.serializers`` follow. It imports nothing itself, and costs
a tenth of a millisecond.

Where ``.pth`` files are not read (``python -S``, ``-I`` keeps them) import ``prefect_cache.serializers`` yourself.
"""

import sys

TYPE_CHECKING = False  # type checkers know the name; the module typing would take ten times as long as all else here
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

AFTER = "prefect.serializers"


class Watcher:
    """A finder of modules that finds one, once."""

    def find_spec(
        self,
        name: str,
        path: "Sequence[str] | None" = None,
        target: "ModuleType | None" = None,  # noqa: ARG002  Python calls it so
    ) -> "ModuleSpec | None":
        """Return the module's spec, with a loader that has ours follow."""
        if name != AFTER:
            return None
        sys.meta_path.remove(self)
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Follower(spec.loader)  # type: ignore[assignment]  # a loader by what it can do
        return spec


class _Follower:
    """A module's own loader, after which our module is imported."""

    def __init__(self, loader: "Loader") -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)

    def create_module(self, spec: "ModuleSpec") -> "ModuleType | None":
        """Leave it to the module's own loader."""
        return self._loader.create_module(spec)

    def exec_module(self, module: "ModuleType") -> None:
        """Run the module, then ours."""
        self._loader.exec_module(module)
        try:
            import prefect_cache.serializers  # noqa: F401
        except Exception as error:  # noqa: BLE001  Prefect must come up, whatever is wrong with us
            import warnings

            warnings.warn(f'the serializer "arrow" of prefect_cache is not available: {error!r}', stacklevel=2)


sys.meta_path.insert(0, Watcher())
