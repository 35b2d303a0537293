"""A notebook without IPython, Prefect or a front end: a namespace, a store and a session between them."""

from __future__ import annotations

import ast
import builtins
import textwrap
from typing import TYPE_CHECKING, Any, Self

from prefect_cache.cells.randomness import WATCH
from prefect_cache.model import Options
from prefect_cache.session import Session, Shell
from prefect_cache.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from prefect_cache.model import Json, Key, Outcome


class PrintRecorder:
    """Records the last value's text and nothing else."""

    def __init__(self) -> None:
        self.taints: tuple[str, ...] = ()
        self.displays: tuple[Mapping[str, Json], ...] = ()

    def result(self, value: object) -> None:
        """Take down the last expression's value."""
        if value is not None:
            self.displays += ({"output_type": "execute_result", "text": repr(value)[:200]},)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class Notebook:
    """Cells over one namespace; a new one over the same store is a restarted kernel."""

    def __init__(self, root: Path, **names: object) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins, **names}
        self.store = Store(root)
        self.shown: list[Mapping[str, Json]] = []
        self.runs = 0
        shell = Shell(
            transform=lambda source: source,
            execute=self._execute,
            record=PrintRecorder,
            replay=self._replay,
            run_task=self._run_task,
        )
        self.session = Session(self.store, self.names, shell, notebook="test.ipynb")
        # As in a new process: whatever other tests and Hypothesis have seeded, this notebook has not.
        WATCH.start()

    def run(self, source: str) -> None:
        """Run a cell without the cache."""
        self._execute(textwrap.dedent(source))

    def cached(self, source: str, **options: Any) -> Outcome:
        """Run a cell with the cache and return its outcome; raise what it raised."""
        outcome, self.value = self.session.run(textwrap.dedent(source), Options(**options))
        if error := getattr(outcome, "error", None):
            raise error
        return outcome

    def __getitem__(self, name: str) -> Any:
        return self.names[name]

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def _execute(self, python: str) -> object:
        self.runs += 1
        tree = ast.parse(python)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "<cell>", "exec"), self.names)
        if last is None:
            return None
        return eval(compile(ast.Expression(last.value), "<cell>", "eval"), self.names)

    def _replay(self, displays: Sequence[Mapping[str, Json]], value: object) -> None:
        self.shown += displays

    def _run_task(
        self,
        body: Callable[[], object],
        *,
        options: Options,
        key: Key,
        name: str,
        context: Mapping[str, Json] | None = None,
    ) -> tuple[object, dict[str, Json]]:
        for left in reversed(range(options.retries + 1)):
            try:
                return body(), {}
            except Exception:
                if not left:
                    raise
        raise AssertionError
