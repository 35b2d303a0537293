"""The panel in a notebook: widgets with traits and callbacks only; what it does is in `controller`.

Three forms over one controller. *Rich* is one anywidget. *Basic* is made of core ipywidgets, for front ends
where anywidget's script cannot run. *Static* is a table of HTML and text. ``auto`` takes the
rich form where somebody can click, and the static one elsewhere.
"""

from __future__ import annotations

import html
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import anywidget
import ipywidgets
import traitlets

from prefect_cache.errors import CacheError, UsageProblem
from prefect_cache.panel import view
from prefect_cache.panel.controller import Controller, Host, Message, home_text
from prefect_cache.panel.frontend import shows_widgets
from prefect_cache.panel.watch import Watcher

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MODES", "BasicPanel", "CachePanel", "Host", "StaticPanel", "show"]

MODES: Final = ("auto", "rich", "basic", "static")
"""The values of ``%config PrefectCache.panel``."""

ASSETS: Final = Path(__file__).parent / "static"
FIRST_ROWS: Final = 24
"""Rows of the list that travel with the widget itself, so that it paints at once."""

BASIC_ROWS: Final = 500


def show(host: Host, mode: str = "auto") -> CachePanel | BasicPanel | StaticPanel:
    """Return the panel, to be displayed.

    Parameters
    ----------
    host
        The store and the notebook.
    mode
        One of `MODES`.
    """
    if mode not in MODES:
        raise UsageProblem(f"the panel has no form {mode!r}", remedy=f"use one of {', '.join(MODES)}")
    if mode == "static" or (mode == "auto" and not shows_widgets()):
        return StaticPanel(host)
    return BasicPanel(host) if mode == "basic" else CachePanel(host)


class StaticPanel:
    """The list as it stands in text and HTML; nothing to click, nothing to run."""

    def __init__(self, host: Host) -> None:
        self._controller = Controller(host)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return static_bundle(self._controller)


def static_bundle(controller: Controller) -> dict[str, str]:
    """Return the list as HTML and as text; a store that cannot be read is a line."""
    try:
        listing = controller.listing()
        now, usage = time.time(), controller.usage()
        records = listing.select(view.Query(), now)
        told = view.usage_text(usage.size, usage.limit), home_text(str(controller.host.store.root)), now
    except (CacheError, OSError) as error:
        line = f"Prefect cache: {error}"
        return {"text/plain": line, "text/html": f"<p>{html.escape(line)}</p>"}
    return {"text/plain": view.static_text(records, *told), "text/html": view.static_html(records, *told)}


class CachePanel(anywidget.AnyWidget):
    """The panel as one widget: the page asks by messages, the controller answers.

    The widget's state is no more than the first rows of the list: replies go by messages, so that nothing
    of the data is kept in a saved notebook.
    """

    _esm = ASSETS / "panel.js"
    _css = ASSETS / "panel.css"
    first = traitlets.Unicode("{}").tag(sync=True)

    def __init__(self, host: Host) -> None:
        self._controller = Controller(host, push=self._push)
        self._watcher = Watcher(host.store.root, lambda: self._push({"push": "changed"}))
        self._views: set[str] = set()
        request = {"op": "list", "count": FIRST_ROWS, "sort": "used", "descending": True}
        super().__init__(first=json.dumps(self._controller.handle(request)))
        self._leave_the_way_to_the_page()
        self.on_msg(self._receive)

    def _receive(self, _widget: object, content: Mapping[str, object], _buffers: object) -> None:
        operation = content.get("op")
        if operation in {"hello", "bye"}:
            self._attend(str(content.get("id")), here=operation == "hello")
            return
        self.send(self._controller.handle(content))

    def _attend(self, name: str, *, here: bool) -> None:
        """Watch the store while somebody looks at the panel, and let go of files when nobody does."""
        self._views = self._views | {name} if here else self._views - {name}
        if self._views:
            self._watcher.start()
        else:
            self._watcher.stop()
            self._controller.close()

    def _push(self, message: Message) -> None:
        if self.comm is not None:
            self.send(message)

    def send(self, content: object, buffers: object = None) -> None:
        """Send a message to the page."""
        super().send(content, buffers)
        self._leave_the_way_to_the_page()

    def _leave_the_way_to_the_page(self) -> None:
        """Let the page's messages go to the thread that the page names, so that a running cell does not hold them up.

        ipykernel 7.4 sends what comes in for a comm to the shell from which the comm spoke last. That is the main
        one after the panel was made, and after each push from a thread of ours, and there a cell may run for an hour.
        """
        getattr(self.comm, "__dict__", {}).pop("_reply_subshell_id", None)

    def close(self) -> None:
        """Remove the panel from the page."""
        self._watcher.stop()
        self._controller.close()
        super().close()

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        bundle = super()._repr_mimebundle_(**kwargs)
        # What stays in the notebook for those who open it without a kernel: the list as a table.
        return bundle and (bundle[0] | static_bundle(self._controller), bundle[1])


