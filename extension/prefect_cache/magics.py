"""The magics: parse the line, call the session, show the outcome.

All that is IPython's is taken hold of here, and let go again by `unload`: two magics of one name, two input
transformers (`runner.Awaiting`; `Auto` while it is on), a matcher for Tab, the settings of ``%config PrefectCache``.

The status line is a display of its own, shown at the cell's very end (IPython's ``post_execute``), after ``Out[n]``: it
is neither part of the cell's value nor of what is stored.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib
import os
import re
import sys
import threading
import time
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

from IPython.core.displayhook import DisplayHook
from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class
from IPython.display import display
from traitlets import Bool, Enum, Float, Int, List, TraitError, Unicode, validate

from . import arguments, explain, flows, inventory, report
from .capture import (
    Recorder,
    after_cell,
    await_figures,
    figures_manner,
    inline_figures,
    plain_text,
    replay,
    shadowed,
    tee,
)
from .cells.patched import PATCHES
from .cells.randomness import WATCH, undisturbed
from .completion import Completions
from .errors import CacheError, UsageProblem
from .model import Bypass, Failed, Hit, Miss, Options, Retention
from .modules import INTERPRETERS_OWN
from .progress import Bar, Progress, Waiting
from .runner import MAGIC, Awaiting, Runner, bridge, in_bridge, users_traceback
from .store import Store, default_root
from .store.entries import ROOT_VARIABLE
from .store.trust import default_key_file
from .units import parse_size

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from traitlets import Bunch

    from .capture import Shell as IPythonShell
    from .cluster import Cluster
    from .model import Entry, Json, Key, Outcome
    from .remote import Storages
    from .session import Job, Session

OFF: Final = re.compile(r"^\s*#\s*prefect[_-]cache\s*:\s*off\b", re.MULTILINE)
"""A comment by which a cell stays out of `auto`."""

OFF_TAGS: Final = frozenset({"prefect-cache-off", "prefect_cache_off", "no-cache"})
"""Tags of a cell by which it stays out of `auto`, where the front end sends them."""

REMEMBERED: Final = 10_000
"""How many outcomes the statistics of a session keep."""


@dataclass(frozen=True, slots=True)
class Last:
    """The last cell's outcome: ``status`` is "hit", "miss", "refresh", "bypass" or "failed"."""

    status: str
    key: str
    because: str
    seconds: float
    outcome: Outcome

    @classmethod
    def of(cls, outcome: Outcome) -> Last:
        """Return what is to be known of an outcome."""
        key = outcome.key.digest if outcome.key is not None else ""
        return cls(explain.status(outcome), key, explain.reason(outcome), outcome.seconds, outcome)


@dataclass(frozen=True, slots=True)
class Status:
    """The status line, rich for a notebook and plain for a terminal."""

    outcome: Outcome
    now: float

    def __repr__(self) -> str:
        """Return the line as plain text."""
        return explain.status_line(self.outcome, self.now)

    def _repr_html_(self) -> str:
        return explain.status_html(self.outcome, self.now)


