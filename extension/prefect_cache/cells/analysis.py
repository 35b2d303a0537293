"""What a cell reads, binds and deletes, told from its source before it runs.

One pass walks the syntax tree in the order of execution and keeps the set of names whose
earlier value is certainly *settled* (overwritten or deleted, so that nobody can see it again)
where control stands. A name that is read before it is settled is an input. In doubt a name is
read: a branch that may be skipped settles nothing, a loop may run zero times, an exception may strike
anywhere in a ``try``.

A function's body runs later, so what it reads is held back until the cell first does
anything that could call it; a cell that only defines functions reads nothing for them. Names in
texts count as well: in magics and shell lines, behind the ``@`` of ``df.query``, after
``from`` in SQL. What cannot be seen at all is said in words.
"""

# ruff: noqa: N815 - a NodeVisitor's methods are named after its nodes
from __future__ import annotations

import ast
import builtins
import importlib.util
import re
import sys
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, cast

from prefect_cache import digests
from prefect_cache.cells import commands, lasting
from prefect_cache.cells.lasting import dotted_name
from prefect_cache.model import Cell

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from importlib.machinery import ModuleSpec

    from prefect_cache.model import Digest

_MAX_FILE_NAME = 4096
_BUILTINS = frozenset(dir(builtins))
_FLAGS = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


def analyse(source: str, *, transform: Callable[[str], str] | None = None, names: Collection[str] = ()) -> Cell:
    """Return what can be said about a cell before it runs.

    Parameters
    ----------
    source
        The code as the user wrote it.
    transform
        What turns magics and shell escapes into Python: the shell's ``transform_cell``.
    names
        What the namespace holds now. Texts mention variables by words, and a word counts
        only where there is a variable of that name. Where this is the namespace itself, texts
        that stand in variables are read too.

    Raises
    ------
    SyntaxError
        Where the source is no Python.
    """
    transform = transform or _unchanged
    python = transform(source)
    tree = parse(python)
    reader = _Reader(transform, names)
    reader.block(tree.body)
    reader.finish()
    return Cell(
        source=source,
        python=python,
        tree=tree,
        reads=_sorted(reader.reads),
        writes=_sorted(reader.writes),
        deletes=_sorted(reader.deletes),
        imports=_sorted(reader.imports),
        strings=_sorted(filter(may_name_file, reader.strings)),
        environ=_sorted(reader.environ),
        magics=_sorted(reader.magics),
        dynamic=tuple(dict.fromkeys(reader.dynamic)),
        settled=_sorted(reader.settled),
        weak=_sorted(reader.reads - reader.hard),
    )


def parse(python: str) -> ast.Module:
    """Return the tree of a cell's Python, in which ``await`` may stand at the top."""
    return cast("ast.Module", compile(python, "<cell>", "exec", _FLAGS, dont_inherit=True))


def may_name_file(text: str) -> bool:
    """Tell whether a text could be the name of a file or folder."""
    return 0 < len(text) <= _MAX_FILE_NAME and text.isprintable() and "://" not in text


def _unchanged(source: str) -> str:
    return source


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))


# --- scopes ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Frame:
    """One scope that the reader stands in.

    `local` holds all names of a function's own (they are its own wherever they are bound), and
    those that a class body has bound so far. `shared` holds names declared global.
    """

    kind: Literal["class", "function", "comprehension"]
    local: set[str] = field(default_factory=set)
    shared: set[str] = field(default_factory=set)
    private: str = ""


@dataclass(slots=True)
class _Later:
    """What a function does to global names once somebody calls it."""

    reads: set[str] = field(default_factory=set)
    dynamic: list[str] = field(default_factory=list)

    def include(self, inner: _Later) -> None:
        self.reads |= inner.reads
        self.dynamic += inner.dynamic


class _Locals(ast.NodeVisitor):
    """The names that a function binds in its own scope, and those that it declares otherwise."""

    def __init__(self) -> None:
        self.bound: set[str] = set()
        self.shared: set[str] = set()
        self.outer: set[str] = set()
        self._inside = 0  # comprehensions around us: of what stands there, only := binds here

    @classmethod
    def of(cls, body: Sequence[ast.AST]) -> _Locals:
        found = cls()
        for node in body:
            found.visit(node)
        return found

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load) and not self._inside:
            self.bound.add(node.id)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.bound.add(node.target.id)
        self.visit(node.value)

    def visit_FunctionDef(self, node: _Function) -> None:
        self.bound.add(node.name)
        for part in _evaluated_outside(node):
            self.visit(part)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        for part in _defaults(node.args):
            self.visit(part)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.bound.add(node.name)
        for part in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(part)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.bound.update(_imported_name(alias) for alias in node.names)

    visit_ImportFrom = visit_Import

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self._bind(node.name)
        self.generic_visit(node)

    def visit_MatchAs(self, node: ast.MatchAs | ast.MatchStar) -> None:
        self._bind(node.name)
        self.generic_visit(node)

    visit_MatchStar = visit_MatchAs

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        self._bind(node.rest)
        self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> None:
        self.shared.update(node.names)

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        self.outer.update(node.names)

    def visit_ListComp(self, node: _Comprehension) -> None:
        self._inside += 1
        self.generic_visit(node)
        self._inside -= 1

    visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_ListComp

    def _bind(self, name: str | None) -> None:
        if name is not None:
            self.bound.add(name)