class BasicPanel(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """The panel from core widgets: a list to select from, a page of what is selected, a few buttons."""

    def __init__(self, host: Host) -> None:
        self._controller = Controller(host)
        self._first = 0
        self._title = ipywidgets.HTML()
        self._search = ipywidgets.Text(
            placeholder="search name, column, notebook; size>1GB unused>7d", continuous_update=False
        )
        self._list = ipywidgets.SelectMultiple(options=[], rows=10, layout={"width": "100%"})
        self._output = ipywidgets.Dropdown(options=[], description="Output")
        self._page = ipywidgets.HTML()
        self._line = ipywidgets.HTML()
        self._confirm = ipywidgets.HBox([])
        actions = {
            "Refresh": self.refresh,
            "Evict": self._ask_evict,
            "Undo": self._undo,
            "Pin": self._pin,
            "Unpin": self._unpin,
        }
        turns = {"Back": lambda: self._turn(-1), "Next": lambda: self._turn(1), "Load": self._load}
        above = ipywidgets.HBox([self._search, *_buttons(actions)])
        below = ipywidgets.HBox([self._output, *_buttons(turns)])
        super().__init__([self._title, above, self._list, self._confirm, below, self._page, self._line])
        self._search.observe(lambda _: self.refresh(), "value")
        self._list.observe(lambda _: self._selected(), "value")
        self._output.observe(lambda _: self._turn(0), "value")
        self.refresh()

    def refresh(self) -> None:
        """Read the store again."""
        reply = self._do("list", search=self._search.value, sort="used", descending=True, count=BASIC_ROWS, fresh=True)
        rows = reply.get("rows")
        if not isinstance(rows, list):
            return
        kept = self._list.value
        self._list.options = [(_line(r), str(r[0])) for r in rows if isinstance(r, list)]
        self._list.value = [k for k in kept if k in {o[1] for o in self._list.options}]
        found = "" if reply["total"] == reply["all"] else f"{reply['total']:,} of "
        title = f"{found}{reply['all']:,} entries, {reply['usage']}, in {reply['where']}"
        self._title.value = f"<b>Prefect cache</b>: {html.escape(title)}"

    def _do(self, operation: str, **words: object) -> Message:
        reply = self._controller.handle({"op": operation, **words})
        self._line.value = html.escape(str(reply.get("error") or reply.get("text") or ""))
        return reply

    def _selected(self) -> None:
        self._confirm.children = []
        outputs: list[tuple[str, tuple[str, str]]] = []
        if len(self._list.value) == 1:
            reply = self._do("entry", key=self._list.value[0])
            told = reply.get("outputs")
            for output in told if isinstance(told, list) else []:
                if isinstance(output, dict):
                    file, frame = str(output["file"]), "frame" if output["frame"] else ""
                    outputs.append((f"{output['name']} ({output['kind']})", (file, frame)))
        self._output.options = outputs
        self._output.index = 0 if outputs else None
        self._turn(0)

    def _turn(self, pages: int) -> None:
        self._first = max(0, self._first + 50 * pages) if pages else 0
        if self._output.value is None or len(self._list.value) != 1:
            self._page.value = ""
            return
        file, frame = self._output.value
        if not frame:
            reply = self._do("value", key=self._list.value[0], file=file)
            self._page.value = _document(reply)
            return
        reply = self._do("page", key=self._list.value[0], file=file, first=self._first)
        if "error" in reply:
            self._first = max(0, self._first - 50)
        else:
            self._page.value = _table(reply)

    def _ask_evict(self) -> None:
        reply = self._do("plan", keys=list(self._list.value))
        if "error" not in reply:
            label = f"Evict {reply['size']}"
            self._confirm.children = [
                ipywidgets.Label(str(reply["text"])),
                *_buttons({label: self._evict, "Cancel": self._cancel}),
            ]

    def _cancel(self) -> None:
        self._confirm.children = []

    def _evict(self) -> None:
        self._act("evict", keys=list(self._list.value))

    def _undo(self) -> None:
        self._act("undo")

    def _pin(self) -> None:
        self._act("pin", keys=list(self._list.value), on=True)

    def _unpin(self) -> None:
        self._act("pin", keys=list(self._list.value), on=False)

    def _act(self, operation: str, **words: object) -> None:
        reply = self._do(operation, **words)
        self._confirm.children = []
        self.refresh()
        self._line.value = html.escape(str(reply.get("error") or reply.get("text") or ""))

    def _load(self, *, overwrite: bool = False) -> None:
        if self._output.value is None:
            return
        name = self._output.label.rpartition(" (")[0]
        reply = self._do(
            "load", key=self._list.value[0], file=self._output.value[0], variable=name, overwrite=overwrite
        )
        if "exists" in reply:
            label = f"Replace {reply['exists']} ({reply['what']})"
            self._confirm.children = _buttons({label: lambda: self._load(overwrite=True), "Cancel": self._cancel})
        else:
            self._confirm.children = []


def _buttons(actions: Mapping[str, Any]) -> list[ipywidgets.Button]:
    found = []
    for label, act in actions.items():
        button = ipywidgets.Button(description=label, layout={"width": "auto"})
        button.on_click(lambda _, act=act: act())
        found.append(button)
    return found


def _line(row: list[Any]) -> str:
    """Return a row of the list as one line of text."""
    if row[3] == "!":
        return f"! {row[1]}: damaged, {row[2]}" + f" ({row[5]})" * bool(row[5])
    shape = f", {row[6]} x {row[7]}" if row[6] else ""
    pin = ", pinned" if "p" in row[3] else ""
    return f"{row[1]}{shape}, {row[5]}, used {row[9]}{pin}"


def _table(page: Message) -> str:
    """Return a page as an HTML table; every text in it is escaped."""
    columns, rows, numbers = page["columns"], page["rows"], page["numbers"]
    if not isinstance(columns, list) or not isinstance(rows, list) or not isinstance(numbers, list):
        return ""
    head = "".join(f"<th>{html.escape(str(c[0]))}</th>" for c in columns if isinstance(c, list))
    body = "".join(
        f"<tr><th>{int(str(n)) + 1:,}</th>{''.join(map(_cell, r))}</tr>"
        for n, r in zip(numbers, rows, strict=True)
        if isinstance(r, list)
    )
    first = int(str(page["first"])) + 1
    where = f"rows {first:,} and on, of {page['total']:,}; columns 1 to {len(columns)} of {page['all']:,}"
    return (
        f"<p>{where}</p><div style='max-height:24em;overflow:auto'><table><tr><th></th>{head}</tr>{body}</table></div>"
    )


def _cell(value: object) -> str:
    return f"<td>{'<i>null</i>' if value is None else html.escape(str(value))}</td>"


def _document(reply: Message) -> str:
    """Return the tables and texts of a document as HTML; every text in it is escaped."""
    columns = cast("list[list[dict[str, Any]]]", reply.get("columns", []))
    found = []
    for block in (b for blocks in columns for b in blocks):
        if "rows" in block:
            rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in block["rows"])
            found.append(f"<table>{rows}</table>")
        elif block["kind"] == "code":
            found.append(f"<pre>{html.escape(''.join(piece for _, piece in block['pieces']))}</pre>")
    return "".join(found)