@magics_class
class PrefectCache(Magics):
    """Cells as Prefect tasks, restored where nothing that they depend on has changed."""

    shell: IPythonShell
    path = Unicode("", help="The store's folder; PREFECT_CACHE_DIR comes first.").tag(config=True)
    quiet = Bool(default_value=False, help="No status lines.").tag(config=True)
    panel = Enum(("auto", "rich", "basic", "static"), "auto", help="How the panel is shown.").tag(config=True)
    verify = Enum(("auto", "full"), "auto", help="auto: a hit samples large files; full: reads them.").tag(config=True)
    storage = Unicode("", help="What shares the entries: s3://bucket/cache, file:///mnt/team or a Prefect block.").tag(
        config=True
    )
    max_bytes = Unicode("", help="What the store may take, such as 20GB; empty: a share of the disk.").tag(config=True)
    max_age = Unicode("", help="Entries unused for longer go, such as 90d; empty: none.").tag(config=True)
    max_entry_bytes = Unicode("", help="The largest entry that is kept, such as 5GB; empty: no limit.").tag(config=True)
    policy = Enum(("value", "lru"), "value", help="What goes first: least worth, or longest unused.").tag(config=True)
    grace = Unicode("10m", help="For how long an eviction can be undone.").tag(config=True)
    task_runner = Unicode("", help="Where --submit runs cells: dask, or a Dask scheduler's tcp://host:8786.").tag(
        config=True
    )
    ttl = Unicode("", help="When entries expire, such as 12h; empty: never.").tag(config=True)
    retries = Int(0, min=0, help="How often a cell that raises is tried again.").tag(config=True)
    retry_delay = Unicode("0", help="How long to wait between the tries.").tag(config=True)
    timeout = Unicode("", help="When a running cell is stopped, such as 30m; empty: never.").tag(config=True)
    tags = List(Unicode(), help="Tags of every cell's Prefect task run.").tag(config=True)
    log_prints = Bool(default_value=False, help="What cells print is also their log on the Prefect server.").tag(
        config=True
    )
    artifact = Bool(default_value=False, help="Previews of frames go to the Prefect server as artifacts.").tag(
        config=True
    )
    ignore = List(Unicode(), help="Names that no key depends on.").tag(config=True)
    pin = Bool(default_value=False, help="Never prune new entries.").tag(config=True)
    min_seconds = Float(2.0, min=0.0, help="With auto: what runs no longer than this is not stored.").tag(config=True)

    def __init__(self, shell: IPythonShell, **settings: object) -> None:
        super().__init__(shell, **settings)
        self.runner = Runner(shell)
        self.auto = Auto(self)
        self.outcomes: list[Outcome] = []
        self.depth = 0
        self.journal = Journal(self, shell.user_ns.get("In", [])[1:-1])
        self._waits = Waiting(self.show)
        self._session: Session | None = None
        self._store: Store | None = None
        self._was: tuple[str, Options] | None = None
        self._hit_run: UUID | None = None
        self._cluster: Cluster | None = None
        self.observe(self._forget, list(_STORE_SETTINGS))

    @validate("max_bytes", "max_entry_bytes")
    def _valid_size(self, proposal: Bunch) -> str:
        return _valid(proposal.value, parse_size)

    @validate("max_age", "ttl", "timeout")
    def _valid_span(self, proposal: Bunch) -> str:
        return _valid(proposal.value, arguments.span)

    @validate("grace", "retry_delay")
    def _valid_delay(self, proposal: Bunch) -> str:
        return _valid(proposal.value, arguments.delay)

    # The two magics

    def magic(self, line: str, cell: str | None = None) -> object:  # noqa: D102 - help_text() is its docstring
        __tracebackhide__ = True
        if cell is None:
            with _in_ipythons_style():
                self._command(line)
            return None
        with _in_ipythons_style():
            said = arguments.read_cell(line, self.defaults())
            if not said.help:
                self._check(cell, said.options)
        if said.help:
            print(arguments.help_text())  # noqa: T201 - as IPython shows its own magics' help
            return _nothing() if said.awaited else None
        return self._cell(cell, said)

    magic.__doc__ = arguments.help_text()
    cast("Any", line_cell_magic)(MAGIC)(magic)  # its types know functions only

    def defaults(self) -> Options:
        """Return the options of a cell whose line says nothing."""
        return Options(
            ignore=tuple(self.ignore),
            ttl=arguments.span(self.ttl) if self.ttl else None,
            retries=self.retries,
            retry_delay=arguments.delay(self.retry_delay or "0"),
            timeout=arguments.span(self.timeout) if self.timeout else None,
            tags=tuple(self.tags),
            pin=self.pin,
            storage=self.storage,
            artifact=self.artifact,
            log_prints=self.log_prints,
            quiet=self.quiet,
        )

    # A cell

    def _check(self, cell: str, options: Options) -> None:
        if not cell.strip():
            raise UsageProblem(f"%%{MAGIC} is a cell magic, but the cell body is empty.")
        arguments.missing(options.inputs, self.shell.user_ns.keys())
        if options.submit and not self.task_runner:
            raise UsageProblem(
                "--submit needs a task runner",
                remedy="%config PrefectCache.task_runner = 'dask', or a scheduler's address: 'tcp://host:8786'",
            )

    def _cell(self, cell: str, said: arguments.CellLine) -> object:
        """Run or restore a cell; where IPython awaits it, return a coroutine that does."""
        __tracebackhide__ = True
        try:
            self.runner.check(cell)
        except SyntaxError as error:
            self._hide_ourselves(error, compiles=False)
            raise
        options = said.options.replace(silenced=_is_silenced(cell))
        work = partial(self._explain if options.explain else self._run, cell, options)
        return bridge(work) if said.awaited else work()

    def _run(self, cell: str, options: Options) -> object:
        __tracebackhide__ = True
        with self._busy(), Waiting(self.show) as self._waits:
            self._waits.says("looking whether anything has changed")
            outcome, value = self.session.run(cell, options)
        self._note(cell, options, outcome)
        if options.artifact and isinstance(outcome, Hit | Miss):
            self._report_artifacts(outcome)
        if isinstance(outcome, Failed):
            self._hide_ourselves(outcome.error)
            raise outcome.error
        return None if options.silenced else value

    def _note(self, cell: str, options: Options, outcome: Outcome) -> None:
        """Remember an outcome and show it, at the cell's end, where it is worth a line."""
        self.outcomes = [*self.outcomes[-REMEMBERED:], outcome]
        self._was = (cell, options)
        too_quick = isinstance(outcome, Bypass) and outcome.seconds <= options.min_seconds
        if not (options.quiet or too_quick or isinstance(outcome, Failed)):
            after_cell(self.shell, partial(self.show, Status(outcome, time.time())))

    def _hide_ourselves(self, error: BaseException, *, compiles: bool = True) -> None:
        """Let the traceback of `error` show the user's own frames, as if the cell had run without us.

        IPython makes the traceback once the error has come through all of our frames, so it is cut there, once.
        """
        shell, show = self.shell, self.shell.showtraceback

        def showtraceback(*said: object, **more: object) -> None:
            if sys.exc_info()[1] is error:
                error.__traceback__ = users_traceback(error)
                if not compiles:
                    more["running_compiled_code"] = False  # no frame is to blame
            show(*said, **more)

        undo = contextlib.ExitStack()
        undo.enter_context(shadowed(shell, "showtraceback", showtraceback))
        after_cell(shell, undo.close)

    # What the session is given

    @property
    def store(self) -> Store:
        """The store that the settings name."""
        if self._store is None:
            self._store = Store(self.root, self.retention)
            self._store.on_evict = lambda eviction: self.show(report.pruned(eviction, self.retention.grace))
        return self._store

    @property
    def root(self) -> Path:
        """The store's folder."""
        return Path(self.path).expanduser() if self.path and not os.environ.get(ROOT_VARIABLE) else default_root()

    @property
    def retention(self) -> Retention:
        """What the store may keep."""
        return Retention(
            max_bytes=int(parse_size(self.max_bytes)) if self.max_bytes else None,
            max_age=arguments.span(self.max_age) if self.max_age else None,
            max_entry_bytes=int(parse_size(self.max_entry_bytes)) if self.max_entry_bytes else None,
            policy="lru" if self.policy == "lru" else "value",
            grace=arguments.delay(self.grace or "0"),
        )

    @property
    def session(self) -> Session:
        """The session over the store, made when it is first needed or the settings have changed."""
        if self._session is None or self.store.root != self.root.absolute():
            self._forget()
            self._session = self._new_session()
        return self._session

    def _new_session(self) -> Session:
        from .session import Session, Shell

        shell = self.shell
        return Session(
            self.store,
            shell.user_ns,
            Shell(
                transform=self.runner.transform,
                execute=self.runner.run,
                record=lambda: Recorder(shell),
                replay=lambda displays, value: replay(displays, shell, value),
                run_task=self._run_task,
                is_hidden=self._is_hidden,
                published=_published,
                restored=self._restored,
                fetch=lambda key, options: self._storages.fetch(key, options.storage),
                keep=lambda entry, options: self._storages.keep(entry, options.storage),
                waiting=self._waiting,
                submit=self._submit,
                figures=lambda: inline_figures(shell),
                drawn=lambda: await_figures(shell),
                place=self.runner.place,
                codes=self.runner.codes,
                manner=lambda: f"{self.runner.manner()}{figures_manner(shell)}",
                preload=_preload,
                progress=lambda done, total: self._waits(done, total),  # noqa: PLW0108 - each cell has its own
            ),
            notebook=self.notebook,
            verify=self.verify,
        )

    @property
    def notebook(self) -> str:
        """The notebook's path, where who runs it tells: VS Code, papermill (``--inject-input-path``), a Jupyter server.

        nbclient, and with it ``jupyter execute`` and nbconvert, tells its kernels nothing.
        """
        names = self.shell.user_ns
        told = [str(names[name]) for name in ("__vsc_ipynb_file__", "PAPERMILL_INPUT_PATH") if name in names]
        return next(filter(None, told), os.environ.get("JPY_SESSION_NAME", ""))

    def _run_task(
        self,
        body: Callable[[], object],
        *,
        options: Options,
        key: Key,
        name: str,
        context: Mapping[str, Json] | None = None,
    ) -> tuple[object, dict[str, Json]]:
        __tracebackhide__ = True
        from .tasks import run_cell

        # Prefect's timeout is a signal, which must not break into the kernel's loop: there the runner keeps the time.
        waits = in_bridge()
        if options.log_prints:
            body = partial(_logged, body)
        self.runner.timeout = options.timeout if waits else None
        self._waits.says("")
        try:
            return run_cell(
                body, options=options.replace(timeout=None) if waits else options, key=key, name=name, context=context
            )
        finally:
            self._waits.says("storing what the cell made")

    def _is_hidden(self, name: str) -> bool:
        """Tell whether a name is the shell's own, as long as the user has not taken it."""
        hidden, names = self.shell.user_ns_hidden, self.shell.user_ns
        return name in INTERPRETERS_OWN or (name in hidden and hidden[name] is names.get(name))

    def _restored(self, entry: Entry, key: Key) -> None:
        from .tasks import report_hit

        self._hit_run = report_hit(entry, key, notebook=self.notebook)

    def _report_artifacts(self, outcome: Hit | Miss) -> None:
        from .tasks import report_artifacts

        ran = str(outcome.entry.manifest.run.prefect.get("task_run_id") or "")
        run = self._hit_run if isinstance(outcome, Hit) else UUID(ran) if ran else None
        if run is not None and (notes := report_artifacts(outcome.entry, run, self.notebook)):
            self.show(explain.Lines(tuple(notes)))

    def _submit(self, job: Job) -> Mapping[str, Json]:
        __tracebackhide__ = True
        from .cluster import Cluster

        self._waits.says("running on the cluster")
        with undisturbed():  # Dask draws random numbers for its own ends
            if self._cluster is None or self._cluster.name != self.task_runner:
                self._let_cluster_go()
                self._cluster = Cluster(self.task_runner)
            return self._cluster.run(job, lambda display: replay([display], self.shell))

    def _let_cluster_go(self) -> None:
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None

    @cached_property
    def _storages(self) -> Storages:
        from .remote import Storages

        return Storages(self.store, lambda trouble: self.show(explain.Lines((trouble,))))

    def _waiting(self, holder: str) -> None:
        self.show(explain.Lines((f"waiting for {holder}, where this very cell runs now",)))

    def _forget(self, change: object = None) -> None:  # noqa: ARG002 - traitlets calls it with what has changed
        self._session = self._store = None
        if storages := self.__dict__.pop("_storages", None):
            storages.close()

    # Explaining

    def body_as_python(self, body: str) -> str:
        """Return a body as plain Python before it runs, without `auto`'s line over it."""
        with self._busy():
            return str(self.shell.input_transformer_manager.transform_cell(body))

    @contextlib.contextmanager
    def _busy(self) -> Iterator[None]:
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def _explain(self, cell: str, options: Options) -> None:
        self.show(explain.Lines(tuple(self.session.explain(cell, options)), headed=True))

    # Sub-commands

    def _command(self, line: str) -> None:
        name, said = arguments.read_line(line)
        if getattr(said, "help", False):
            print(arguments.line_parsers()[name].format_help())  # noqa: T201 - as IPython shows its own magics' help
            return
        getattr(self, f"_do_{name}")(said)

    def _do_panel(self, said: Namespace) -> None:  # noqa: ARG002 - one signature for all commands
        from .panel.widget import Host, show

        def load(entry: Entry, name: str) -> object:
            return self.session.load(entry, name)[name]

        def text(value: object, limit: int) -> str:
            return plain_text(self.shell, value, limit)

        panel = show(Host(self.store, load, self.shell.user_ns, self.notebook, text), self.panel)
        cast("Any", display)(panel)  # it has no types

    def _do_list(self, said: Namespace) -> None:
        if storage := getattr(said, "storage", ""):
            remote = inventory.reach(storage, self.store)
            self.show(inventory.table(remote.catalog(), remote.place.url, said.search))
            return
        self.show(report.entries(self.store.briefs(), said.search, said.sort, self.notebook))

    def _do_show(self, said: Namespace) -> None:
        self.show(report.entry(self.store.get(said.key)))

    def _do_load(self, said: Namespace) -> None:
        entry = self.store.get(said.key)
        wanted, _, renamed = getattr(said, "output", "").partition("=")
        values = self.session.load(entry, wanted or None)
        if renamed:
            values = {renamed: values[wanted]} if wanted in values else {}
        taken = [name for name in values if name in self.shell.user_ns]
        if taken and not getattr(said, "overwrite", False):
            raise UsageProblem(
                f"the notebook has {', '.join(taken)} already; --overwrite replaces it, -o {taken[0]}=NAME renames it"
            )
        self.shell.push(values)
        print(report.loaded(values, entry))  # noqa: T201 - what a command answers

    def _do_why(self, said: Namespace) -> None:
        if hasattr(said, "key"):
            entry = self.store.get(said.key)
            self.show(explain.Lines(tuple(explain.ran_because(entry, self._compared(entry))), headed=True))
        elif not self.outcomes or self._was is None:
            raise UsageProblem("no cell has run under %%prefect_cache in this session yet")
        else:
            outcome, (source, options) = self.outcomes[-1], self._was
            lines = report.verdict(outcome)
            if isinstance(outcome, Miss):
                lines += self._compared(outcome.entry).lines()
            elif isinstance(outcome, Bypass) and outcome.key is not None:
                lines += explain.compare(outcome.key, source, self._alike(outcome.key, options.name)).lines()
            self.show(explain.Lines(tuple(lines), headed=True))

    def _compared(self, entry: Entry) -> explain.Comparison:
        manifest = entry.manifest
        earlier = self._alike(manifest.key, manifest.name)
        return explain.compare(manifest.key, manifest.source, earlier, than=entry)

    def _alike(self, key: Key, name: str) -> tuple[Entry, ...]:
        code = next((part.digest for part in key.parts if part.kind == "code"), "")
        return self.store.alike(name, code, limit=50)

    def _do_evict(self, said: Namespace) -> None:
        if storage := getattr(said, "storage", ""):
            self.show(explain.Lines(inventory.evict(inventory.reach(storage, self.store), said.keys).lines))
            return
        entries = [self.store.get(key) for key in said.keys]
        self.show(report.evicted(self.store.evict(entries), self.store.retention.grace))

    def _do_undo(self, said: Namespace) -> None:  # noqa: ARG002 - one signature for all commands
        back = ", ".join(entry.manifest.name for entry in self.store.undo())
        print(f"back: {back}" if back else "nothing to undo")  # noqa: T201 - what a command answers

    def _do_pin(self, said: Namespace) -> None:
        entry = self.store.get(said.key)
        self.store.pin(entry)
        print(f"pinned {entry.manifest.name}")  # noqa: T201 - what a command answers

    def _do_unpin(self, said: Namespace) -> None:
        entry = self.store.get(said.key)
        self.store.unpin(entry)
        print(f"unpinned {entry.manifest.name}")  # noqa: T201 - what a command answers

    def _do_prune(self, said: Namespace) -> None:
        dry_run = getattr(said, "dry_run", False)
        max_age, max_bytes = getattr(said, "max_age", None), getattr(said, "max_size", None)
        if storage := getattr(said, "storage", ""):
            remote = inventory.reach(storage, self.store)
            done = inventory.prune(remote, max_age=max_age, max_bytes=max_bytes, dry_run=dry_run)
            self.show(explain.Lines(done.lines))
            return
        usual = self.retention
        asked = dataclasses.replace(usual, max_age=max_age or usual.max_age, max_bytes=max_bytes or usual.max_bytes)
        store = self.store if asked == usual else Store(self.root, asked)
        plan = store.plan()
        self.show(report.plan(plan) if dry_run else report.evicted(store.prune(plan), store.retention.grace))

    def _do_check(self, said: Namespace) -> None:
        fix = getattr(said, "fix", False)
        with Progress(self.show, "checking") as progress:
            problems = self.store.check(progress, fix=fix)
        self.show(report.problems(problems, fixed=fix))

    def _do_stats(self, said: Namespace) -> None:  # noqa: ARG002 - one signature for all commands
        self.show(report.stats(self.outcomes, self.store.usage()))

    def _do_where(self, said: Namespace) -> None:  # noqa: ARG002 - one signature for all commands
        named = "%config PrefectCache.path" if self.path else "the system, for caches"
        if os.environ.get(ROOT_VARIABLE):
            named = ROOT_VARIABLE
        self.show(report.where(self.store.usage(), named, default_key_file()))

    def _do_auto(self, said: Namespace) -> None:
        if hasattr(said, "min_seconds"):
            self.min_seconds = said.min_seconds
        if hasattr(said, "state"):
            self.auto.switch(on=said.state == "on")
        print(self.auto)  # noqa: T201 - what a command answers

    def _do_export(self, said: Namespace) -> None:
        path = Path(said.file).expanduser()
        title = Path(self.notebook).stem or "notebook"
        text = flows.write(self.journal.steps(), title=title, transform=self.body_as_python)
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UsageProblem(f"{path} cannot be written: {error.strerror}") from error
        print(f"wrote {path}: `python {path}` runs it")  # noqa: T201 - what a command answers

    def _do_config(self, said: Namespace) -> None:  # noqa: ARG002 - one signature for all commands
        traits = self.class_own_traits(config=True)
        rows = tuple((name, repr(getattr(self, name)), trait.help) for name, trait in sorted(traits.items()))
        self.show(explain.Table(("Setting", "Value", ""), rows, footer=("%config PrefectCache.NAME = VALUE sets one",)))

    def _do_help(self, said: Namespace) -> None:  # noqa: ARG002 - one signature for all commands
        print(arguments.help_text())  # noqa: T201 - as IPython shows its own magics' help

    # Showing

    def show(self, thing: object, display_id: str | None = None, *, update: bool = False) -> None:
        """Display one of our own things, marked as ours, so that tools can tell it from a cell's output."""
        if isinstance(thing, Bar) and not hasattr(self.shell, "kernel"):
            return  # a terminal cannot take back what it has printed
        data = {"text/plain": repr(thing)}
        if (html := getattr(thing, "_repr_html_", None)) is not None:
            data["text/html"] = html()
        transient: dict[str, Json] = {} if display_id is None else {"display_id": display_id}
        metadata = {"prefect_cache": type(thing).__name__.lower()}
        self.shell.display_pub.publish(data, metadata, transient=transient, update=update)


