"""A cell's body, run in the notebook as IPython itself would run it.

Not by ``shell.run_cell``: that shows ``Out`` twice, and swallows the exception at which a notebook has to stop.
Statements are compiled one by one, as IPython does, under the name of the cell that holds them and at their own
lines in it: tracebacks say ``Cell In[5], line 3``, breakpoints hold, ``inspect.getsource`` finds the source.

**Top-level await.** A magic is an ordinary function, and under a kernel it is called inside a running event loop, which
cannot be entered again; a loop of another thread would not be the one to which the user's clients, locks and
tasks belong. So a cell with ``await`` in it becomes ``await get_ipython().run_cell_magic(...)`` (`awaiting`, an input
transformer), the magic returns a coroutine, and IPython awaits it as it awaits the user's own code. What runs in
between is synchronous (a session, Prefect's engine), so it runs in a greenlet: where the body has to wait, the
greenlet is left, the kernel's loop awaits the body, and the greenlet goes on with the result (`Bridge`).
The body runs in the same thread, task, loop and context as it would without us; an interrupt cancels it there.
"""

from __future__ import annotations

import ast
import asyncio
import codeop
import inspect
import sys
import time
from types import FunctionType, TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from IPython.core.error import UsageError

from .errors import CellTimeout, Unfingerprintable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator
    from types import CodeType

    from .capture import Shell

MAGIC: Final = "prefect_cache"

_PRINTING: Final = ("pprint", "float_format", "max_width", "max_seq_length", "newline", "verbose")
"""What can be set of how values are printed as text."""

AWAITED: Final = "--awaited"
"""What `Awaiting` adds to the magic's line, so that the magic knows that it is awaited."""


