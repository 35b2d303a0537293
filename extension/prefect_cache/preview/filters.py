"""A filter as people write it, ``price > 130 and carrier in (UA, DL)``, and the rows that it keeps.

The words are parsed by the few lines below, never by ``eval`` and never as SQL: a filter
comes from a web page. It names columns, compares them with constants, and that is all it can do.
A missing value matches ``is null`` and nothing else.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from prefect_cache.errors import UsageProblem
from prefect_cache.preview.text import dtype_text

if TYPE_CHECKING:
    from collections.abc import Sequence

Predicate = Callable[[pa.Array], pa.Array]

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<tick>`(?:[^`]|``)*`)
  | (?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
  | (?P<operator><=|>=|==|!=|<>|[=<>(),])
  | (?P<word>[^\s=<>!(),"'`]+|!(?!=)|["'`])
)""",
    re.VERBOSE,
)
_COMPARE = {"=": "=", "==": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_TEXTUAL = ("contains", "startswith", "endswith")
_KERNELS = {
    "=": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}
_SPANS: Mapping[str, int | Decimal] = {
    "d": 86400,
    "h": 3600,
    "m": 60,
    "min": 60,
    "s": 1,
    "ms": Decimal("1e-3"),
    "us": Decimal("1e-6"),
}
_UNITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison; `op` is a sign, ``contains``, ``startswith``, ``endswith``, ``in`` or ``null``."""

    column: str
    op: str
    values: tuple[str, ...] = ()
    negated: bool = False


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def parse(text: str) -> tuple[Condition, ...]:
    """Return the conditions of a filter; UsageProblem says in words what cannot be read."""
    return _Parser(text).conditions() if text.strip() else ()


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            msg = f"cannot read {text[at:].strip()!r}"
            raise UsageProblem(msg)
        kind = match.lastgroup or "word"
        found.append(_Token(kind, match.group(kind), match.start(kind)))
        at = match.end()
    return found


class _Parser:
    """Recursive descent over the tokens of one filter."""

    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.at = 0

    def conditions(self) -> tuple[Condition, ...]:
        found = [self.condition()]
        while self.at < len(self.tokens):
            joint = self.next("and")
            if joint.text.lower() != "and":
                hint = "; only 'and' joins conditions" if joint.text.lower() == "or" else ""
                msg = f"{joint.text!r} was not expected{hint}"
                raise UsageProblem(msg)
            found.append(self.condition())
        return tuple(found)

    def condition(self) -> Condition:
        column = self.name(self.next("a column"))
        sign = self.next(f"a comparison after {column!r}, such as = < > contains")
        op = sign.text.lower()
        if sign.kind == "operator" and op in _COMPARE:
            return Condition(column, _COMPARE[op], (self.value(f"{column} {op}"),))
        if op in _TEXTUAL:
            return Condition(column, op, (self.value(f"{column} {op}"),))
        if op == "is":
            return self.null(column)
        negated = op == "not"
        if negated:
            op = self.next("'in' after 'not'").text.lower()
        if op == "in":
            return Condition(column, "in", self.values(column), negated)
        msg = f"{sign.text!r} is no comparison; use = != < <= > >= contains startswith endswith in, or is null"
        raise UsageProblem(msg)

    def null(self, column: str) -> Condition:
        word = self.next("'null' or 'not null' after 'is'").text.lower()
        negated = word == "not"
        if negated:
            word = self.next("'null' after 'is not'").text.lower()
        if word not in {"null", "none", "na", "nan"}:
            msg = f"'is' is followed by 'null' or 'not null', not {word!r}"
            raise UsageProblem(msg)
        return Condition(column, "null", (), negated)

    def values(self, column: str) -> tuple[str, ...]:
        if self.next(f"( after {column} in").text != "(":
            msg = f"the values of '{column} in' stand in brackets: {column} in (a, b)"
            raise UsageProblem(msg)
        found = [self.value(f"{column} in (")]
        while (mark := self.next("a closing bracket")).text == ",":
            found.append(self.value(f"{column} in ("))
        if mark.text != ")":
            msg = f"a comma or a closing bracket was expected, not {mark.text!r}"
            raise UsageProblem(msg)
        return tuple(found)

    def value(self, after: str) -> str:
        """Return a constant: one in quotes, or bare words up to 'and', a comma or the end."""
        first = self.next(f"a value after '{after}'")
        if first.kind in {"quoted", "tick"} or first.text in {'"', "'", "`"}:
            return self.name(first)
        if first.kind == "operator":
            msg = f"a value was expected after '{after}', not {first.text!r}"
            raise UsageProblem(msg)
        words = [first.text]
        while (token := self.peek()) and token.kind == "word" and token.text.lower() not in {"and", "or"}:
            words.append(self.next("").text)
        return " ".join(words)

    def name(self, token: _Token) -> str:
        if token.kind == "tick":
            return token.text[1:-1].replace("``", "`")
        if token.kind == "quoted":
            return re.sub(r"\\(.)", r"\1", token.text[1:-1])
        if token.kind == "operator" or token.text in {'"', "'", "`"}:
            problem = "a quote is not closed" if token.kind == "word" else f"a column was expected, not {token.text!r}"
            raise UsageProblem(problem)
        return token.text

    def peek(self) -> _Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def next(self, expected: str) -> _Token:
        token = self.peek()
        if token is None:
            msg = f"the filter ends where {expected} was expected"
            raise UsageProblem(msg)
        self.at += 1
        return token


def find_column(name: str, names: Sequence[str]) -> int:
    """Return the position of a column by its name, whatever its case where that is unambiguous."""
    if name in names:
        return list(names).index(name)
    alike = [i for i, n in enumerate(names) if n.lower() == name.lower()]
    if len(alike) == 1:
        return alike[0]
    near = difflib.get_close_matches(name, names, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    msg = f"there is no column {name!r}{hint}"
    raise UsageProblem(msg)


def predicate(condition: Condition, kind: pa.DataType) -> Predicate:
    """Return what tells, for an array of this type, which values meet the condition."""
    if condition.op == "null":
        return _missing if not condition.negated else lambda a: pc.invert(_missing(a))
    if pa.types.is_dictionary(kind):
        return _through_dictionary(predicate(condition, kind.value_type))
    if condition.op == "in":
        tests = [_compare("=", v, kind, condition.column) for v in condition.values]
        return _any(tests, negated=condition.negated)
    if condition.op in _TEXTUAL:
        return _textual(condition, kind)
    return _compare(condition.op, condition.values[0], kind, condition.column)


def _missing(array: pa.Array) -> pa.Array:
    return pc.is_null(array, nan_is_null=pa.types.is_floating(array.type))


def _present(array: pa.Array, *, kept: bool) -> pa.Array:
    """Return a mask that is `kept` for every value that is there."""
    return pc.and_(pc.invert(_missing(array)), kept)


def _through_dictionary(inner: Predicate) -> Predicate:
    def test(array: pa.DictionaryArray) -> pa.Array:
        return inner(array.dictionary).take(array.indices)

    return test


def _any(tests: Sequence[Predicate], *, negated: bool) -> Predicate:
    def test(array: pa.Array) -> pa.Array:
        mask = tests[0](array)
        for other in tests[1:]:
            mask = pc.or_(mask, other(array))
        return pc.and_(pc.invert(mask), _present(array, kept=True)) if negated else mask

    return test


def _textual(condition: Condition, kind: pa.DataType) -> Predicate:
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        msg = f"'{condition.op}' looks into text, and {condition.column!r} is {dtype_text(kind)}"
        raise UsageProblem(msg)
    kernel = {"contains": pc.match_substring, "startswith": pc.starts_with, "endswith": pc.ends_with}[condition.op]
    pattern = condition.values[0]
    return lambda a: kernel(a, pattern, ignore_case=True)


def _compare(op: str, text: str, kind: pa.DataType, column: str) -> Predicate:
    if pa.types.is_integer(kind):
        return _integers(op, _number(text, kind, column), kind)
    constant = _constant(text, kind, column)
    kernel = _KERNELS[op]
    if pa.types.is_floating(kind):
        # pandas holds that NaN != 1; to a reader of a filter, NaN is a value that is not there.
        return lambda a: pc.and_(kernel(a, constant), _present(a, kept=True))
    return lambda a: kernel(a, constant)


def _integers(op: str, value: Decimal, kind: pa.DataType) -> Predicate:
    """Compare integers exactly with any number: a fraction moves to the next integer, one out of range decides."""
    whole = value == value.to_integral_value()
    if not whole and op in {"=", "!="}:
        return lambda a: _present(a, kept=op == "!=")
    if not whole:
        value = Decimal(math.floor(value) if op in {">", "<="} else math.ceil(value))
    bits = kind.bit_width
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if pa.types.is_signed_integer(kind) else (0, 2**bits - 1)
    if not low <= value <= high:
        kept = op != "=" and (op == "!=" or (op in {"<", "<="}) == (value > high))
        return lambda a: _present(a, kept=kept)
    constant = pa.scalar(int(value), kind)
    kernel = _KERNELS[op]
    return lambda a: kernel(a, constant)


def _number(text: str, kind: pa.DataType, column: str) -> Decimal:
    try:
        value = Decimal(text.replace(",", "").replace("_", ""))
    except InvalidOperation:
        raise _unfit(text, kind, column) from None
    if not value.is_finite():
        raise _unfit(text, kind, column)
    return value


def _constant(text: str, kind: pa.DataType, column: str) -> pa.Scalar:
    """Return the text as a constant that compares with a column of this type."""
    try:
        return _parsed(text, kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError, InvalidOperation, KeyError):
        raise _unfit(text, kind, column) from None


def _parsed(text: str, kind: pa.DataType) -> pa.Scalar:
    if pa.types.is_floating(kind):
        return pa.scalar(float(text.replace("_", "")), pa.float64())
    if pa.types.is_decimal(kind):
        return pa.scalar(Decimal(text.replace("_", "")))
    if pa.types.is_boolean(kind):
        return pa.scalar({"true": True, "false": False, "1": True, "0": False}[text.lower()])
    if pa.types.is_timestamp(kind):
        return _moment(text, kind)
    if pa.types.is_duration(kind):
        return pa.scalar(int(_span(text) * 10 ** _UNITS[kind.unit]), kind)
    if pa.types.is_nested(kind) or pa.types.is_null(kind):
        raise ValueError(text)
    return pa.array([text]).cast(kind)[0]


def _moment(text: str, kind: pa.DataType) -> pa.Scalar:
    """Return an instant; without a zone of its own the text is in the column's zone."""
    if kind.tz is None:
        return _naive(text, kind.unit)
    if re.search(r"(Z|[+-]\d\d:?\d\d)$", text) and ":" in text:
        return pa.array([text]).cast(pa.timestamp(kind.unit, "UTC"))[0]
    return pc.assume_timezone(_naive(text, kind.unit), kind.tz)


def _naive(text: str, unit: str) -> pa.Scalar:
    try:
        return pa.array([text]).cast(pa.timestamp(unit))[0]
    except pa.ArrowInvalid:  # finer than the column's own unit
        return pa.array([text]).cast(pa.timestamp("ns"))[0]


def _span(text: str) -> Decimal:
    """Return the seconds of ``1 d 02:03:04.5``, ``90 min`` or ``1.5h``."""
    total = Decimal(0)
    rest = text.strip().removeprefix("-")
    if clock := re.search(r"(\d+):(\d\d)(?::(\d\d(?:\.\d+)?))?$", rest):
        total += int(clock[1]) * 3600 + int(clock[2]) * 60 + Decimal(clock[3] or 0)
        rest = rest[: clock.start()]
    for amount, unit in re.findall(r"([\d.]+)\s*([a-z]+)", rest):
        total += Decimal(amount) * _SPANS[unit]
    if not total and not re.search(r"\d", text):
        raise ValueError(text)
    return -total if text.strip().startswith("-") else total


def _unfit(text: str, kind: pa.DataType, column: str) -> UsageProblem:
    return UsageProblem(f"{text!r} cannot be compared with {column!r}, which is {dtype_text(kind)}")