_STORE_SETTINGS: Final = ("path", "max_bytes", "max_age", "max_entry_bytes", "policy", "grace", "verify", "storage")


class Auto:
    """An input transformer that puts the cell magic over every cell, while it is on.

    It acts on whole cells only: what is transformed while one runs (the body of a magic, our own) is left as it is.
    """

    def __init__(self, magics: PrefectCache) -> None:
        self._magics = magics
        self.on = False

    def __repr__(self) -> str:
        """Return whether it is on, and since how many seconds a run is worth storing."""
        if not self.on:
            return "auto is off"
        least = f"{self._magics.min_seconds:g} s"
        return f"auto is on: cells that run longer than {least} are cached; `# prefect_cache: off` leaves one out"

    def switch(self, *, on: bool) -> None:
        """Turn it on or off."""
        transformers = self._magics.shell.input_transformers_cleanup
        if on and not self.on:
            transformers.append(self)
        elif self.on and not on:
            transformers.remove(self)
        self.on = on

    def __call__(self, lines: list[str]) -> list[str]:
        """Return a cell's lines with the magic over them, where the cell is one to cache."""
        shell = self._magics.shell
        running = self._magics.depth or shell.displayhook.exec_result is not None
        if running or not _may_be_cached("".join(lines)) or OFF_TAGS & _tags(shell):
            return lines
        return [f"%%{MAGIC} --auto {self._magics.min_seconds:g}\n", *lines]


