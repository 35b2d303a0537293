"""The heart: a cell's source goes in, an :class:`~prefect_cache.model.Outcome` comes out.

A session knows a namespace, a store and a few callables (how to run Python there, how to record what it
shows, how to run something as a task); it knows no shell, no Prefect and no front end.

What happens to a cell, in order::

    analyse the source  ->  keys of the inputs' values  ->  look in the store, verify what was observed
        hit:   read everything, then change the namespace, then show what it showed
        miss:  hold the key's lock, look again, run under observation, take the effects, publish

Whatever cannot be known on this way makes a bypass: the cell runs, nothing is stored, and a sentence says why.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import getpass
import socket
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, cast

from prefect_cache import explain
from prefect_cache.capture import at_the_end
from prefect_cache.cells import effects, lasting, loaded, observe, randomness, standing, state
from prefect_cache.cells.analysis import analyse, tree_digest
from prefect_cache.cells.effects import Before, Effects, Replay
from prefect_cache.cells.graph import GraphWriter
from prefect_cache.cells.keys import changed_files, held, key_for, name_digest, named
from prefect_cache.cells.patched import PATCHES
from prefect_cache.cells.state import Watch
from prefect_cache.codecs.pickled import compiled_as
from prefect_cache.digests import combine
from prefect_cache.errors import (
    CacheError,
    Damaged,
    StoreUnwritable,
    Unfingerprintable,
    Unstorable,
    Untrusted,
    first_line,
)
from prefect_cache.model import (
    FORMAT,
    Bypass,
    Cell,
    Change,
    Entry,
    Failed,
    Hit,
    Json,
    Key,
    Manifest,
    Miss,
    Observed,
    Options,
    Outcome,
    Problem,
    Run,
)
from prefect_cache.modules import INTERPRETERS_OWN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
    from types import CodeType

    from prefect_cache.cells.fingerprint import Fingerprinter
    from prefect_cache.store import Store


class Recorder(Protocol):
    """Takes down what is shown while it is entered; see ``capture.Recorder``."""

    taints: tuple[str, ...]

    @property
    def displays(self) -> tuple[Mapping[str, Json], ...]:
        """What was shown, in order."""

    def result(self, value: object) -> None:
        """Take down the last expression's value."""

    def __enter__(self) -> object: ...

    def __exit__(self, *error: object) -> object: ...


class RunTask(Protocol):
    """Runs a body as a Prefect task; see ``tasks.run_cell``."""

    def __call__(  # noqa: D102 - the class says it
        self,
        body: Callable[[], object],
        *,
        options: Options,
        key: Key,
        name: str,
        context: Mapping[str, Json] | None = None,
    ) -> tuple[object, dict[str, Json]]: ...


class Job(TypedDict):
    """A cell on its way to a worker: what `Session.compute` is to be asked there, and where its inputs lie."""

    source: str
    file: str
    options: dict[str, Any]
    key: str
    parts: list[tuple[Any, ...]]
    outputs: list[dict[str, Any]]
    references: dict[str, Any]
    folder: str
    root: str
    cwd: str
    path: list[str]
    settings: dict[str, dict[str, Any]]
    figures: dict[str, Json] | None
    random: dict[Any, Any]
    notebook: str
    prefect: dict[str, Json]