class Runner:
    """Runs source in the notebook's namespace and returns its last expression's value."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self.timeout: float | None = None
        """Seconds after which a body that awaits is cancelled; a signal must not break into a running event loop."""
        self._named: tuple[tuple[str, int, str], str] = ("", 0, ""), ""

    def transform(self, source: str) -> str:
        """Return `source` as plain Python: magics, shell escapes and help turned into calls."""
        return str(self._shell.transform_cell(source))

    def check(self, source: str) -> str:
        """Return `source` as plain Python that compiles.

        Raises
        ------
        SyntaxError
            It does not; the error names the cell and the line in it.
        """
        python = self.transform(source)
        tree = self._parse(python, self._name(python))
        for node in tree.body:
            # Some mistakes, such as a bare `return`, are only seen by the compiler.
            self._compile(node, self._name(python), "exec")
        return python

    def is_async(self, python: str) -> bool:
        """Tell whether `python` awaits at its top level."""
        return bool(self._shell.autoawait) and awaits(python)

    def run(self, python: str) -> object:
        """Run plain Python in the notebook's namespace; return the value of its last expression, else None."""
        __tracebackhide__ = True
        name = self._name(python)
        tree = self._parse(python, name)
        value: object = None
        for node, mode in _steps(tree.body, self._shell.ast_node_interactivity):
            value = self._execute(self._compile(node, name, mode))
        return value

    def manner(self) -> str:
        """Return how source is compiled and shown now: empty as long as nobody has set anything."""
        flags, interactivity = self._shell.compile.flags, self._shell.ast_node_interactivity
        usual = (codeop.Compile().flags, "last_expr")
        said = [] if (flags, interactivity) == usual else [f"compiler flags {flags:#x}, {interactivity}"]
        return ", ".join([*said, *self._printing()])

    def _printing(self) -> Iterator[str]:
        """Yield what was set of how values are printed (``%pprint``, ``%precision``)."""
        formatters = self._shell.display_formatter.formatters
        for kind, one in formatters.items():
            for cls, function in [*one.type_printers.items(), *one.deferred_printers.items()]:
                if isinstance(function, FunctionType) and function.__globals__.get("__name__") == "__main__":
                    yield f"{kind} of {cls}: {self._digest(function)}"
        formatter = formatters["text/plain"]
        for name in _PRINTING:
            value, usual = getattr(formatter, name), type(formatter).class_traits()[name].default()
            if value != usual:
                yield f"{name}={value!r}"

    def _digest(self, function: FunctionType) -> str:
        from .cells.fingerprint import fingerprint

        try:
            return fingerprint(function, self._shell.user_ns)
        except Unfingerprintable:
            return f"a function that reads what has no digest, {id(function)}"  # it is another one in each process

    def codes(self, python: str) -> list[CodeType]:
        """Return the code objects that :meth:`run` would execute, known to tracebacks and ``inspect.getsource``."""
        name = self._name(python)
        steps = _steps(self._parse(python, name).body, self._shell.ast_node_interactivity)
        return [self._compile(node, name, mode) for node, mode in steps]

    def remember(self, python: str) -> str:
        """Let tracebacks and ``inspect.getsource`` find `python` without running it; return its file name."""
        return self._name(python)

    def place(self, python: str) -> tuple[str, int]:
        """Return the file name of the cell that holds `python`, and how many of its lines stand before it."""
        return self._name(python), _lines_before(_cell(self._shell)[0], python)

    def _execute(self, code: CodeType) -> object:
        __tracebackhide__ = True
        # exec returns nothing and eval the value; `eval` runs code of every mode.
        value: Any = eval(code, self._shell.user_global_ns, self._shell.user_ns)  # noqa: S307 - the user's own cell
        return wait_for(value, self.timeout) if code.co_flags & inspect.CO_COROUTINE else value

    def _name(self, python: str) -> str:
        """Return the file name of the cell that holds `python`, known to tracebacks and debuggers."""
        raw, count = _cell(self._shell)
        if self._named[0] != (raw, count, python):
            # Once for a cell: making a name reads the environment, which is watched while the body runs.
            text = "\n" * _lines_before(raw, python) + python
            self._named = (raw, count, python), str(self._shell.compile.cache(text, count, raw_code=raw or python))
        return self._named[1]

    def _parse(self, python: str, name: str) -> ast.Module:
        raw, _ = _cell(self._shell)
        tree = self._shell.compile.ast_parse("\n" * _lines_before(raw, python) + python, filename=name)
        return cast("ast.Module", self._shell.transform_ast(tree))

    def _compile(self, node: ast.stmt, name: str, mode: str) -> CodeType:
        compiler = self._shell.compile
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if self._shell.autoawait else 0
        with compiler.extra_flags(flags):
            return cast("CodeType", compiler(_UNITS[mode](node), name, mode))


_UNITS: Final[dict[str, Callable[[Any], ast.mod]]] = {
    "exec": lambda node: ast.Module([node], []),
    "single": lambda node: ast.Interactive([node]),
    "eval": lambda node: ast.Expression(node.value),
}


def _steps(body: list[ast.stmt], interactivity: str) -> list[tuple[ast.stmt, str]]:
    """Return each statement with the way to compile it; only the last one's value is returned."""
    if not body:
        return []
    *first, last = body
    between = "single" if interactivity == "all" else "exec"
    steps = [(node, between) for node in first]
    if interactivity == "last_expr_or_assign" and (name := _assigned(last)):
        return [*steps, (last, "exec"), (_located(ast.Expr(ast.Name(name, ast.Load())), last), "eval")]
    if isinstance(last, ast.Expr) and interactivity != "none":
        return [*steps, (last, "eval")]
    return [*steps, (last, "single" if interactivity in ("last", "all") else "exec")]


def _assigned(node: ast.stmt) -> str:
    match node:
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.AugAssign(target=ast.Name(id=name)):
            return name
        case _:
            return ""


def _located(node: ast.stmt, place: ast.stmt) -> ast.stmt:
    return ast.fix_missing_locations(ast.copy_location(node, place))