def _may_be_cached(cell: str) -> bool:
    """Tell whether a cell has code that `auto` may cache: not another magic's cell, nor one that opts out."""
    if OFF.search(cell) or re.search(rf"%{MAGIC}\b|%(re|un)?load_ext\b|%config\b", cell):
        return False
    lines = [line.strip() for line in cell.splitlines()]
    code = [line for line in lines if line and not line.startswith("#")]
    if not code or (code[0].startswith("%%") and not re.match(r"%%time\b", code[0])):
        return False
    return any(not line.startswith(("%", "!", "?")) and not line.endswith("?") for line in code)


def _tags(shell: IPythonShell) -> frozenset[str]:
    """Return the tags of the cell that the front end has just sent; not every front end sends them."""
    parent: dict[str, Any] = getattr(shell, "get_parent", dict)() or {}
    tags = parent.get("metadata", {}).get("tags", ())
    return frozenset(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list | tuple) else frozenset()


class Journal:
    """The cells that ran to their end in this session, each as it ran last, in order."""

    def __init__(self, magics: PrefectCache, earlier: Iterable[str]) -> None:
        self._magics = magics
        self._cells: dict[str, str] = {source: source for source in earlier}
        for source in self._cells:
            self._see_patches(source)

    def note(self, result: Any) -> None:
        """Take down a cell that has run; IPython calls this after each."""
        info = result.info
        if isinstance(info.raw_cell, str):
            self._see_patches(info.raw_cell)
        if result.success and info.store_history and isinstance(info.raw_cell, str):
            key = getattr(info, "cell_id", None) or info.raw_cell
            self._cells.pop(key, None)
            self._cells[key] = info.raw_cell

    def _see_patches(self, source: str) -> None:
        if "." in source and not source.lstrip().startswith(f"%%{MAGIC}"):  # what the session runs it looks at itself
            with contextlib.suppress(SyntaxError):
                PATCHES.note(ast.parse(self._magics.body_as_python(source)), self._magics.shell.user_ns)

    def steps(self) -> list[flows.Step]:
        """Return the cells, the cached ones with their options."""
        return [step for source in self._cells.values() if (step := self._step(source)) is not None]

    def _step(self, source: str) -> flows.Step | None:
        first, _, body = source.lstrip().partition("\n")
        if not first.startswith("%%"):
            return flows.Step(source)
        if first.split()[0] != f"%%{MAGIC}":
            return None
        said = arguments.read_cell(first.removeprefix(f"%%{MAGIC}"), self._magics.defaults())
        return None if said.help or said.options.explain else flows.Step(body, said.options)


