"""What a cell shows: taken down while it runs, shown again on a hit.

A `Recorder` lets everything through to the screen as it comes and keeps it, in order: both streams
(``print``, logging, threads, progress bars, and in a kernel also what C code and subprocesses write to the
file descriptors), displays and their updates, ``clear_output``, pager payloads, the inline backend's figures
and the last expression. `replay` shows a record again.

A record is a tuple of mappings in the words of the Jupyter protocol, told apart by ``"output_type"``:
``stream``, ``display_data``, ``update_display_data``, ``clear_output``, ``execute_result`` and ``payload``.
Binary data is base64 text, as on the wire.

The last expression is formatted once. `Recorder.result` formats it while the run is being recorded, and the shell's
display hook then shows that very bundle; on a hit `replay` hands the stored bundle to the hook together with the
restored value. So ``Out[n]``, ``_``, the execution count and the output are the hook's own work in both cases, and
the value looks as it looked after the run. Figures follow it, as they do without us: they are taken inside the
run but wait for the cell's end (`after_cell`).

The streams are watched by shadowing ``write`` on the stream objects themselves, not by putting others in their
place: a logging handler or a library that took hold of ``sys.stderr`` before the cell is then recorded too. The
kernel's own hooks (``register_hook``) are kept per thread, and would miss what other threads show.
"""

from __future__ import annotations

import base64
import builtins
import codecs
import contextlib
import ctypes
import importlib
import io
import json
import numbers
import os
import select
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Self, TextIO

    from .model import Json

    Display = Mapping[str, Json]

Shell = Any
"""IPython's shell: typed in part, and by each version in another way; the tests use real ones."""

WIDGET: Final = "application/vnd.jupyter.widget-view+json"
"""The MIME type of a live widget: only a model's number, of no use once the model is gone."""

DRAIN_SECONDS: Final = 5.0
"""How long to wait for what subprocesses wrote; one that never stops writing must not hold the cell."""