def _cell(shell: Shell) -> tuple[str, int]:
    """Return the running cell as the user wrote it, and its number."""
    running = shell.displayhook.exec_result
    if running is None:
        return "", shell.execution_count
    raw = running.info.raw_cell
    return (raw if isinstance(raw, str) else ""), running.execution_count or shell.execution_count


def _lines_before(raw: str, python: str) -> int:
    """Return how many lines of the cell stand before the body: the magic's own, mostly."""
    return max(0, len(raw.splitlines()) - len(python.splitlines())) if raw.lstrip().startswith("%%") else 0


def awaits(python: str) -> bool:
    """Tell whether Python code awaits at its top level, so that it compiles to a coroutine."""
    try:
        plain = compile(python, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return bool(plain.co_flags & inspect.CO_COROUTINE)


class Awaiting:
    """An input transformer: the magic over a body that awaits is itself awaited.

    Looks at what IPython made of the whole cell, so ``%%time`` and others in front are left alone. `transform` turns
    the body into plain Python.
    """

    def __init__(self, shell: Shell, transform: Callable[[str], str]) -> None:
        self._shell = shell
        self._transform = transform

    def __call__(self, lines: list[str]) -> list[str]:
        """Return `lines`, with ``await`` in front where the magic's body needs it."""
        if not self._shell.autoawait or not lines or not lines[0].startswith("get_ipython().run_cell_magic("):
            return lines
        call = _magic_call("".join(lines))
        if call is None or not awaits(self._transform(call[1])):
            return lines
        line, body = call
        return [f"await get_ipython().run_cell_magic({MAGIC!r}, {f'{AWAITED} {line}'!r}, {body!r})\n"]


def _magic_call(python: str) -> tuple[str, str] | None:
    """Return line and body of the cell magic of ours that `python` calls; None where it does anything else."""
    try:
        tree = ast.parse(python)
    except (SyntaxError, ValueError):
        return None
    match tree.body:
        case [
            ast.Expr(
                value=ast.Call(
                    func=ast.Attribute(attr="run_cell_magic"),
                    args=[ast.Constant(value=name), ast.Constant(value=str(line)), ast.Constant(value=str(body))],
                )
            )
        ] if name == MAGIC:
            return line, body
        case _:
            return None


def wait_for(awaitable: Coroutine[Any, Any, object], deadline: float | None = None) -> object:
    """Return what `awaitable` comes to, waiting as the place allows, until `deadline` by the monotonic clock.

    Inside a `Bridge` the kernel's own loop awaits it; where no loop runs, a loop is run. Inside a running loop without
    a bridge there is no sound way, and the cell says so.

    Raises
    ------
    CellTimeout
        It took longer, and was cancelled.
    """
    __tracebackhide__ = True
    bounded = _bounded(awaitable, deadline)
    found = _current_bridge()
    if found is not None:
        return found.wait(bounded)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(bounded)
    awaitable.close()
    bounded.close()
    raise UsageError(f"a cell that awaits needs %%{MAGIC} as its first line, so that the kernel can await it")


async def _bounded(awaitable: Awaitable[object], deadline: float | None) -> object:
    __tracebackhide__ = True
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    limit = asyncio.timeout(left)
    try:
        async with limit:
            return await awaitable
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise CellTimeout(
            "the cell ran longer than its timeout", remedy="give it more time with --timeout, or leave the option out"
        ) from error


async def bridge(work: Callable[[], object]) -> object:
    """Run synchronous `work` such that `wait_for` in it awaits on the loop that runs this coroutine."""
    __tracebackhide__ = True
    return await Bridge(work).run()


class Bridge:
    """Synchronous work in a greenlet, left whenever it has to wait."""

    def __init__(self, work: Callable[[], object]) -> None:
        from greenlet import getcurrent, greenlet

        self._outside = getcurrent()
        self._inside: Any = greenlet(work)
        # One context for both, so that the body sees the context variables that the engine has set around it.
        self._inside.gr_context = self._outside.gr_context
        self._inside.prefect_cache_bridge = self

    async def run(self) -> object:
        """Return what the work returns."""
        __tracebackhide__ = True
        waiting = self._inside.switch()
        while not self._inside.dead:
            try:
                value = await waiting
            except BaseException:  # noqa: BLE001 - a cancellation too belongs to the one who waits
                waiting = self._inside.throw(*sys.exc_info())
            else:
                waiting = self._inside.switch(value)
        return waiting

    def wait(self, awaitable: Coroutine[Any, Any, object]) -> object:
        """Leave the greenlet until `awaitable` is done; return its value or raise its error."""
        __tracebackhide__ = True
        return self._outside.switch(awaitable)


def in_bridge() -> bool:
    """Tell whether this code runs inside a `Bridge`, so that what is awaited here is awaited by the kernel's loop."""
    return _current_bridge() is not None


def _current_bridge() -> Bridge | None:
    module = sys.modules.get("greenlet")
    return None if module is None else getattr(module.getcurrent(), "prefect_cache_bridge", None)


def users_traceback(error: BaseException) -> TracebackType | None:
    """Return the traceback of `error` as if its cell had run without us.

    What lies between the call of the magic and the first frame of the body is ours, IPython's and the engine's; where
    the magic was the cell itself, the cell's one line (the call that IPython made of it) goes too.
    """
    frames = list(_frames(error.__traceback__))
    call = next((i for i, tb in enumerate(frames) if _is_magic_call(tb)), None)
    body = next((i for i in reversed(range(len(frames))) if _is_body_call(frames[i])), None)
    if call is None or body is None or body < call:
        return error.__traceback__
    # The first frame is `run_code`'s, which IPython leaves out by itself.
    before = frames[: call - 1] if call and _is_line_of_magic(frames[call - 1]) else frames[:call]
    return _chain(before + frames[body + 1 :])


def _frames(tb: TracebackType | None) -> list[TracebackType]:
    found = []
    while tb is not None:
        found.append(tb)
        tb = tb.tb_next
    return found


def _is_magic_call(tb: TracebackType) -> bool:
    frame = tb.tb_frame
    if frame.f_code is bridge.__code__:
        return True  # awaited: IPython's own frame was left before the body began
    return frame.f_code.co_name == "run_cell_magic" and frame.f_locals.get("magic_name") == MAGIC


def _is_line_of_magic(tb: TracebackType) -> bool:
    """Tell whether a frame is the one line that IPython makes of a cell with a cell magic."""
    code = tb.tb_frame.f_code
    return code.co_name == "<module>" and code.co_names == ("get_ipython", "run_cell_magic")


def _is_body_call(tb: TracebackType) -> bool:
    own = (Runner._execute.__code__, _bounded.__code__, raised_elsewhere.__code__)  # noqa: SLF001 - our own
    return tb.tb_frame.f_code in own


def raised_elsewhere(error: BaseException) -> NoReturn:
    """Raise what a body raised on another machine; to tracebacks this is where the body begins."""
    raise error


def frames_of_body(error: BaseException) -> TracebackType | None:
    """Return the part of a traceback that begins with the body's own frame."""
    frames = list(_frames(error.__traceback__))
    body = next((i for i in reversed(range(len(frames))) if _is_body_call(frames[i])), -1)
    return _chain(frames[body + 1 :])


def since_file(tb: TracebackType | None, file: str) -> TracebackType | None:
    """Return the part of a traceback that begins in a file; all of it where it never comes there."""
    frames = list(_frames(tb))
    first = next((i for i, one in enumerate(frames) if one.tb_frame.f_code.co_filename == file), 0)
    return _chain(frames[first:])


def _chain(frames: list[TracebackType]) -> TracebackType | None:
    chained: TracebackType | None = None
    for tb in reversed(frames):
        chained = TracebackType(chained, tb.tb_frame, tb.tb_lasti, tb.tb_lineno)
    return chained
