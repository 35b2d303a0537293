"""From notebook to flow: the cells as a Prefect flow of tasks, in code that a person would keep.

`write` makes the text: plain cells stay as they are (imports, helpers and settings at the top, what needs a task's
output inside the flow), each cached cell becomes a function with the inputs and outputs that analysis found.

`cell` is what such a function carries: a Prefect task whose body counts as the notebook's cell. Where the
store holds its run and nothing that it depends on has changed, that run is restored; else the function runs, as a
function. It stores nothing: an entry also keeps what its cell showed, and a script shows nothing.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import inspect
import io
import re
import sys
import textwrap
import tokenize
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn, ParamSpec, TypeVar, overload

from .cells.analysis import analyse
from .errors import UsageProblem
from .model import Cell, Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence

    from prefect import Task

    from .session import Session

P = ParamSpec("P")
R = TypeVar("R")

SHOWS: Final = ("head", "tail", "describe", "info", "sample", "plot", "hist", "display", "print", "shape", "dtypes")
"""What a plain cell's last line only shows: left out of a script."""


SETTINGS: Final = ("%load_ext", "%reload_ext", "%config", "%matplotlib", "%prefect_cache", "%autoreload")
"""Magics that mean nothing to a script."""


@dataclass(frozen=True, slots=True)
class Step:
    """A cell that ran in the notebook: its source, and its options where it is a cached one."""

    source: str
    options: Options | None = None


@dataclass(slots=True)
class _Part:
    """A cell on its way into a script."""

    cell: Cell
    text: str
    options: Options | None
    function: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    @property
    def reads(self) -> set[str]:
        return set(self.cell.reads) - set(self.cell.weak)


@dataclass(slots=True)
class _Script:
    top: list[_Part] = field(default_factory=list)
    body: list[_Part] = field(default_factory=list)


def write(steps: Iterable[Step], *, title: str, transform: Callable[[str], str]) -> str:
    """Return the text of a Prefect flow that does what the steps did.

    Raises
    ------
    UsageProblem
        There is no cached cell among them.
    """
    parts = [part for step in steps if (part := _part(step, transform)) is not None]
    if not any(part.options is not None for part in parts):
        raise UsageProblem("no cell has run under %%prefect_cache in this session: there is nothing to export")
    _name_functions(parts)
    script = _placed(parts)
    _connect(script.body)
    return _text(script, title)


def _part(step: Step, transform: Callable[[str], str]) -> _Part | None:
    """Return a cell without what only IPython understands; None where nothing is left."""
    text = _without_ipython(step.source, transform, shows=step.options is not None)
    if not text.strip():
        return None
    return _Part(analyse(text), text, step.options)


def _without_ipython(source: str, transform: Callable[[str], str], *, shows: bool) -> str:
    """Return the source with its magics made comments; without `shows`, also without what its last line only shows."""
    python = transform(source)
    try:
        tree = ast.parse(python)
    except SyntaxError:
        return ""
    lines = python.splitlines()
    for node in tree.body:
        last = node is tree.body[-1]
        if _is_ipythons(node):
            shown = " ".join(source.splitlines()[node.lineno - 1 : node.end_lineno]).strip()
            _blank(lines, node, "" if shown.startswith(SETTINGS) else f"# {shown}  (needs IPython)")
        elif last and not shows and isinstance(node, ast.Expr) and _only_shows(node.value):
            _blank(lines, node, "")
    return "\n".join(lines).strip("\n")


def _is_ipythons(node: ast.stmt) -> bool:
    return any(isinstance(n, ast.Name) and n.id == "get_ipython" for n in ast.walk(node))


def _only_shows(node: ast.expr) -> bool:
    """Tell whether an expression shows a value and does nothing else, as far as its words tell."""
    match node:
        case ast.Name() | ast.Constant() | ast.Attribute() | ast.Subscript() | ast.Tuple():
            return True
        case ast.Call(func=ast.Attribute(attr=name)) | ast.Call(func=ast.Name(id=name)):
            return name in SHOWS
        case _:
            return False


def _blank(lines: list[str], node: ast.stmt, text: str) -> None:
    first, last = node.lineno - 1, (node.end_lineno or node.lineno)
    lines[first:last] = [text] + [""] * (last - first - 1)