class Recorder:
    """Keeps what is shown while it is entered, and lets it through.

    It may be entered again after it was left (a task that is tried again): the record goes on.

    Attributes
    ----------
    taints
        Why a replay would not be the whole truth (the cell asked for input), in words; mostly empty.

    Parameters
    ----------
    shell
        Where the cell runs.
    relay
        Told of each output as it comes, but not of the last expression and of what follows it: they are shown at the
        cell's end.
    """

    def __init__(self, shell: Shell, relay: Callable[[Display], None] | None = None) -> None:
        self.taints: tuple[str, ...] = ()
        self._shell = shell
        self._relay = relay
        self._tape = _Tape(relay)
        self._undo = contextlib.ExitStack()
        self._held: list[Display] = []

    @property
    def displays(self) -> tuple[Display, ...]:
        """All that was shown, in order, each run of one stream as one text."""
        return tuple(self._tape.items)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            for name in ("stdout", "stderr"):
                self._watch(undo, name)
            self._watch_displays(undo)
            self._watch_questions(undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *raised: object) -> None:
        error = raised[1]
        try:
            if error is None:
                self._take_figures()
            _drain(sys.stdout, sys.stderr)
        finally:
            self._undo.close()
        if error is None and _clears(self._shell):
            # A terminal keeps what it has shown, so there the record stays as it is.
            self._tape.items = visible(self._tape.items)
        self._tape.items = _settle_widgets(self._tape.items)
        held, self._held = self._held, []
        if held:
            if self._relay is not None and not at_the_end(self._tape.items):
                for item in held:
                    self._relay(item)
            after_cell(self._shell, lambda: _send(held, self._shell))

    def result(self, value: object) -> None:
        """Take down `value` as the cell's last expression; the display hook will show it so, once."""
        if value is None:
            return
        data, metadata = self._shell.display_formatter.format(value)
        self._note("execute_result", data=data, metadata=metadata)
        show_as(self._shell, value, data, metadata)

    def _note(self, output_type: str, **content: object) -> Display | None:
        """Take down one output; what JSON cannot hold was shown, but makes the record less than the truth."""
        try:
            item = cast("Display", {"output_type": output_type, **{k: _plain(v) for k, v in content.items()}})
        except (TypeError, ValueError) as error:
            self.taints += (f"an output cannot be kept: {error}",)
            return None
        self._tape.note(item)
        return item

    def _watch(self, undo: contextlib.ExitStack, name: str) -> None:
        stream = getattr(sys, name)
        _drain(stream)
        try:
            undo.enter_context(tee(stream, lambda text: self._tape.write(name, text)))
        except (AttributeError, TypeError):
            # A stream of a built-in type without a dictionary: nothing of ours can be put on it.
            self.taints += (f"sys.{name} is a {type(stream).__name__}, which cannot be watched",)

    def _watch_displays(self, undo: contextlib.ExitStack) -> None:
        publisher = self._shell.display_pub
        show, clear = publisher.publish, publisher.clear_output

        def publish(
            data: dict[str, Any],
            metadata: dict[str, Any] | None = None,
            *args: object,
            transient: dict[str, Any] | None = None,
            update: bool = False,
            **more: object,
        ) -> None:
            if not self._tape.holding:
                with self._tape.silent():
                    show(data, metadata, *args, transient=transient, update=update, **more)
            kind = "update_display_data" if update else "display_data"
            item = self._note(kind, data=data, metadata=metadata or {}, transient=transient or {})
            if self._tape.holding and item is not None:
                self._held.append(item)

        def clear_output(wait: bool = False) -> None:  # noqa: FBT001, FBT002 - the publisher's own signature
            with self._tape.silent():
                clear(wait)
            self._tape.note({"output_type": "clear_output", "wait": bool(wait)})

        undo.enter_context(shadowed(publisher, "publish", publish))
        undo.enter_context(shadowed(publisher, "clear_output", clear_output))
        payloads = getattr(self._shell, "payload_manager", None)
        if payloads is not None:
            undo.enter_context(shadowed(payloads, "write_payload", self._payload(payloads.write_payload)))
        if not _is_kernel(self._shell):
            # `!command` in a terminal writes past Python; through a pseudo-terminal of IPython's own it is seen.
            undo.enter_context(shadowed(self._shell, "system", self._shell.system_piped))
        undo.enter_context(shadowed(sys, "displayhook", self._displayhook(sys.displayhook)))

    def _payload(self, write: Callable[..., None]) -> Callable[..., None]:
        def write_payload(data: dict[str, Any], *args: object, **more: object) -> None:
            write(data, *args, **more)
            self._note("payload", data=data)

        return write_payload

    def _displayhook(self, hook: Callable[[object], None]) -> Callable[[object], None]:
        """Return a display hook that also records: for ``ast_node_interactivity = "all"`` and direct calls."""

        def displayhook(value: object = None) -> None:
            if value is not None:
                data, metadata = self._shell.display_formatter.format(value)
                self._note("execute_result", data=data, metadata=metadata, inner=True)
                show_as(self._shell, value, data, metadata)
            with self._tape.silent():
                hook(value)

        return displayhook

    def _watch_questions(self, undo: contextlib.ExitStack) -> None:
        """See that the cell asks its user something: an answer is not part of any key."""
        getpass = sys.modules.get("getpass")
        asks = [(builtins, "input")] + ([(getpass, "getpass")] if getpass else [])
        for module, name in asks:
            undo.enter_context(shadowed(module, name, self._asking(getattr(module, name), name)))

    def _asking(self, ask: Callable[..., str], name: str) -> Callable[..., str]:
        def asked(*args: object, **more: object) -> str:
            if not self.taints:
                self.taints += (f"the cell asks a question with {name}()",)
            return ask(*args, **more)

        return asked

    def _take_figures(self) -> None:
        """Draw the inline backend's open figures into the record; they are shown after the last expression."""
        backend = sys.modules.get("matplotlib_inline.backend_inline")
        if backend is None or backend.flush_figures not in self._shell.events.callbacks["post_execute"]:
            return
        with self._tape.hold():
            backend.flush_figures()


INLINE: Final = "module://matplotlib_inline.backend_inline"
"""Matplotlib's name for the backend that shows figures below cells."""


_USUAL_FIGURES: Final = {
    "figure_formats": ["png"],
    "print_figure_kwargs": {"bbox_inches": "tight"},
    "close_figures": True,
}