def _imported_name(alias: ast.alias) -> str:
    return alias.asname or alias.name.partition(".")[0]


def _arguments(args: ast.arguments) -> list[ast.arg]:
    rest = [arg for arg in (args.vararg, args.kwarg) if arg is not None]
    return [*args.posonlyargs, *args.args, *args.kwonlyargs, *rest]


def _defaults(args: ast.arguments) -> list[ast.expr]:
    return [*args.defaults, *(value for value in args.kw_defaults if value is not None)]


def _annotations(node: _Function) -> list[ast.expr]:
    found = [arg.annotation for arg in _arguments(node.args)]
    return [annotation for annotation in (*found, node.returns) if annotation is not None]


def _evaluated_outside(node: _Function) -> list[ast.expr]:
    """Return what is evaluated where the function is defined, not where it is called."""
    return [*node.decorator_list, *_defaults(node.args), *_annotations(node)]


# --- the reader --------------------------------------------------------------------------------

# Expressions and statements that run no code of anybody's: whatever else a cell does could call a
# function that it defined before (by name, through the namespace, even where it is not mentioned).
_PASSIVE = (
    *(ast.Name, ast.Constant, ast.Lambda, ast.Tuple, ast.List, ast.Dict),
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Global, ast.Nonlocal),
    *(ast.Expr, ast.Assign, ast.AnnAssign, ast.Pass, ast.Break, ast.Continue, ast.Try, ast.TryStar),
    *filter(None, [getattr(ast, "TypeAlias", None)]),  # Python 3.12
)


@dataclass(slots=True)
class _State:
    """Where control stands: the settled names, and whether control can get here at all."""

    settled: set[str] = field(default_factory=set)
    live: bool = True

    def copy(self) -> _State:
        return _State(set(self.settled), self.live)


def _meet(states: Iterable[_State]) -> _State:
    """Return what is certain wherever control came from."""
    live = [state for state in states if state.live]
    if not live:
        return _State(live=False)
    return _State(set.intersection(*(state.settled for state in live)))


@dataclass(slots=True)
class _Loop:
    breaks: list[_State] = field(default_factory=list)


