"""Annotations of the notebook's names: ``count: int = 5`` makes ``int`` an item of ``__annotations__``.

That mapping belongs to the interpreter, and each cell adds to it. What a run has added is put back on a hit from what
stands in the cell: nothing is read from files, and an annotation that would call something is never evaluated again.
"""

from __future__ import annotations

import ast
import contextlib
from typing import TYPE_CHECKING, Any

from prefect_cache.errors import Unstorable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, MutableMapping

_NAME = "__annotations__"
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_STATEMENTS = (ast.stmt, ast.excepthandler, ast.match_case)
_ACTIVE = (ast.Call, ast.Await, ast.NamedExpr)


def written(tree: ast.AST) -> dict[str, ast.expr]:
    """Return the names that a cell annotates outside of functions and classes, each with its last annotation."""
    found = {}
    if isinstance(tree, ast.AnnAssign) and isinstance(tree.target, ast.Name) and tree.simple:
        found[tree.target.id] = tree.annotation
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, _STATEMENTS) and not isinstance(node, _SCOPES):
            found |= written(node)
    return found


@contextlib.contextmanager
def apart(tree: ast.AST, namespace: MutableMapping[str, object]) -> Iterator[dict[str, Any]]:
    """Let a cell begin with an empty mapping, and give it what was there when it has run; yield what it adds.

    Not where the cell looks at the mapping itself.
    """
    added: dict[str, Any] = {}
    before = namespace.get(_NAME)
    if not written(tree) or not isinstance(before, dict | None) or _looks_itself(tree):
        yield added
        return
    namespace.pop(_NAME, None)
    try:
        yield added
    finally:
        now = namespace.get(_NAME)
        added.update(now if isinstance(now, dict) else {})
        if before is not None:
            before.update(added)
            namespace[_NAME] = before


def _looks_itself(tree: ast.AST) -> bool:
    return any(isinstance(node, ast.Name) and node.id == _NAME for node in ast.walk(tree))


def told(tree: ast.AST, added: Mapping[str, Any], namespace: Mapping[str, object]) -> dict[str, bool]:
    """Return the names that a run annotated, and whether each is annotated by text (``from __future__ import ...``).

    Raises
    ------
    Unstorable
        Where what stands in the cell does not give the annotation once more.
    """
    expressions, found = written(tree), {}
    for name, value in added.items():
        expression = expressions.get(name)
        found[name] = isinstance(value, str) and expression is not None and value == ast.unparse(expression)
        if expression is None or not (found[name] or _gives(expression, value, namespace)):
            raise Unstorable(f"the annotation of {name} cannot be made again from what stands in the cell")
    return found


def put(tree: ast.AST, names: Mapping[str, bool], namespace: MutableMapping[str, object]) -> None:
    """Annotate the names once more, as :func:`told` told of them."""
    if not names:
        return
    expressions, held = written(tree), namespace.setdefault(_NAME, {})
    for name, is_text in names.items():
        if isinstance(held, dict) and name in expressions:
            expression = expressions[name]
            held[name] = ast.unparse(expression) if is_text else _evaluated(expression, namespace)


def _gives(expression: ast.expr, value: object, namespace: Mapping[str, object]) -> bool:
    if any(isinstance(node, _ACTIVE) for node in ast.walk(expression)):
        return False
    try:
        again = _evaluated(expression, namespace)
    except Exception:  # noqa: BLE001 - a name that the cell has deleted since, say
        return False
    return again is value or (type(again) is type(value) and bool(again == value))


def _evaluated(expression: ast.expr, namespace: Mapping[str, object]) -> object:
    code = compile(ast.Expression(expression), "<annotation>", "eval", dont_inherit=True)
    return eval(code, dict(namespace))  # noqa: S307 - the user's own cell