def inline_figures(shell: Shell) -> dict[str, Json] | None:
    """Return how the inline backend shows figures in this shell; None where it does not.

    A kernel names that backend to matplotlib by a variable, so that it is the one also where nothing is drawn yet.
    """
    backend = sys.modules.get("matplotlib_inline.backend_inline")
    if backend is None and os.environ.get("MPLBACKEND") != INLINE:
        return None
    if backend is not None and backend.flush_figures not in shell.events.callbacks["post_execute"]:
        return None
    config = sys.modules.get("matplotlib_inline.config")
    if config is not None and config.InlineBackend.initialized():
        settings = config.InlineBackend.instance()
        said = {name: getattr(settings, name) for name in _USUAL_FIGURES}
    else:  # what ``%config`` has set waits for it
        said = {name: value for name, value in shell.config.get("InlineBackend", {}).items() if name in _USUAL_FIGURES}
    return {name: _plain(sorted(value) if name == "figure_formats" else value) for name, value in said.items()}


def await_figures(shell: Shell) -> None:
    """Let the inline backend come up where it is the one: until then figures that were restored show as a line."""
    if "matplotlib_inline.backend_inline" not in sys.modules and inline_figures(shell) is not None:
        importlib.import_module("matplotlib_inline.backend_inline")


def figures_manner(shell: Shell) -> str:
    """Return what was set of how figures are shown; empty as long as nobody has set anything."""
    shown = inline_figures(shell) or {}
    return ", ".join(f"{name}={value}" for name, value in shown.items() if value != _USUAL_FIGURES[name])


@contextlib.contextmanager
def headless(figures: Mapping[str, Json] | None = None) -> Iterator[Shell]:
    """Give a shell without a front end and without history, for a process in which nobody looks on.

    It is the process's shell meanwhile, so that ``display`` and the inline backend find it, and what is printed goes to
    those who record it alone. `figures` is what :func:`inline_figures` tells of the notebook.
    """
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    main = sys.modules.get("__main__")
    shell = cast("Any", InteractiveShell)(config=Config(HistoryManager={"enabled": False}))
    try:
        with contextlib.ExitStack() as undo:
            undo.enter_context(contextlib.redirect_stdout(_Nowhere()))
            undo.enter_context(contextlib.redirect_stderr(_Nowhere()))
            undo.enter_context(_as_the_shell(InteractiveShell, shell))
            undo.enter_context(shell.builtin_trap)
            undo.enter_context(shell.display_trap)
            if figures is not None:
                _show_inline(shell, figures)
            yield shell
    finally:
        if main is not None:
            sys.modules["__main__"] = main


class _Nowhere(io.TextIOBase):
    """A stream that keeps nothing: a worker's own goes to whoever started it, past all order."""

    encoding = "utf-8"

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


@contextlib.contextmanager
def _as_the_shell(kind: Any, shell: Shell) -> Iterator[None]:
    """Let ``get_ipython()`` give this shell for a while: traitlets has no way to lend the only instance of a class."""
    was = kind._instance  # noqa: SLF001
    kind._instance = shell  # noqa: SLF001
    try:
        yield
    finally:
        kind._instance = was  # noqa: SLF001


def _show_inline(shell: Shell, figures: Mapping[str, Json]) -> None:
    """Let matplotlib show figures inline in this shell, as in the notebook that these settings come from."""
    chosen: dict[str, Any] = {**figures}
    if "figure_formats" in chosen:
        chosen["figure_formats"] = set(chosen["figure_formats"])
    shell.config.InlineBackend.update(chosen)
    os.environ["MPLBACKEND"] = INLINE  # for the cell that imports matplotlib first in this process
    matplotlib, backend = sys.modules.get("matplotlib"), sys.modules.get("matplotlib_inline.backend_inline")
    if matplotlib is not None:
        matplotlib.use(INLINE)
    if backend is not None:  # it has found an earlier shell
        settings = backend.InlineBackend.instance()
        settings.update_config(shell.config)
        backend.configure_inline_support(shell, INLINE)
        backend.select_figure_formats(shell, settings.figure_formats, **settings.print_figure_kwargs)


def replay(displays: Iterable[Display], shell: Shell, value: object = None) -> None:
    """Show a record again, once and in order; what follows the last expression waits for the cell's end.

    `value` is the restored last expression: returned from the magic it is shown as it was then.
    """
    before, result, after = _split(displays)
    _send(before, shell)
    if result is not None and value is not None:
        show_as(shell, value, cast("dict[str, Any]", result["data"]), cast("dict[str, Any]", result["metadata"]))
    if after:
        after_cell(shell, lambda: _send(after, shell))