@dataclass(frozen=True, slots=True)
class Shell:
    """What a session asks of the place where cells run.

    Attributes
    ----------
    transform
        Turns a cell's source into plain Python.
    execute
        Runs plain Python in the namespace and returns its last expression's value.
    record
        Gives a new recorder of what is shown.
    replay
        Shows what was recorded, given the restored last value.
    run_task
        Runs a body as a Prefect task.
    is_hidden
        Tells the names that belong to the shell rather than to the notebook.
    published
        Called with an entry that a task has made, and its key.
    restored
        Called with an entry that was restored, and its key.
    fetch
        Brings the entries of a key, given by its digest, from the storage that the options name; tells whether there
        were any.
    keep
        Sends an entry to the storage that the options name, unless it is there.
    waiting
        Called with who runs the same cell now, before waiting for them.
    preload
        Called when a cell will certainly have to run, before its inputs are looked at: what `run_task` needs can be
        loaded meanwhile.
    progress
        Called with the bytes done and in all (0: not known) while an entry is verified in full, or written.
    manner
        How source is compiled and shown now, where that can be set (``from __future__ import annotations`` lasts).
    submit
        Runs a job on a cluster and waits for it, while it shows what the cell shows; what it returns is
        ``cluster.work``'s, and whether it has ``"shown"`` anything.
    figures
        How figures are shown where they are shown below cells, see ``capture.inline_figures``.
    drawn
        Called when figures have been restored: who draws one has a backend by then, which shows it.
    place
        Tells the file name under which plain Python is compiled, and how many lines stand before it in its cell.
    codes
        Compiles plain Python as `execute` would, and lets tracebacks and ``inspect.getsource`` find it.
    """

    transform: Callable[[str], str]
    execute: Callable[[str], object]
    record: Callable[[], Recorder]
    replay: Callable[[Sequence[Mapping[str, Json]], object], None]
    run_task: RunTask
    is_hidden: Callable[[str], bool] = INTERPRETERS_OWN.__contains__
    published: Callable[[Entry, Key], None] = lambda _entry, _key: None
    restored: Callable[[Entry, Key], None] = lambda _entry, _key: None
    fetch: Callable[[str, Options], bool] = lambda _key, _options: False
    keep: Callable[[Entry, Options], None] = lambda _entry, _options: None
    waiting: Callable[[str], None] = lambda _holder: None
    submit: Callable[[Job], Mapping[str, Json]] = lambda _job: {"bypass": "no task runner is set", "shown": False}
    figures: Callable[[], dict[str, Json] | None] = lambda: None
    drawn: Callable[[], None] = lambda: None
    place: Callable[[str], tuple[str, int]] = lambda _python: ("<cell>", 0)
    codes: Callable[[str], Iterable[CodeType]] = lambda _python: ()
    manner: Callable[[], str] = lambda: ""
    preload: Callable[[], object] = lambda: None
    progress: Callable[[int, int], None] = lambda _done, _total: None