class _Reader(ast.NodeVisitor):
    """The walk; see the module's head for what it keeps."""

    def __init__(self, transform: Callable[[str], str], names: Collection[str]) -> None:
        self.reads: set[str] = set()
        self.hard: set[str] = set()
        self.writes: set[str] = set()
        self.deletes: set[str] = set()
        self.imports: set[str] = set()
        self.strings: set[str] = set()
        self.environ: set[str] = set()
        self.magics: set[str] = set()
        self.dynamic: list[str] = []
        self._modules: set[str] = set()  # dotted names by which the cell knows modules that it imported
        self._transform = transform
        self._names = names
        self._state = _State()
        self._frames: list[_Frame] = []
        self._bodies: list[_Later] = []  # functions around us, outermost first
        self._held: list[_Later] = []  # functions that nobody can have called yet
        self._loops: list[_Loop] = []
        self._guards = 0  # constructs around us in which a NameError may pass unnoticed

    @property
    def settled(self) -> set[str]:
        """Names certainly bound or deleted where control stands."""
        return self._state.settled

    # walking

    def block(self, statements: Sequence[ast.stmt]) -> None:
        """Walk statements in order."""
        for statement in statements:
            self.visit(statement)

    def visit(self, node: ast.AST) -> None:
        """Walk one node; let go of held functions where it could run them."""
        super().visit(node)
        if isinstance(node, ast.expr | ast.stmt) and not isinstance(node, _PASSIVE):
            self._release()

    def finish(self) -> None:
        """Read the names in texts that variables hold: a query's text may have been written in another cell."""
        if not isinstance(self._names, Mapping):
            return
        for name in sorted(self.reads):
            value = self._names.get(name)
            if isinstance(value, str):
                self.reads |= (mentioned := self._names_in(value) & self._names.keys())
                self.hard |= mentioned

    def _names_known(self) -> set[str]:
        return {*self._names, *self.writes}

    def _all(self, *nodes: ast.AST | None) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    @contextmanager
    def _frame(self, frame: _Frame) -> Iterator[None]:
        if not frame.private and self._frames:
            frame.private = self._frames[-1].private
        self._frames.append(frame)
        try:
            yield
        finally:
            self._frames.pop()

    @contextmanager
    def _perhaps(self) -> Iterator[None]:
        """Walk what may be skipped: it settles nothing."""
        before = self._state.copy()
        yield
        self._state = before

    @contextmanager
    def _guarded(self, really: bool = True) -> Iterator[None]:  # noqa: FBT001, FBT002 - reads as a word
        self._guards += really
        yield
        self._guards -= really

    # names

    def _read(self, name: str) -> None:
        if not self._is_local(name := self._mangled(name)):
            self._read_global(name)

    def _is_local(self, name: str) -> bool:
        innermost = len(self._frames) - 1
        for i in range(innermost, -1, -1):
            frame = self._frames[i]
            if name in frame.shared:
                return False
            if name in frame.local and (frame.kind != "class" or i == innermost):
                return True
        return False

    def _read_global(self, name: str) -> None:
        if self._bodies:
            self._bodies[-1].reads.add(name)
        elif name not in self._state.settled:
            self.reads.add(name)
            if self._guards or name in _BUILTINS or name not in self.writes:
                self.hard.add(name)

    def _release(self) -> None:
        """Read what the held functions read: from here on somebody may call them."""
        if self._bodies or not self._held:
            return
        held, self._held = self._held, []
        for later in held:
            unsettled = later.reads - self._state.settled
            self.reads |= unsettled
            self.hard |= unsettled
            self.dynamic += later.dynamic

    def _bind(self, name: str | None) -> None:
        if name is None:
            return
        name = self._mangled(name)
        frame = next((f for f in reversed(self._frames) if f.kind != "comprehension"), None)
        if frame is None:
            self._settle(name)
        elif name in frame.shared:
            self.writes.add(name)
        elif frame.kind == "class":
            frame.local.add(name)

    def _settle(self, name: str) -> None:
        self.writes.add(name)
        self._state.settled.add(name)

    def _unbind(self, name: str) -> None:
        self._read(name)
        name = self._mangled(name)
        if not self._frames:
            self.deletes.add(name)
            self._state.settled.add(name)
        elif name in self._frames[-1].shared:
            self.deletes.add(name)
        elif self._frames[-1].kind == "class":
            self._frames[-1].local.discard(name)

    def _mangled(self, name: str) -> str:
        private = self._frames[-1].private.lstrip("_") if self._frames else ""
        if private and name.startswith("__") and not name.endswith("__"):
            return f"_{private}{name}"
        return name

    def _is_builtin(self, name: str) -> bool:
        """Tell whether `name` means Python's own, as far as can be seen."""
        return not self._is_local(name) and name not in self._state.settled and name not in self._names

    def _unseen(self, reason: str) -> None:
        (self._bodies[-1].dynamic if self._bodies else self.dynamic).append(reason)

    # expressions

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            if node.id in _BLIND and self._is_builtin(node.id):
                self._unseen(_BLIND[node.id])
            elif node.id == "get_ipython":
                self._unseen("get_ipython() reaches all variables")
            else:
                self._read(node.id)
        elif isinstance(node.ctx, ast.Store):
            self._bind(node.id)
        else:
            self._unbind(node.id)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self._bind(node.target.id)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self._mention(node.value)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        for before, part in zip([None, *node.values], node.values, strict=False):
            if isinstance(part, ast.FormattedValue) and _ends_with_at(before):
                self._unseen("a name behind @ is put together while the cell runs")
            self.visit(part)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.visit(node.values[0])
        with self._perhaps():
            self._all(*node.values[1:])

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit(node.test)
        with self._perhaps():
            self.visit(node.body)
        with self._perhaps():
            self.visit(node.orelse)

    def visit_Compare(self, node: ast.Compare) -> None:
        self._all(node.left, node.comparators[0])
        with self._perhaps():
            self._all(*node.comparators[1:])
        if isinstance(node.left, ast.Constant) and dotted_name(node.comparators[0]) in _ENVIRON:
            self._name_environ(node.left)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._all(*_defaults(node.args))
        self._hold(self._body_of(node.args, [node.body]))

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> None:
        self._comprehension(node, node.elt)

    visit_SetComp = visit_GeneratorExp = visit_ListComp

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._comprehension(node, node.key, node.value)

    def _comprehension(self, node: _Comprehension, *elements: ast.expr) -> None:
        first, *others = node.generators
        self.visit(first.iter)
        frame = _Frame("comprehension", _Locals.of([generator.target for generator in node.generators]).bound)
        with self._frame(frame), self._perhaps(), self._guarded(isinstance(node, ast.GeneratorExp)):
            self._target(first.target)
            self._all(*first.ifs)
            for generator in others:
                self.visit(generator.iter)
                self._target(generator.target)
                self._all(*generator.ifs)
            self._all(*elements)

    def _target(self, node: ast.expr) -> None:
        """Walk a comprehension's target: names are its own, items and attributes are somebody's."""
        if isinstance(node, ast.Tuple | ast.List):
            for part in node.elts:
                self._target(part)
        elif isinstance(node, ast.Starred):
            self._target(node.value)
        elif not isinstance(node, ast.Name):
            self.visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if _is_shell(node.value):
            self._unseen(f"get_ipython().{node.attr} reaches all variables")
            return
        if not isinstance(node.ctx, ast.Load) and self._is_module(node.value):
            self._sets_in_module(node.value, node.attr)
        if node.attr in _BLIND_ATTRIBUTES:
            self._unseen(_BLIND_ATTRIBUTES[node.attr])
        self.visit(node.value)

    def _is_module(self, node: ast.expr) -> bool:
        """Tell whether an expression is a module, as far as names tell."""
        name = dotted_name(node)
        if not name or self._is_local(name.partition(".")[0]):
            return False
        if name in self._modules:
            return True
        return isinstance(self._names, Mapping) and isinstance(self._names.get(name), ModuleType)

    def _sets_in_module(self, module: ast.expr, attribute: str) -> None:
        if (name := f"{dotted_name(module)}.{attribute}") not in lasting.RESTORED:
            self._unseen(lasting.setting(name))

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if dotted_name(node.value) in _ENVIRON and not isinstance(node.ctx, ast.Store):
            self._name_environ(node.slice)
        if dotted_name(node.value) == "sys.modules" and not _is_plain_module(node.slice):
            self._unseen("sys.modules reaches all variables")
        self._all(node.value, node.slice)

    def visit_Expr(self, node: ast.Expr) -> None:
        function = node.value.func if isinstance(node.value, ast.Call) else None
        if isinstance(function, ast.Attribute) and function.attr == "resize":
            # A picture's resize() gives another picture, which a cell would take; this is an array's.
            self._unseen("resize() of an array fails while anybody else remembers it")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute) and _is_shell(node.func.value):
            self._command(node.func.attr, node)
            return
        if not self._blind_call(node):
            self.visit(node.func)
        self._texts_of(node)
        self._all(*node.args, *node.keywords)

    # texts

    def _mention(self, text: str) -> None:
        self.strings.add(text)
        for name in _BEHIND_AT.findall(text):
            self._read(name)
        for name in _tables(text) & self._names_known():
            self._read(name)

    @staticmethod
    def _names_in(text: str) -> set[str]:
        return {*_BEHIND_AT.findall(text), *_tables(text)}

    def _name_environ(self, node: ast.expr) -> None:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            self.environ.add(node.value)

    def _texts_of(self, node: ast.Call) -> None:
        """Read the names in texts that a call is known to look up by itself."""
        dotted = dotted_name(node.func)
        method = dotted.rpartition(".")[2]
        argument = next(iter([*node.args, *(k.value for k in node.keywords if k.arg in {"expr", "query"})]), None)
        if method in {"get", "pop", "getenv", "getenvb", "setdefault"} and argument is not None:
            if dotted.rpartition(".")[0] in _ENVIRON or method.startswith("getenv"):
                self._name_environ(argument)
        elif dotted in {"pd.eval", "pandas.eval", "numexpr.evaluate", "ne.evaluate"}:
            self._evaluate(argument, everything=True)
        elif method in {"query", "eval"} and dotted != "eval" and argument is not None:
            self._evaluate(argument, everything=False)

    def _evaluate(self, node: ast.expr | None, *, everything: bool) -> None:
        """Read the names in a text that is evaluated; those behind ``@`` are read wherever a text stands."""
        if isinstance(node, ast.Subscript | ast.Attribute | ast.Call):
            self._unseen("query() and eval() look up names in a text that is only known while the cell runs")
        if not everything or node is None:
            return
        texts = [*_texts(node)]
        if isinstance(node, ast.Name) and isinstance(self._names, Mapping):
            texts += [value] if isinstance(value := self._names.get(node.id), str) else []
        for name in {word for text in texts for word in _WORD.findall(text)} & self._names_known():
            self._read(name)

    # what cannot be seen

    def _blind_call(self, node: ast.Call) -> bool:
        """Judge calls that reach names out of sight; return whether the callee needs no more reading."""
        dotted = dotted_name(node.func)
        method = dotted.rpartition(".")[2]
        if dotted in {"eval", "exec"} and self._is_builtin(dotted):
            self._run_text(node, "eval" if dotted == "eval" else "exec")
            return True
        if dotted in {"locals", "vars", "dir"} and self._is_builtin(dotted):
            if not node.args and not self._bodies:  # inside a function they see that function's own names
                self._unseen(f"{dotted}() lists variables")
            return True
        if method in {"import_module", "__import__"}:
            self._import_by_name(node, dotted)
        elif dotted in {"setattr", "delattr"} and node.args and self._is_module(node.args[0]):
            self._sets_in_module(node.args[0], "...")
        elif reason := lasting.call(dotted):
            self._unseen(reason)
        elif dotted in _BLIND_CALLS:
            self._unseen(_BLIND_CALLS[dotted])
        return False

    def _run_text(self, node: ast.Call, function: Literal["eval", "exec"]) -> None:
        argument = node.args[0] if node.args else None
        if len(node.args) + len(node.keywords) > 1:  # its own namespace; that is read as any argument is
            return
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str) and not self._frames:
            try:
                self.generic_visit(ast.parse(argument.value.strip(), mode=function))
            except SyntaxError:  # the cell will raise it
                return
            return
        self._unseen(f"{function}() runs code that is only known while the cell runs")

    def _import_by_name(self, node: ast.Call, dotted: str) -> None:
        argument = node.args[0] if node.args else None
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            self.imports.add(argument.value)
        else:
            self._unseen(f"{dotted}() imports a module whose name is only known while the cell runs")

    # magics and shell lines

    def _command(self, method: str, node: ast.Call) -> None:
        texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        if method in {"system", "getoutput", "getoutput_inplace"} and len(texts) == 1:
            self._expand(texts[0])
        elif method == "run_line_magic" and len(texts) == 2:  # noqa: PLR2004 - name and line
            self._line_magic(*texts)
        elif method == "run_cell_magic" and len(texts) == 3:  # noqa: PLR2004 - name, line and body
            self._cell_magic(*texts)
        else:
            self._unseen(f"get_ipython().{method} reaches all variables")

    def _expand(self, line: str) -> None:
        mentions = commands.expanded(line)
        for expression in mentions.expressions:
            self._python(expression)
        for name in mentions.names:
            self._read(name)
        self.environ |= mentions.environ - {*self._names}
        self.strings |= mentions.files | {line}

    def _line_magic(self, magic: str, line: str) -> None:
        self._judge("%", magic, line)
        if magic == "env" and "=" not in line:
            self.environ.update(line.split())
        if magic not in commands.PYTHON:
            self._expand(line)
            self._words_of_unknown(magic, line)
            return
        options, code = commands.without_options(magic, line)
        self._expand(options)
        self._embedded(magic, code)
        self._bind_by_options(magic, options)

    def _cell_magic(self, magic: str, line: str, body: str) -> None:
        self._judge("%%", magic, line)
        self._expand(line)
        if magic in commands.PYTHON:
            _, setup = commands.without_options(magic, line)
            self._embedded(magic, f"{setup}\n{body}" if magic in {"timeit", "time"} else body)
        elif magic in commands.SCRIPTS:
            self.environ |= commands.environment(body)
            self.strings |= commands.words(body)
        else:
            self.strings.add(body)
            self._words_of_unknown(magic, f"{line}\n{body}")
        self._bind_by_options(magic, line)

    def _judge(self, sign: str, magic: str, line: str) -> None:
        self.magics.add(f"{sign}{magic}")
        if reason := commands.reason(magic, line):
            self._unseen(reason)

    def _words_of_unknown(self, magic: str, text: str) -> None:
        if magic not in commands.INERT:
            for name in commands.identifiers(text) & self._names_known():
                self._read(name)

    def _bind_by_options(self, magic: str, line: str) -> None:
        for name in sorted(commands.bound_by_options(magic, line)):
            self._bind(name)

    def _embedded(self, magic: str, code: str) -> None:
        """Walk the Python that a magic runs."""
        if magic in commands.LOCAL | commands.QUIET:
            with self._perhaps(), self._guarded():
                self._python(code)
        else:
            self._python(code)

    def _python(self, code: str) -> None:
        try:
            statements = parse(self._transform(code)).body
        except SyntaxError:  # a shell's braces, a magic with options of its own: its words may be names
            for name in commands.identifiers(code):
                self._read(name)
            return
        self.block(statements)

    # functions and classes

    def _body_of(self, args: ast.arguments | None, body: Sequence[ast.AST]) -> _Later:
        found = _Locals.of(body)
        own = {arg.arg for arg in _arguments(args)} if args is not None else set()
        frame = _Frame("function", (found.bound | own) - found.shared - found.outer, found.shared)
        self._bodies.append(later := _Later())
        loops, self._loops = self._loops, []
        with self._frame(frame), self._perhaps():
            for node in body:
                self.visit(node)
        self._loops = loops
        self._bodies.pop()
        return later

    def _hold(self, later: _Later) -> None:
        if self._bodies:
            self._bodies[-1].include(later)
        else:
            self._held.append(later)

    def visit_FunctionDef(self, node: _Function) -> None:
        self._decorated(node)
        self._all(*_defaults(node.args))
        with self._type_parameters(node):
            self._all(*_annotations(node))
            later = self._body_of(node.args, node.body)
        self._hold(later)
        if node.decorator_list:
            self._release()
        self._bind(node.name)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._decorated(node)
        with self._type_parameters(node):
            self._all(*node.bases, *node.keywords)
            shared = _Locals.of(node.body).shared
            with self._frame(_Frame("class", {"__module__", "__qualname__"}, shared, node.name)):
                self.block(node.body)
        if node.decorator_list or node.bases or node.keywords:
            self._release()
        self._bind(node.name)

    def _decorated(self, node: _Function | ast.ClassDef) -> None:
        for decorator in node.decorator_list:
            if not isinstance(decorator, ast.Call) and (reason := lasting.call(dotted_name(decorator))):
                self._unseen(reason)  # @atexit.register calls it
        self._all(*node.decorator_list)

    @contextmanager
    def _type_parameters(self, node: ast.AST) -> Iterator[None]:
        """Walk inside the scope that ``[T: bound = default]`` opens; the bounds are evaluated when somebody asks."""
        parameters: Sequence[ast.AST] = getattr(node, "type_params", ())
        if not parameters:  # then there is no such scope
            yield
            return
        with self._frame(_Frame("function", {getattr(parameter, "name") for parameter in parameters})):  # noqa: B009
            for parameter in parameters:
                parts = [getattr(parameter, part, None) for part in ("bound", "default_value")]
                self._hold(self._body_of(None, [part for part in parts if part is not None]))
            yield

    def visit_TypeAlias(self, node: ast.AST) -> None:
        """Read ``type X[T] = ...``, whose value is evaluated when somebody asks; Python 3.11 has no such node."""
        name, value = (getattr(node, part) for part in ("name", "value"))
        with self._type_parameters(node):
            self._hold(self._body_of(None, [value]))
        self._bind(name.id)

    # statements

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            if not isinstance(target, ast.Name):  # unpacking, item and attribute assignment run code
                self._release()
            self.visit(target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self._read(node.target.id)
        self._all(node.value, node.target)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._all(node.value, node.annotation)
        if node.value is not None or not isinstance(node.target, ast.Name):
            self.visit(node.target)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._import(alias.name)
            self._bind(_imported_name(alias))
            parts = [alias.asname] if alias.asname else alias.name.split(".")
            self._modules.update(".".join(parts[: i + 1]) for i in range(len(parts)))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = "." * node.level + (node.module or "")
        self._import(module)
        for alias in node.names:
            if alias.name == "*":
                self._bind_all(module)
            else:
                self._bind(alias.asname or alias.name)
                if _spec(f"{module}.{alias.name}") is not None:
                    self.imports.add(f"{module}.{alias.name}")
                    self._modules.add(alias.asname or alias.name)

    def _import(self, module: str) -> None:
        self.imports.add(module)
        if module == "__main__":
            self._unseen("the module __main__ reaches all variables")

    def _bind_all(self, module: str) -> None:
        names = _public_names(module)
        if names is None:
            self._unseen(f"from {module} import * binds names that cannot be seen")
        for name in names or ():
            self._bind(name)

    def visit_Global(self, node: ast.Global) -> None:
        """Do nothing: the frame knows."""

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        """Do nothing: the frame knows."""

    def _dead_end(self) -> None:
        self._state = _State(set(self._state.settled), live=False)

    def visit_Raise(self, node: ast.Raise) -> None:
        self._all(node.exc, node.cause)
        self._dead_end()

    def visit_Return(self, node: ast.Return) -> None:
        self._all(node.value)
        self._dead_end()

    def visit_Break(self, node: ast.Break) -> None:  # noqa: ARG002 - a visitor's signature
        if self._loops:
            self._loops[-1].breaks.append(self._state.copy())
        self._dead_end()

    def visit_Continue(self, node: ast.Continue) -> None:  # noqa: ARG002 - a visitor's signature
        self._dead_end()

    def _branch(self, before: _State, statements: Sequence[ast.stmt]) -> _State:
        """Walk a branch from `before`; return where it ends."""
        self._state = before.copy()
        self.block(statements)
        return self._state

    def _header(self, node: ast.expr) -> None:
        """Walk the head of a compound statement, which runs code of its value (truth, iteration, entering)."""
        self.visit(node)
        self._release()

    def visit_If(self, node: ast.If) -> None:
        self._header(node.test)
        before = self._state
        self._state = _meet([self._branch(before, node.body), self._branch(before, node.orelse)])

    def visit_While(self, node: ast.While) -> None:
        self._header(node.test)
        endless = isinstance(node.test, ast.Constant) and bool(node.test.value)
        before = self._state
        loop = self._loop(before, node.body)
        done = _State(live=False) if endless else self._branch(before, node.orelse)
        self._state = _meet([done, *loop.breaks])

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self._header(node.iter)
        before = self._state
        self._state = before.copy()
        self.visit(node.target)
        loop = self._loop(self._state, node.body)
        self._state = _meet([self._branch(before, node.orelse), *loop.breaks])

    visit_AsyncFor = visit_For

    def _loop(self, before: _State, body: Sequence[ast.stmt]) -> _Loop:
        self._loops.append(loop := _Loop())
        self._branch(before, body)
        return self._loops.pop() if self._loops else loop

    def visit_With(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            self._header(item.context_expr)
            self._all(item.optional_vars)
        before = self._state.copy()
        with self._guarded():
            self.block(node.body)
        # A context manager may swallow an error, so the body may end anywhere.
        self._state = _meet([before, self._state])

    visit_AsyncWith = visit_With

    def visit_Try(self, node: ast.Try | ast.TryStar) -> None:
        before = self._state.copy()
        with self._guarded():
            body = self._branch(before, node.body)
            ends = [self._branch(body, node.orelse)]
            ends += [self._handler(before, handler) for handler in node.handlers]
            self._state = before.copy()
            self.block(node.finalbody)
        settled_finally = self._state.settled
        self._state = _meet(ends)
        self._state.settled |= settled_finally

    visit_TryStar = visit_Try

    def _handler(self, before: _State, handler: ast.ExceptHandler) -> _State:
        self._state = before.copy()
        self._all(handler.type)
        self._bind(handler.name)
        self.block(handler.body)
        if handler.name is not None and not self._frames:
            self.deletes.add(handler.name)
        return self._state

    def visit_Match(self, node: ast.Match) -> None:
        self._header(node.subject)
        before = self._state
        ends = []
        for case in node.cases:
            self._state = before.copy()
            self._all(case.pattern, case.guard)
            ends.append(self._branch(self._state, case.body))
        irrefutable = any(case.guard is None and _matches_all(case.pattern) for case in node.cases)
        self._state = _meet(ends if irrefutable else [*ends, before])

    def visit_MatchAs(self, node: ast.MatchAs | ast.MatchStar) -> None:
        self._all(getattr(node, "pattern", None))
        self._bind(node.name)

    visit_MatchStar = visit_MatchAs

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        self._all(*node.keys, *node.patterns)
        self._bind(node.rest)


# --- what to look for --------------------------------------------------------------------------

_WORD = re.compile(r"[^\W\d]\w*")
_BEHIND_AT = re.compile(r"(?<![\w.@])@([^\W\d]\w*)")
_TABLE = re.compile(
    r"\b(?:from|join|into|update|table|describe|summarize|pivot|unpivot|show)\s+((?:[\w.\"]+\s*,\s*)*[\w.\"]+)",
    re.IGNORECASE,
)
_ENVIRON = frozenset({"os.environ", "environ", "os.environb", "environb"})

_BLIND = {
    "eval": "eval() runs code that is only known while the cell runs",
    "exec": "exec() runs code that is only known while the cell runs",
    "globals": "globals() reaches all variables",
    "locals": "locals() reaches all variables",
    "vars": "vars() lists variables",
    "input": "input() asks the person",
    "breakpoint": "breakpoint() asks the person",
}
_BLIND_ATTRIBUTES = {
    "__globals__": "__globals__ reaches all variables",
    "f_globals": "a stack frame reaches all variables",
    "f_locals": "a stack frame reaches all variables",
    "f_back": "a stack frame reaches all variables",
    "user_ns": "user_ns reaches all variables",
    "user_global_ns": "user_global_ns reaches all variables",
}
_BLIND_CALLS = {
    "sys._getframe": "sys._getframe() reaches all variables",
    "inspect.currentframe": "inspect.currentframe() reaches all variables",
    "inspect.stack": "inspect.stack() reaches all variables",
    **dict.fromkeys(
        (
            name
            for one in ("getsource", "getsourcelines", "getcomments", "findsource")
            for name in (one, f"inspect.{one}")
        ),
        "inspect reads the text of code, comments included",
    ),
    "getpass.getpass": "getpass() asks the person",
    "getpass": "getpass() asks the person",
}


def _is_shell(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "get_ipython"


def _is_plain_module(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value != "__main__"


def _ends_with_at(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith("@")


def _matches_all(pattern: ast.pattern) -> bool:
    if isinstance(pattern, ast.MatchAs):
        return pattern.pattern is None or _matches_all(pattern.pattern)
    return isinstance(pattern, ast.MatchOr) and _matches_all(pattern.patterns[-1])


def _texts(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def _tables(text: str) -> set[str]:
    """Return the words that stand where SQL names a table: DuckDB and polars look variables up by them."""
    return {word for group in _TABLE.findall(text) for word in _WORD.findall(group)}


def _spec(module: str) -> ModuleSpec | None:
    """Return where a module comes from, without importing anything, not even the packages around it."""
    if module in sys.modules:
        return sys.modules[module].__spec__
    package, _, name = module.rpartition(".")
    try:
        if not package:
            return importlib.util.find_spec(module) if name else None
        around = _spec(package)
        if around is None or around.submodule_search_locations is None:
            return None
        return PathFinder.find_spec(module, [*around.submodule_search_locations])
    except (ImportError, ValueError):
        return None


def _public_names(module: str) -> set[str] | None:
    """Return what ``from module import *`` binds, without importing it; None where that cannot be seen."""
    loaded = sys.modules.get(module)
    if loaded is not None:
        listed = getattr(loaded, "__all__", None)
        return set(listed) if listed is not None else {name for name in vars(loaded) if not name.startswith("_")}
    spec = _spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    try:
        return _names_in_source(ast.parse(Path(spec.origin).read_bytes()))
    except (OSError, SyntaxError, ValueError):
        return None


def _names_in_source(tree: ast.Module) -> set[str] | None:
    bound: set[str] = set()
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and any(alias.name == "*" for alias in statement.names):
            return None
        bound |= _Locals.of([statement]).bound
    if "__all__" not in bound:
        return {name for name in bound if not name.startswith("_")}
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and [dotted_name(t) for t in statement.targets] == ["__all__"]:
            try:
                return set(ast.literal_eval(statement.value))
            except ValueError:
                return None
    return None


# --- digest ------------------------------------------------------------------------------------


def tree_digest(tree: ast.AST) -> Digest:
    """Return the digest of a syntax tree: comments, blank lines and formatting do not matter, all else does.

    Fields that are empty count for nothing, so that fields which later Pythons add do not part equal code.
    """
    hasher = digests.Hasher()
    for piece in _pieces(tree):
        hasher.update(piece)
    return digests.combine("tree", hasher.hexdigest())


def _pieces(node: object) -> Iterator[bytes]:
    if isinstance(node, ast.Constant):
        yield _framed(type(node.value).__name__, repr(node.value))
    elif isinstance(node, ast.AST):
        yield _framed("node", type(node).__name__)
        yield from _fields(node)
        yield b")"
    elif isinstance(node, list):
        yield b"[%d:" % len(node)
        for item in node:
            yield from _pieces(item)
        yield b"]"
    else:
        yield _framed(type(node).__name__, repr(node))


def _fields(node: ast.AST) -> Iterator[bytes]:
    texts = _python_of_magic(node)
    if texts is not None:
        yield _framed("magic", texts[0])
        yield from _pieces(texts[1])
        return
    for name in sorted(node._fields):
        value = getattr(node, name, None)
        if value is not None and value != [] and name not in {"type_comment", "type_ignores", "ctx"}:
            yield _framed("field", name)
            yield from _pieces(value)


def _framed(tag: str, text: str) -> bytes:
    body = text.encode("utf-8", "surrogatepass")
    return b"(%b:%d:%b" % (tag.encode(), len(body), body)


def _python_of_magic(node: ast.AST) -> tuple[str, ast.Module] | None:
    """Return name and line of a cell magic with a Python body, and the body's tree."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_shell(node.func.value)):
        return None
    texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    if node.func.attr != "run_cell_magic" or len(texts) != 3 or texts[0] not in commands.PYTHON:  # noqa: PLR2004
        return None
    try:
        return f"{texts[0]} {texts[1]}", parse(texts[2])
    except SyntaxError:  # more magics inside: their text counts as it stands
        return None