def _valid(text: str, parse: Callable[[str], float]) -> str:
    """Return a setting's text where it can be read; empty stands for none."""
    try:
        if text:
            parse(text)
    except Exception as error:
        raise TraitError(str(error)) from error
    return text


@contextlib.contextmanager
def _in_ipythons_style() -> Iterator[None]:
    """Say what is wrong with a line as IPython does: one line, no traceback."""
    try:
        yield
    except CacheError as error:
        raise UsageError(f"{error.message}{'; ' + error.remedy if error.remedy else ''}") from None


def _is_silenced(cell: str) -> bool:
    """Tell whether a cell ends with a semicolon, by which IPython shows no value."""
    semicolon: Callable[[str], bool] = DisplayHook.semicolon_at_end_of_expression
    return semicolon(cell)


async def _nothing() -> None:
    """Do nothing, for IPython to await."""


def _logged(body: Callable[[], object]) -> object:
    """Run a cell's body; what it prints is also the log of its task run, where a server takes it."""
    __tracebackhide__ = True
    from .tasks import printing

    with printing() as told, contextlib.ExitStack() as watched:
        if told is not None:
            # A stream of a built-in type cannot be watched; the recorder says so.
            with contextlib.suppress(AttributeError, TypeError):
                watched.enter_context(tee(sys.stdout, told))
        return body()