def show_as(shell: Shell, value: object, data: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Let the display hook show this very object as `data` the next time that it meets it in this cell."""
    hook = shell.displayhook
    compute = hook.compute_format_data

    def forget() -> None:
        vars(hook).pop("compute_format_data", None)

    def compute_format_data(result: object) -> tuple[dict[str, Any], dict[str, Any]]:
        forget()
        return (dict(data), dict(metadata)) if result is value else compute(result)

    forget()
    compute = hook.compute_format_data
    vars(hook)["compute_format_data"] = compute_format_data
    if is_executing(shell):
        after_cell(shell, forget)


def after_cell(shell: Shell, action: Callable[[], None]) -> None:
    """Do `action` when the running cell has shown its result; now, where no cell is running."""
    if not is_executing(shell):
        action()
        return

    def once() -> None:
        shell.events.unregister("post_execute", once)
        action()

    shell.events.register("post_execute", once)


def is_executing(shell: Shell) -> bool:
    """Tell whether the shell is running a cell, so that its end will be announced."""
    return shell.displayhook.exec_result is not None


def visible(displays: Sequence[Display]) -> list[Display]:
    """Return what a notebook still shows in the end: cleared output dropped, updates put into what they update.

    A loop of ``clear_output(wait=True)`` and a figure would otherwise keep every picture that it ever showed.
    """
    kept: list[Display] = []
    places: dict[str, int | None] = {}
    waiting: Display | None = None
    for item in displays:
        kind = item["output_type"]
        if kind == "clear_output" and item["wait"]:
            waiting = item
            continue
        if waiting is not None or kind == "clear_output":
            kept, places = [], dict.fromkeys(places)
            kept.append(item if kind == "clear_output" else cast("Display", waiting))
            waiting = None
            if kind == "clear_output":
                continue
        _keep(item, kept, places)
    return kept if waiting is None else [*kept, waiting]


def _keep(item: Display, kept: list[Display], places: dict[str, int | None]) -> None:
    """Append `item`, or put it where the display that it updates stands; `places` knows the displays by id."""
    identity = _display_id(item)
    if item["output_type"] == "update_display_data" and identity in places:
        place = places[identity]
        if place is not None:
            kept[place] = {**item, "output_type": "display_data"}
        return
    if identity is not None and item["output_type"] == "display_data":
        places[identity] = len(kept)
    last = kept[-1] if kept else None
    if last is not None and item["output_type"] == "stream" == last["output_type"] and item["name"] == last["name"]:
        kept[-1] = {**last, **item, "text": cast("str", last["text"]) + cast("str", item["text"])}
    else:
        kept.append(item)


FLUSH_INTERVAL: Final = 0.2
"""Seconds after which a kernel sends what was written (ipykernel's ``OutStream.flush_interval``): what another stream
gets later then stands below it."""


class _Tape:
    """The record while it grows; threads may write to it at once."""

    def __init__(self, relay: Callable[[Display], None] | None = None) -> None:
        self.holding = False
        self._relay = relay
        self._lock = threading.Lock()
        self._items: list[Display] = []
        self._stream: tuple[str, list[str], float] | None = None
        self._deaf = threading.local()

    @property
    def items(self) -> list[Display]:
        with self._lock:
            self._end_stream()
            return list(self._items)

    @items.setter
    def items(self, items: Sequence[Display]) -> None:
        with self._lock:
            self._items = list(items)

    def note(self, item: Display) -> None:
        if self._hears_nothing():
            return
        with self._lock:
            self._end_stream()
            self._items.append(item)
            if self._relay is not None and not self.holding and not _is_result(item):
                self._relay(item)

    def write(self, name: str, text: str) -> None:
        if not text or self._hears_nothing():
            return
        with self._lock:
            if self._relay is not None:
                self._relay({"output_type": "stream", "name": name, "text": text})
            if self._stream is None or self._stream[0] != name:
                self._end_stream()
                self._stream = (name, [], time.monotonic())
            self._stream[1].append(text)

    def _hears_nothing(self) -> bool:
        depth: int = getattr(self._deaf, "depth", 0)
        return depth > 0

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Take nothing down from this thread: a terminal's publisher prints what is already taken down."""
        self._deaf.depth = getattr(self._deaf, "depth", 0) + 1
        try:
            yield
        finally:
            self._deaf.depth -= 1

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        self.holding = True
        try:
            yield
        finally:
            self.holding = False

    def _end_stream(self) -> None:
        if self._stream is not None:
            name, texts, began = self._stream
            self._stream = None
            item: dict[str, Json] = {"output_type": "stream", "name": name, "text": "".join(texts)}
            if time.monotonic() - began >= FLUSH_INTERVAL:
                item["flushed"] = True
            self._items.append(item)


@contextlib.contextmanager
def shadowed(owner: object, name: str, value: object) -> Iterator[None]:
    """Let `owner.name` be `value` for a while, then as it was: a shadow on the object, never on its class."""
    own = vars(owner)
    was = own.get(name, own)  # the dictionary itself stands for "not there"
    own[name] = value
    try:
        yield
    finally:
        if own.get(name) is value:  # whoever shadowed it after us keeps that shadow
            if was is own:
                del own[name]
            else:
                own[name] = was


@contextlib.contextmanager
def tee(stream: TextIO, note: Callable[[str], None]) -> Iterator[None]:
    """Tell `note` all that is written to `stream`, also through its buffer."""
    inside = threading.local()

    def through(method: Callable[..., Any], told: Callable[[Any], None] | None) -> Callable[..., Any]:
        def call(*args: object) -> object:
            if getattr(inside, "depth", 0):
                return method(*args)
            inside.depth = 1
            try:
                done = method(*args)
            finally:
                inside.depth = 0
            if told is not None and args:
                told(args[0])
            return done

        return call

    with contextlib.ExitStack() as undo:
        undo.enter_context(shadowed(stream, "write", through(stream.write, note)))
        buffer = getattr(stream, "buffer", None)
        if callable(getattr(buffer, "write", None)) and hasattr(buffer, "__dict__"):
            # The text layer writes to its buffer by the same method when it is flushed: that is not new text.
            undo.enter_context(shadowed(stream, "flush", through(stream.flush, None)))
            decode = codecs.getincrementaldecoder(getattr(stream, "encoding", None) or "utf-8")("replace").decode
            write = through(stream.buffer.write, lambda data: note(decode(bytes(data))))
            undo.enter_context(shadowed(buffer, "write", write))
        yield


def _drain(*streams: TextIO) -> None:
    """Wait until the kernel's watcher threads have passed on what was written to the file descriptors."""
    watched = [fd for fd in (getattr(stream, "_fid", None) for stream in streams) if isinstance(fd, int)]
    if not watched:
        return
    with contextlib.suppress(OSError, AttributeError):  # no C library to ask
        ctypes.CDLL(None).fflush(None)
    end = time.monotonic() + DRAIN_SECONDS
    while select.select(watched, [], [], 0)[0] and time.monotonic() < end:
        time.sleep(0.001)
    time.sleep(0.001)  # a watcher that has read needs a moment to write


def _split(displays: Iterable[Display]) -> tuple[list[Display], Display | None, list[Display]]:
    """Return what comes before the last expression, it, and what follows it."""
    items = list(displays)
    for place, item in enumerate(items):
        if _is_result(item):
            return items[:place], item, items[place + 1 :]
    return items, None, []


def _is_result(item: Display) -> bool:
    """Tell whether an output is a cell's last expression."""
    return item["output_type"] == "execute_result" and not item.get("inner")


def at_the_end(displays: Iterable[Display]) -> tuple[Display, ...]:
    """Return of a record what is shown when a cell has ended: the last expression and what follows it."""
    _, result, after = _split(displays)
    return () if result is None else (result, *after)


def _send(displays: Iterable[Display], shell: Shell) -> None:
    for item in displays:
        _SENDERS[cast("str", item["output_type"])](item, shell)


def _send_stream(item: Display, shell: Shell) -> None:  # noqa: ARG001 - one signature for all
    stream = sys.stderr if item["name"] == "stderr" else sys.stdout
    stream.write(cast("str", item["text"]))
    if item.get("flushed"):
        sys.stdout.flush()
        sys.stderr.flush()


def _send_display(item: Display, shell: Shell) -> None:
    data = _without_dead_widget(cast("dict[str, Json]", item["data"]))
    if not data:
        return
    identity = _display_id(item)
    shell.display_pub.publish(
        data,
        cast("dict[str, Any]", item["metadata"]),
        transient={} if identity is None else {"display_id": identity},
        update=item["output_type"] == "update_display_data",
    )


def _send_clear(item: Display, shell: Shell) -> None:
    shell.display_pub.clear_output(bool(item["wait"]))


def _send_payload(item: Display, shell: Shell) -> None:
    shell.payload_manager.write_payload(cast("dict[str, Any]", item["data"]))


def _send_inner_result(item: Display, shell: Shell) -> None:
    """Show a result that is not the cell's last: the output is known, the value is not, so ``Out`` stays alone."""
    hook = shell.displayhook
    hook.start_displayhook()
    hook.write_output_prompt()
    hook.write_format_data(cast("dict[str, Any]", item["data"]), cast("dict[str, Any]", item["metadata"]))
    hook.finish_displayhook()


_SENDERS: Final[Mapping[str, Callable[[Any, Any], None]]] = {
    "stream": _send_stream,
    "display_data": _send_display,
    "update_display_data": _send_display,
    "clear_output": _send_clear,
    "payload": _send_payload,
    "execute_result": _send_inner_result,
}


def _display_id(item: Display) -> str | None:
    transient = item.get("transient")
    identity = transient.get("display_id") if isinstance(transient, dict) else None
    return identity if isinstance(identity, str) else None


def _plain(value: object) -> Json:
    """Return `value` as it would arrive at a frontend: what JSON can hold, bytes as base64 text."""
    return cast("Json", json.loads(json.dumps(value, default=_json_default)))


def _json_default(value: object) -> object:
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    isoformat = getattr(value, "isoformat", None)
    return isoformat() if callable(isoformat) else str(value)


def _settle_widgets(displays: Sequence[Display]) -> list[Display]:
    """Give each widget's bundle the text of its last state; drop widgets that the cell has closed.

    A widget's view needs its model, which is gone after a restart; the text is what can still be shown then.
    """
    settled: list[Display] = []
    for item in displays:
        data = item.get("data")
        model = _model_id(data) if isinstance(data, dict) else None
        if model is None:
            settled.append(item)
            continue
        widget = _widget(model)
        if widget is not None:
            text = widget._repr_mimebundle_().get("text/plain", "")
            settled.append({**item, "data": {**cast("dict[str, Json]", data), "text/plain": text}})
    return settled


def _without_dead_widget(data: dict[str, Json]) -> dict[str, Json]:
    model = _model_id(data)
    if model is None or _widget(model) is not None:
        return data
    return {mime: content for mime, content in data.items() if mime != WIDGET}


class Widget(Protocol):
    """What is asked of a widget of ipywidgets."""

    def _repr_mimebundle_(self) -> dict[str, Json]: ...


def _model_id(data: Mapping[str, Json]) -> str | None:
    view = data.get(WIDGET)
    model = view.get("model_id") if isinstance(view, dict) else None
    return model if isinstance(model, str) else None


def _widget(model_id: str) -> Widget | None:
    module = sys.modules.get("ipywidgets.widgets.widget")
    return cast("Widget | None", module._instances.get(model_id)) if module else None  # noqa: SLF001 - no public way


def plain_text(shell: Shell, value: object, limit: int) -> str:
    """Return what the shell shows of a value as text, cut after some characters; errors of the value's class come out.

    As its formatter for plain text does it, which would take errors and print them into the notebook.
    """
    from IPython.lib import pretty

    told = shell.display_formatter.formatters["text/plain"]
    if not told.pprint:
        return _cut(repr(value), limit)
    stream = _Stream(limit)
    printer: Any = cast("Any", pretty).RepresentationPrinter(  # it has no types
        stream,
        told.verbose,
        told.max_width,
        told.newline,
        max_seq_length=told.max_seq_length,
        singleton_pprinters=told.singleton_printers,
        type_pprinters=told.type_printers,
        deferred_pprinters=told.deferred_printers,
    )
    with contextlib.suppress(_FullError):
        printer.pretty(value)
        printer.flush()
    return _cut(stream.getvalue(), limit)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit] + "…"


class _FullError(Exception):
    """A stream has taken as much as it may."""


class _Stream(io.StringIO):
    """Takes a little more than a number of characters, then ends whoever writes."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def write(self, text: str) -> int:
        if self.tell() > self._limit:
            raise _FullError
        return super().write(text[: self._limit + 1])


def _is_kernel(shell: Shell) -> bool:
    return hasattr(shell, "kernel")


def _clears(shell: Shell) -> bool:
    """Tell whether `clear_output` empties the output: in a notebook it does, in a terminal only the line."""
    return _is_kernel(shell)