def _name_functions(parts: Sequence[_Part]) -> None:
    """Give each cached cell a function's name: its own, or one after what it makes."""
    taken: set[str] = {name for part in parts for name in (*part.cell.writes, *part.cell.reads)} | set(dir(builtins))
    for part in parts:
        if part.options is None:
            continue
        wanted = part.options.name or next(iter(part.options.outputs or part.cell.writes), "cell")
        stem = re.sub(r"\W+", "_", wanted).strip("_").lower() or "cell"
        stem = f"_{stem}" if stem[0].isdigit() else stem
        candidates = (f"{verb}{stem}{number}" for number in ("", *range(2, 1000)) for verb in ("make_",))
        part.function = next(name for name in candidates if name not in taken)
        taken.add(part.function)


def _placed(parts: Iterable[_Part]) -> _Script:
    """Put each part at the top, or in the flow where it needs what a task makes."""
    script, made = _Script(), set[str]()
    for part in parts:
        if part.options is None and not (part.reads & made or set(part.cell.writes) & made):
            script.top.append(part)
        else:
            script.body.append(part)
            made |= set(part.cell.writes) - _imports(part.cell).keys()
    return script


def _connect(body: Sequence[_Part]) -> None:
    """Find what each task takes from the flow and what it gives back."""
    made: set[str] = set()
    for place, part in enumerate(body):
        if part.options is not None:
            later = set().union(*(other.reads for other in body[place + 1 :]))
            part.inputs = tuple(sorted((part.reads | set(part.options.inputs)) & made))
            bound = [name for name in part.cell.writes if not name.startswith("_") and name not in _imports(part.cell)]
            part.outputs = part.options.outputs or tuple(n for n in bound if n in later) or tuple(bound)
        made |= set(part.cell.writes) - _imports(part.cell).keys()


def _imports(cell: Cell) -> dict[str, str]:
    """Return the names that a cell's imports bind, each with the statement that binds it."""
    statements = (node for node in cell.tree.body if isinstance(node, ast.Import | ast.ImportFrom))
    return {
        (alias.asname or alias.name).partition(".")[0]: ast.unparse(node) for node in statements for alias in node.names
    }


def _shared_imports(script: _Script) -> list[str]:
    """Return the imports of cached cells that other parts use as well."""
    shared: dict[str, None] = {}
    for part in script.body:
        elsewhere = set().union(*(other.reads for other in (*script.top, *script.body) if other is not part))
        shared |= dict.fromkeys(text for name, text in _imports(part.cell).items() if name in elsewhere)
    return list(shared)


def _text(script: _Script, title: str) -> str:
    imports = "".join(f"\n{statement}" for statement in _shared_imports(script))
    blocks = [f'"""{title}, as a Prefect flow."""', f"from prefect import flow\n\nimport prefect_cache{imports}"]
    blocks += [part.text for part in script.top]
    tasks = [part for part in script.body if part.options is not None]
    blocks += ["\n" + _task(part) for part in tasks]
    blocks += ["\n" + _flow(script, title), '\nif __name__ == "__main__":\n    notebook()']
    return "\n\n".join(blocks) + "\n"


def _task(part: _Part) -> str:
    returned = f"\n\nreturn {', '.join(part.outputs)}" if part.outputs else "\n\nreturn None"
    head = f"@prefect_cache.cell{_arguments(part)}\ndef {part.function}({', '.join(part.inputs)}):"
    return f"{head}\n{_indented(part.text)}{_indented(returned)}"


def _arguments(part: _Part) -> str:
    options = part.options or Options()
    said: dict[str, object] = {"name": options.name} if options.name else {}
    for name in ("outputs", "inputs", "ignore", "files", "tags"):
        if value := getattr(options, name):
            said[name] = list(value)
    if options.retries:
        said |= {"retries": options.retries, "retry_delay_seconds": options.retry_delay}
    if options.timeout:
        said["timeout_seconds"] = options.timeout
    return f"({', '.join(f'{name}={value!r}' for name, value in said.items())})" if said else ""


def _flow(script: _Script, title: str) -> str:
    body = script.body
    lines = [f"@flow(name={title!r})", "def notebook():"]
    shared = _seen_by_helpers(script)
    if shared:
        lines.append(f"    global {', '.join(shared)}  # helpers read them")
    for part in body:
        if part.options is None:
            lines.append(_indented(part.text))
        else:
            given = f"{', '.join(part.outputs)} = " if part.outputs else ""
            lines.append(f"    {given}{part.function}({', '.join(part.inputs)})")
    used = set().union(*(part.reads for part in body))
    made = dict.fromkeys(name for part in body for name in part.outputs)
    ends = [name for name in made if name not in used] or list(made)
    return "\n".join([*lines, f"    return {', '.join(ends)}" if ends else "    return None"])