def _preload() -> None:
    from .tasks import preload

    preload()


def _published(entry: Entry, key: Key) -> None:
    from .tasks import published

    published(entry, key)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was given to a shell, and what stood under our magics' name before."""

    magics: PrefectCache
    awaiting: Awaiting
    completions: Completions
    before: dict[str, Any]


_loaded: Loaded | None = None


def last() -> Last | None:
    """Return the last cell's outcome; None before the first."""
    if _loaded is None or not _loaded.magics.outcomes:
        return None
    return Last.of(_loaded.magics.outcomes[-1])


def load(shell: IPythonShell) -> None:
    """Give the shell our magics."""
    global _loaded  # noqa: PLW0603 - one shell for a process, as IPython has it
    if _loaded is not None:
        return
    known = shell.magics_manager.magics
    before = {kind: known[kind].get(MAGIC) for kind in ("line", "cell")}
    magics = PrefectCache(shell)
    shell.register_magics(magics)
    _loaded = Loaded(magics, Awaiting(shell, magics.body_as_python), Completions(magics), before)
    shell.input_transformers_post.append(_loaded.awaiting)
    _loaded.completions.install(shell)
    WATCH.start(seeded=_may_have_seeded(shell.user_ns.get("In", [])[1:-1]))
    for event in _AROUND_CELLS:
        shell.events.register(event, _look_at_generators)
    shell.events.register("post_run_cell", magics.journal.note)
    # What the first cell needs is imported while the person goes on to it.
    threading.Thread(target=importlib.import_module, args=("prefect_cache.session",), daemon=True).start()