@dataclass(slots=True)
class _Ran:
    """What became of one run of a cell's body."""

    value: object = None
    seconds: float = 0.0
    started: float = 0.0
    recorder: Recorder | None = None
    observer: observe.Observer | None = None
    process: dict[str, Any] = field(default_factory=dict)
    prefect: dict[str, Json] = field(default_factory=dict)
    attempts: int = 0
    held: tuple[Observed, ...] = ()
    watch: Watch | None = None
    module: str = ""
    standing: list[dict[str, Any]] = field(default_factory=list)
    left: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should hear about the run besides its outcome."""
        told = cast("list[str]", self.prefect.get("notes") or [])
        return (*told, *(self.observer.notes if self.observer is not None else ()))


class Session:
    """Runs a notebook's cells, or restores them.

    Parameters
    ----------
    store
        Where entries are.
    namespace
        The notebook's variables; cells run and are restored here.
    shell
        How cells are run and shown.
    notebook
        The notebook's name, for people.
    verify
        ``"full"`` reads every file of an entry before it is restored, ``"auto"`` samples the large ones.
    """

    def __init__(
        self,
        store: Store,
        namespace: MutableMapping[str, object],
        shell: Shell,
        *,
        notebook: str = "",
        verify: str = "auto",
    ) -> None:
        self.store = store
        self.namespace = namespace
        self.shell = shell
        self.notebook = notebook
        self.verify = verify

    # The way of a cell

    def _key(self, cell: Cell, options: Options) -> tuple[Key, Fingerprinter]:
        with _unless_raised(Unfingerprintable, "looking at what it depends on"):
            return key_for(cell, self.namespace, options, self.shell.manner())

    def run(self, source: str, options: Options) -> tuple[Outcome, object]:
        """Restore the cell or run it; return what became of it and its last expression's value.

        Raises
        ------
        SyntaxError
            Where the source is no Python. Whatever the cell itself raises is returned as :class:`Failed`.
        """
        __tracebackhide__ = True
        started = time.perf_counter()
        cell = analyse(source, transform=self.shell.transform, names=self.namespace)
        if cell.dynamic:
            return self._bypass(cell, options, cell.dynamic[0], remedy=lasting.remedy(cell.dynamic[0]))
        if options.refresh or not self.store.alike("", tree_digest(cell.tree), limit=1):
            self.shell.preload()
        try:
            key, found = self._key(cell, options)
        except Unfingerprintable as error:
            return self._bypass(cell, options, _unkeyed(error), _way_out(error))
        if found.dynamic:
            return self._bypass(cell, options, found.dynamic[0], remedy=lasting.remedy(found.dynamic[0]))
        because = ""
        if not options.refresh:
            hit, because = self._restore(cell, key, started)
            if hit is None and options.storage and self.shell.fetch(key.digest, options):
                hit, because = self._restore(cell, key, started)
            if hit is not None:
                if options.storage:
                    self.shell.keep(cast("Hit", hit[0]).entry, options)
                return hit
        return self._run_alone(cell, key, found, options, because, started)

    def _run_alone(
        self, cell: Cell, key: Key, found: Fingerprinter, options: Options, because: str, started: float
    ) -> tuple[Outcome, object]:
        """Run the cell while nobody else does, unless they did while we waited."""
        __tracebackhide__ = True
        waited: list[str] = []

        def wait(holder: str) -> None:
            waited.append(holder)
            self.shell.waiting(holder)

        with self.store.lock(key.digest, on_wait=wait, notebook=self.notebook):
            if not options.refresh and (waited or not because):
                hit, because = self._restore(cell, key, started)
                if hit is not None:
                    return hit
            because = because or self._because(cell, key, options)
            if options.submit:
                return self._submit(cell, key, found, options, because, started)
            return self._run_and_store(cell, key, found, options, because)

    def restore(self, source: str, options: Options) -> tuple[Outcome, object] | None:
        """Restore the cell where a run of it still holds; else change nothing and return None."""
        started = time.perf_counter()
        cell = analyse(source, transform=self.shell.transform, names=self.namespace)
        try:
            key, found = self._key(cell, options)
        except Unfingerprintable:
            return None
        return None if cell.dynamic or found.dynamic else self._restore(cell, key, started)[0]

    def explain(self, source: str, options: Options) -> list[str]:
        """Return, in lines, whether the cell would be restored and why or why not; run nothing."""
        cell = analyse(source, transform=self.shell.transform, names=self.namespace)
        try:
            key, found = self._key(cell, options)
        except Unfingerprintable as error:
            return [f"bypass: {_unkeyed(error)}", f"what helps: {explain.clause(_way_out(error))}"]
        if reasons := (*cell.dynamic, *found.dynamic):
            return [*(f"bypass: {reason}" for reason in reasons), f"what helps: {lasting.remedy(reasons[0])}"]
        for entry in self.store.variants(key.digest):
            if self._difference(entry) is None:
                moment = explain.day(entry.manifest.run.started, time.time())
                return [f"hit: {entry.manifest.name} would be restored, as it ran {moment}"]
        stale = max(self.store.variants(key.digest), key=lambda entry: entry.manifest.run.started, default=None)
        older = stale or self._nearest(cell, key, options.name)
        seen = self._differences(stale) if stale is not None else ()
        compared = explain.compare(key, cell.source, [older] if older else [], observed=seen)
        return [f"miss: {explain.because_all(compared.changes)}", *compared.lines()]

    def _differences(self, entry: Entry) -> tuple[Change, ...]:
        """Return all that `_difference` returns the first of."""
        first = self._difference(entry)
        if first is None or first.kind in ("expired", "input"):
            return () if first is None else (first,)
        return observe.differences(entry.manifest.observed)

    # Hits

    def _difference(self, entry: Entry) -> Change | None:
        """Return the first thing outside the namespace that is not as the run saw it, or None."""
        if entry.expires is not None and entry.expires < time.time():
            return Change("expired", entry.manifest.name, "gone")
        names = [seen for seen in entry.manifest.observed if seen.kind == "name"]
        for seen in names:
            if name_digest(self.namespace, seen.name) != seen.digest:
                return Change("input", seen.name, "changed")
        return observe.verify([seen for seen in entry.manifest.observed if seen.kind != "name"])

    def _restore(
        self, cell: Cell, key: Key, started: float, *, shown: bool = False
    ) -> tuple[tuple[Outcome, object] | None, str]:
        """Restore the first entry that still holds; else return why there is none.

        With `shown`, what the cell showed while it ran stands below it already.
        """
        because = ""
        for entry in self.store.variants(key.digest):
            try:
                change = self._difference(entry)
                if change is not None:
                    because = because or explain.because(change)
                    continue
                _check_trust(entry, cell)
                self._check(entry)
                with (
                    _unless_raised(Damaged, "reading it"),
                    compiled_as(lambda: self.shell.codes(cell.python)),
                ):
                    replay = Replay(entry, self.namespace)
            except (Damaged, Untrusted) as error:
                because = f"its stored run cannot be used: {error.message}"
                what = f"{error.message}; the cell runs instead"
                self.store.on_problem(Problem(entry.path, what, entry.manifest.name))
                continue
            except Unfingerprintable as error:
                because = because or error.message
                continue
            return self._replayed(cell, entry, replay, key, started, shown=shown), ""
        return None, because

    def _check(self, entry: Entry) -> None:
        if self.verify != "full":
            self.store.check_files(entry)
            return
        total, done = sum(output.size for output in entry.manifest.outputs), 0

        def step(count: int) -> None:
            nonlocal done
            done += count
            self.shell.progress(done, total)

        self.store.check_files(entry, full=True, progress=step)

    def _replayed(
        self, cell: Cell, entry: Entry, replay: Replay, key: Key, started: float, *, shown: bool
    ) -> tuple[Outcome, object]:
        replay.apply(cell.tree)
        if replay.drawn:
            self.shell.drawn()
        PATCHES.note(cell.tree, self.namespace)
        randomness.WATCH.restored(entry.manifest.observed)
        displays = entry.manifest.displays
        self.shell.replay(at_the_end(displays) if shown else displays, replay.value)
        self.store.touch(entry)
        if self.verify != "full":
            self.store.verify_later(entry)
        self.shell.restored(entry, key)
        return Hit(entry, time.perf_counter() - started, key), replay.value

    # Misses

    def _because(self, cell: Cell, key: Key, options: Options) -> str:
        """Return why there is no hit, by comparison with the most similar entry."""
        if options.refresh:
            return "asked for with --refresh"
        older = self._nearest(cell, key, options.name)
        return explain.because_all(() if older is None else key.changes(older.manifest.key))

    def _nearest(self, cell: Cell, key: Key, name: str) -> Entry | None:
        code = next(part.digest for part in key.parts if part.kind == "code")
        return explain.nearest(key, self.store.alike(name or _first_name(cell), code), cell.source)

    def _bypass(self, cell: Cell, options: Options, reason: str, remedy: str = "") -> tuple[Outcome, object]:
        __tracebackhide__ = True
        nameless = Key(combine("bypass", cell.python), ())
        ran = _Ran()

        def body() -> object:
            __tracebackhide__ = True
            return self.shell.execute(cell.python)

        if (failed := self._run_task(body, ran, cell, options, nameless)) is not None:
            return failed, None
        return Bypass(reason, ran.seconds, None, remedy, ran.notes), ran.value

    def _run_task(self, body: Callable[[], object], ran: _Ran, cell: Cell, options: Options, key: Key) -> Failed | None:
        """Run the body as a task; fill in `ran`, or return what failed."""
        __tracebackhide__ = True
        ran.started = time.time()
        begun = time.perf_counter()
        context: dict[str, Json] = {"notebook": self.notebook, "writes": list(cell.writes)}
        name = options.name or _first_name(cell)
        try:
            ran.value, ran.prefect = self.shell.run_task(body, options=options, key=key, name=name, context=context)
        except BaseException as error:  # noqa: BLE001 - the magic raises it again, a KeyboardInterrupt too
            return Failed(error, time.perf_counter() - begun, key if key.parts else None)
        finally:
            PATCHES.note(cell.tree, self.namespace)
        ran.seconds = ran.seconds or time.perf_counter() - begun
        return None

    def _run_and_store(
        self, cell: Cell, key: Key, found: Fingerprinter, options: Options, because: str
    ) -> tuple[Outcome, object]:
        __tracebackhide__ = True
        try:
            with _unless_raised(Unfingerprintable, "looking at what it may change"):
                ran = _Ran(recorder=self.shell.record(), held=held(cell, self.namespace, options, found))
                before = Before(self.namespace, cell, found, self.shell.is_hidden)
        except Unfingerprintable as error:
            return self._bypass(cell, options, _unkeyed(error), error.remedy)
        if options.retries:
            before.keep_for_retries()
        body = self._body(cell, key, options, before, ran, {*cell.strings, *found.strings})
        if (failed := self._run_task(body, ran, cell, options, key)) is not None:
            return failed, None
        try:
            with _unless_raised(Unstorable, "looking at what it did", but=(CacheError, OSError)):
                return self._store(cell, key, options, before, ran, because), ran.value
        except (Unfingerprintable, Unstorable) as error:
            named = f"{error.name}: {error.message}" if error.name else error.message
            remedy = error.remedy or (f"leave {error.name} out with -o" if error.name else "")
            return Bypass(named, ran.seconds, key, remedy, ran.notes), ran.value
        except StoreUnwritable as error:
            return Bypass(error.message, ran.seconds, key, error.remedy, ran.notes), ran.value
        except OSError as error:
            problem = self.store.unwritable(error)
            return Bypass(problem.message, ran.seconds, key, problem.remedy, ran.notes), ran.value
        except KeyboardInterrupt:
            return Bypass("storing it was interrupted", ran.seconds, key, "", ran.notes), ran.value

    def _body(
        self, cell: Cell, key: Key, options: Options, before: Before, ran: _Ran, strings: set[str]
    ) -> Callable[[], object]:
        """Return what the task runs: the cell, watched; each attempt starts from the namespace as it was."""
        names = loaded.reached(key.parts)
        modules = loaded.WATCH.states(names)
        recorder = cast("Recorder", ran.recorder)

        def body() -> object:
            __tracebackhide__ = True
            if ran.attempts:
                before.rewind()
            ran.attempts += 1
            ran.observer = observe.Observer(
                strings=strings, store_root=self.store.root, namespace=self.namespace, names=before.reached
            )
            # Made here: outside, what Prefect does to the process on import would be the cell's doing.
            ran.watch = ran.watch or Watch()
            ran.standing = standing.held()
            begun = time.perf_counter()
            with recorder, ran.observer, loaded.WATCH.expecting(names), before.set_aside():
                value = self.shell.execute(cell.python)
                ran.seconds = time.perf_counter() - begun
                if options.silenced:
                    value = None
                else:
                    recorder.result(value)
            ran.process = ran.watch.changes()
            ran.module = loaded.WATCH.changed(names, modules)
            ran.left = standing.changed(ran.standing, self.namespace)
            return value

        return body

    def _store(self, cell: Cell, key: Key, options: Options, before: Before, ran: _Ran, because: str) -> Outcome:
        observer, recorder = cast("observe.Observer", ran.observer), cast("Recorder", ran.recorder)
        if ran.seconds < options.min_seconds:
            return Bypass(f"it ran for less than {options.min_seconds:g} s", ran.seconds, key)
        if ran.module:
            remedy = "keep such state in the notebook, where it can be restored"
            return Bypass(f"it changed what the module {ran.module} holds", ran.seconds, key, remedy, ran.notes)
        for reason in (observer.tainted, *recorder.taints):
            if reason:
                return Bypass(reason, ran.seconds, key, "", ran.notes)
        if ran.left:
            return Bypass(ran.left, ran.seconds, key, lasting.REMEDY, ran.notes)
        if reason := lasting.done_by(cell.tree, self.namespace):
            return Bypass(reason, ran.seconds, key, lasting.REMEDY, ran.notes)
        if pattern := changed_files(key):
            return Bypass(f"{pattern} changed while the cell ran", ran.seconds, key, "", ran.notes)
        done = effects.take(before, self.namespace, cell, ran.value, ran.process, options.outputs)
        if missing := [name for name in options.outputs if name not in done.bound and name not in self.namespace]:
            return Bypass(f"--outputs names {missing[0]}, which the cell does not bind", ran.seconds, key)
        entry = self._publish(cell, key, options, before, ran, done, because)
        self.shell.published(entry, key)
        if options.storage:
            self.shell.keep(entry, options)
        return Miss(entry, ran.seconds, key, because, options.refresh, ran.notes)

    def _publish(
        self,
        cell: Cell,
        key: Key,
        options: Options,
        before: Before,
        ran: _Ran,
        done: Effects,
        because: str,
    ) -> Entry:
        observer = cast("observe.Observer", ran.observer)
        known = {*before.reached, *options.ignore, *(seen.name for seen in ran.held)}
        asked = [name for name in sorted(observer.evaluated - known) if not before.hidden(name)]
        observed = (*ran.held, *named(asked, self.namespace), *observer.observed, *done.depends)
        with self.store.draft(key.digest) as draft:
            outputs, told = effects.write(
                done,
                before,
                self.namespace,
                draft.path,
                verified=asked,
                shelf=self.store.shelf(),
                progress=self.shell.progress,
            )
            manifest = Manifest(
                format=FORMAT,
                name=options.name or _name(cell, done),
                source=cell.source,
                key=key,
                observed=observed,
                outputs=outputs,
                effects=told,
                displays=cast("Recorder", ran.recorder).displays,
                run=Run(
                    started=ran.started,
                    seconds=ran.seconds,
                    notebook=self.notebook,
                    host=socket.gethostname(),
                    user=_user(),
                    versions=_versions(key),
                    prefect={k: v for k, v in ran.prefect.items() if k != "notes"},
                ),
                options=_lasting(options, because),
            )
            return self.store.publish(draft, manifest)

    # Elsewhere

    def compute(self, source: str, options: Options, expected: Key) -> Outcome:
        """Run a cell that another session has sent here, and publish its entry under the key that it has there.

        Bypassed where the key is another one here: the run would be another one as well.
        """
        cell = analyse(source, transform=self.shell.transform, names=self.namespace)
        try:
            key, found = self._key(cell, options)
        except Unfingerprintable as error:
            return Bypass(_unkeyed(error), 0.0)
        if key.digest != expected.digest:
            return Bypass(f"it would not be the same cell there: {explain.because_all(key.changes(expected))}", 0.0)
        return self._run_and_store(cell, key, found, options, "")[0]

    def _submit(
        self, cell: Cell, key: Key, found: Fingerprinter, options: Options, because: str, started: float
    ) -> tuple[Outcome, object]:
        """Let the cell run elsewhere and restore its entry; where that cannot be, run it here and say why."""
        __tracebackhide__ = True
        ran = _Ran()
        try:
            with self.store.draft(key.digest) as draft:
                job = self._job(cell, key, found, options, draft.path)
                failed = self._run_task(lambda: self.shell.submit(job), ran, cell, options, key)
        except (Unstorable, StoreUnwritable) as error:
            reason = f"{error.name}: {error.message}" if isinstance(error, Unstorable) and error.name else error.message
        else:
            if failed is not None:
                return failed, None
            reply = cast("Mapping[str, str]", ran.value)
            restored, why = (None, "") if reply["bypass"] else self._restore(cell, key, started, shown=True)
            if restored is not None:
                hit, value = restored
                entry = cast("Hit", hit).entry
                self.shell.published(entry, key)
                if options.storage:
                    self.shell.keep(entry, options)
                return Miss(
                    entry, ran.seconds, key, because, options.refresh, (*ran.notes, "ran on the cluster")
                ), value
            reason = reply["bypass"] or why
            if reply["shown"]:
                self.shell.replay([{"output_type": "clear_output", "wait": False}], None)
        outcome, value = self._run_and_store(cell, key, found, options.replace(submit=False), because)
        if not isinstance(outcome, Failed):
            outcome = dataclasses.replace(outcome, notes=(*outcome.notes, f"ran here, not on the cluster: {reason}"))
        return outcome, value

    def _job(self, cell: Cell, key: Key, found: Fingerprinter, options: Options, folder: Path) -> Job:
        """Return what a worker needs to run a cell, its inputs written into a folder."""
        graph = GraphWriter(self.namespace, {})
        names = sorted(name for name in found.names if name in self.namespace)
        for name in names:
            graph.add(name, self.namespace[name])
        outputs, references = graph.write(folder)
        file, lines = self.shell.place(cell.python)
        said = options.replace(submit=False, storage="", artifact=False, log_prints=False, retries=0, timeout=None)
        return Job(
            source="\n" * lines + cell.python,
            file=file,
            options=dataclasses.asdict(said),
            key=key.digest,
            parts=[(part.kind, part.name, part.digest, part.detail) for part in key.parts],
            outputs=[dataclasses.asdict(output) for output in outputs],
            references={name: references[name] for name in names},
            folder=str(folder),
            root=str(self.store.root),
            cwd=str(Path.cwd()),
            path=list(sys.path),
            settings=state.settings(),
            figures=self.shell.figures(),
            random=randomness.WATCH.states(),
            notebook=self.notebook,
            prefect={},
        )

    # Values of entries

    def load(self, entry: Entry, name: str | None = None) -> dict[str, object]:
        """Return an entry's variables by name, or the one asked for.

        Raises
        ------
        LookupError
            Where it has no such variable.
        """
        self.store.check_files(entry)
        names = [name] if name else list(entry.manifest.names)
        return {n: effects.load(entry, n) for n in names}


def _check_trust(entry: Entry, cell: Cell) -> None:
    """Raise :class:`Untrusted` where an entry without a trusted signature would do more than give values.

    Its pickles stay closed anyway. But rich outputs would run in the page, and importing a module runs it: only what
    the cell itself imports may be imported.
    """
    if entry.trusted:
        return
    references = cast("Mapping[str, list[str]]", entry.manifest.effects.get("names", {}))
    modules = [reference[1] for reference in references.values() if reference[0] == "module"]
    modules += cast("list[str]", entry.manifest.effects.get("imports", []))
    known = {name.partition(".")[0] for name in cell.imports}
    rich = any(display.get("output_type") != "stream" for display in entry.manifest.displays)
    if rich or any(name.partition(".")[0] not in known for name in modules):
        raise Untrusted(
            "it shows or imports things, without a signature that is trusted",
            remedy="trust the other user's key with prefect_cache.trust(key_file)",
        )


@contextlib.contextmanager
def _unless_raised(
    kind: type[CacheError], doing: str, *, but: tuple[type[Exception], ...] = (CacheError,)
) -> Iterator[None]:
    """Let nothing that objects of other packages raise while we look at them end a cell: it is a reason, as `kind`."""
    try:
        yield
    except but:
        raise
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {first_line(error)}"
        raise kind(f"{doing} failed with {what} ({Path(where.filename).name}:{where.lineno})") from error


def _way_out(error: Unfingerprintable) -> str:
    """Return what the user can do about an input without a key; the option that lifts it is always among it."""
    remedy = error.remedy.rstrip(".")
    if not error.name or f"--ignore {error.name}" in remedy:
        return remedy
    if remedy.endswith("--ignore"):
        return f"{remedy} {error.name}"
    return f"{remedy}, or --ignore {error.name}" if remedy else f"leave it out with --ignore {error.name}"


def _unkeyed(error: Unfingerprintable) -> str:
    return f"{error.name}: {error.message}" if error.name and error.name not in error.message else error.message


def _first_name(cell: Cell) -> str:
    """Return what to call a cell before it has run: the first name that its source binds, or its first line."""
    for node in ast.walk(cell.tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            return node.id
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            return node.name
    return next((line.strip() for line in cell.source.splitlines() if line.strip()), "cell")[:60]


def _name(cell: Cell, done: Effects) -> str:
    modules = {n for n, value in done.bound.items() if isinstance(value, ModuleType)}
    bound = [n for n in done.bound if not n.startswith("_") and n not in modules]
    changed = [str(changed.path[0][1]) for changed in done.changed]
    return next(iter([*bound, *changed]), _first_name(cell))


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no entry for this user id, as in many containers
        return ""


def _versions(key: Key) -> dict[str, str]:
    found = {p.name: str(p.detail) for p in key.parts if p.kind == "package" and isinstance(p.detail, str)}
    return {"python": sys.version.split()[0], **found}


def _lasting(options: Options, because: str) -> dict[str, Json]:
    kept: dict[str, Json] = {}
    if options.ttl is not None:
        kept["ttl"] = options.ttl
    if options.pin:
        kept["pin"] = True
    if options.tags:
        kept["tags"] = list(options.tags)
    if because:
        kept["because"] = because
    return kept