def _seen_by_helpers(script: _Script) -> list[str]:
    """Return the flow's variables that functions read as globals: those must be the module's."""
    made = {name for part in script.body for name in (part.outputs or part.cell.writes)}
    nodes = (node for part in (*script.top, *script.body) for node in ast.walk(part.cell.tree))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)]
    return sorted({n.id for f in functions for n in ast.walk(f) if isinstance(n, ast.Name)} & made)


def _indented(text: str) -> str:
    """Return code one level deeper; the lines inside a string of several lines stay where they are."""
    inside: set[int] = set()
    with contextlib.suppress(tokenize.TokenError, SyntaxError):
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.STRING or tokenize.tok_name[token.type].startswith("FSTRING"):
                inside.update(range(token.start[0] + 1, token.end[0] + 1))
    lines = text.splitlines()
    return "\n".join(line if i in inside or not line.strip() else f"    {line}" for i, line in enumerate(lines, 1))


# Running


@overload
def cell(function: Callable[P, R], /) -> Task[P, R]: ...


@overload
def cell(**options: Any) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def cell(
    function: Callable[P, R] | None = None,
    /,
    *,
    outputs: Sequence[str] = (),
    inputs: Sequence[str] = (),
    ignore: Sequence[str] = (),
    files: Sequence[str] = (),
    **options: Any,
) -> Task[P, R] | Callable[[Callable[P, R]], Task[P, R]]:
    """Make a function that was a notebook's cell a Prefect task that restores the cell's run where it still holds.

    Parameters
    ----------
    function
        Its parameters are the cell's inputs, its body the cell, its ``return`` the outputs.
    outputs, inputs, ignore, files
        As over the cell: names, and for `files` glob patterns.
    **options
        All that ``prefect.task`` takes.

    Returns
    -------
    prefect.Task
        Called with the values of the inputs, it returns those of the outputs: restored from the store's entry for this
        cell and these values, or made by running the body and then stored.
    """
    from prefect import task

    said = Options(outputs=tuple(outputs), inputs=tuple(inputs), ignore=tuple(ignore), files=tuple(files))

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        settings = {"name": function.__name__, **options}
        return task(**settings)(_restoring(function, said))

    return decorate if function is None else decorate(function)


def _restoring(function: Callable[P, R], options: Options) -> Callable[P, R]:
    """Return the function, restored instead of run where the store has its run."""
    source, returned, silenced = _as_cell(function)
    asked = options.replace(silenced=silenced)
    signature = inspect.signature(function)

    @functools.wraps(function)
    def restore_or_run(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature.bind(*args, **kwargs).arguments
        namespace = {**function.__globals__, **given}
        if _session(namespace).restore(source, asked) is None:
            return function(*args, **kwargs)
        return eval(returned, namespace)  # type: ignore[no-any-return]  # noqa: S307 - the function's own return

    return restore_or_run


def _as_cell(function: Callable[..., object]) -> tuple[str, Any, bool]:
    """Return a function's body as a cell, its return's expression compiled, and whether it ends with a semicolon."""
    text = textwrap.dedent(inspect.getsource(function))
    tree = ast.parse(text)
    node = tree.body[0]
    last = node.body[-1] if isinstance(node, ast.FunctionDef) else None
    if not isinstance(node, ast.FunctionDef) or not isinstance(last, ast.Return):
        raise UsageProblem(f"{function.__name__} is no cell: its last statement must be a return")
    body = node.body[:-1]
    value = last.value or ast.Constant(None)
    returned = compile(ast.fix_missing_locations(ast.Expression(value)), "<return>", "eval")
    lines = text.splitlines()
    before = lines[body[-1].end_lineno - 1] if body and body[-1].end_lineno else ""
    return ast.unparse(ast.Module(body, [])), returned, before.rstrip().endswith(";")


def _session(namespace: MutableMapping[str, object]) -> Session:
    """Return a session that restores into a namespace, and shows and runs nothing."""
    from .session import Session, Shell
    from .store import Store, default_root

    def codes(python: str) -> Iterator[Any]:
        yield compile(python, "<cell>", "exec")

    shell = Shell(
        transform=str,
        execute=_cannot,
        record=_cannot,
        replay=_show_nothing,
        run_task=_cannot,
        codes=codes,
    )
    return Session(Store(default_root()), namespace, shell, notebook=sys.argv[0])


def _show_nothing(*_: object) -> None:
    """Show nothing: a script's standard output is its own."""


def _cannot(*_: object, **__: object) -> NoReturn:
    raise NotImplementedError("a script's session only restores")