_AROUND_CELLS: Final = ("pre_run_cell", "post_run_cell")


def _look_at_generators(*_: object) -> None:
    WATCH.look()


def _may_have_seeded(earlier: list[str]) -> bool:
    """Tell whether cells that ran before us may have seeded a generator: imports and plain values alone do not."""
    return any(isinstance(node, ast.Call) for cell in earlier for node in ast.walk(_parsed(cell)))


def _parsed(cell: str) -> ast.AST:
    lines = [
        line for line in cell.splitlines() if not line.lstrip().startswith(("%load_ext", "%matplotlib", "%config"))
    ]
    try:
        return ast.parse("\n".join(lines))
    except SyntaxError:
        return ast.parse("unknown()")


def unload(shell: IPythonShell) -> None:
    """Take our magics away again, and leave the shell as it was."""
    global _loaded
    if _loaded is None:
        return
    given, _loaded = _loaded, None
    given.magics.auto.switch(on=False)
    given.magics._let_cluster_go()  # noqa: SLF001 - our own
    given.completions.remove(shell)
    shell.input_transformers_post.remove(given.awaiting)
    WATCH.stop()
    for event in _AROUND_CELLS:
        shell.events.unregister(event, _look_at_generators)
    shell.events.unregister("post_run_cell", given.magics.journal.note)
    shell.configurables.remove(given.magics)
    manager = shell.magics_manager
    manager.registry.pop(type(given.magics).__name__, None)
    for kind, was in given.before.items():
        manager.magics[kind].pop(MAGIC, None)
        if was is not None:
            manager.magics[kind][MAGIC] = was
