"""Functions, classes and modules as content: what they would do if they were called.

A function is its code object (without file names, line numbers and NOPs: comments and formatting leave no trace),
its defaults, what it captured, its attributes. What it reads from its globals is not part of its
digest but is *met*: each such name becomes a part of the key of its own, so that a changed
helper deep in a chain is found and can be named.
"""

from __future__ import annotations

import abc
import ast
import dataclasses
import dis
import enum
import itertools
import re
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect_cache import modules
from prefect_cache.cells import leaves
from prefect_cache.cells.named import by_name, importable, kind_name
from prefect_cache.cells.plain import opaque, run
from prefect_cache.cells.walk import Shape, Walk, truncated
from prefect_cache.digests import combine, digest
from prefect_cache.model import Part

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from prefect_cache.model import Digest, Json, Step

# ------------------------------------------------------------------------------------------ code objects


@dataclass(frozen=True, slots=True)
class Read:
    """A global name that code reads, and the attributes that it reads from it at once: ``cfg.limit``."""

    name: str
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Import:
    """A module that code imports, and the names that it takes from it (none: the module itself)."""

    module: str
    level: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CodeFacts:
    """All that can be said of a code object and of those within it."""

    digest: Digest
    reads: tuple[Read, ...]
    imports: tuple[Import, ...]
    environ: tuple[str, ...]
    strings: tuple[str, ...]
    mentions: tuple[str, ...]
    """Identifiers in texts that are queries or commands: ``df.query("a > @limit")``."""
    dynamic: tuple[str, ...]
    stores: tuple[str, ...]
    """Global names that the code binds or deletes."""
    sets: tuple[str, ...]
    """Attributes of global names that the code sets or deletes: ``cfg.limit``."""
    commands: tuple[tuple[str, str], ...]
    """The magics that the code runs, with their signs, and the line of each."""


MOST_FACTS = 20_000
"""Code objects that are remembered."""
_FACTS: dict[types.CodeType, CodeFacts] = {}
"""Equal code objects have equal facts, so the cache is keyed by content."""

_SEEING = {"eval", "exec", "globals", "__import__", "import_module", "run_path", "run_module"}
"""Names by which code reads or binds names out of sight."""
_FRAMES = {"f_globals", "f_locals", "user_ns", "user_global_ns", "run_cell", "__globals__"}
"""Attributes that lead to another function's names."""
_ASKING = {"query", "eval", "sql", "evaluate", "execute", "system", "getoutput", "run_line_magic", "run_cell_magic"}
"""Functions that take text in which names are looked up."""
_IDENTIFIER = re.compile(r"[^\W\d]\w*")
_GLOBAL_OPS = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS", "LOAD_CLASSDEREF"}
_STORING = {"STORE_GLOBAL", "DELETE_GLOBAL"}
_ATTRIBUTE_OPS = {"LOAD_ATTR", "LOAD_METHOD"}
_SILENT = {"NOP", "EXTENDED_ARG", "CACHE"}


def code_facts(code: types.CodeType) -> CodeFacts:
    """Return what can be said of a code object."""
    known = _FACTS.get(code)
    if known is None:
        if len(_FACTS) > MOST_FACTS:
            _FACTS.clear()
        known = _FACTS[code] = _read(code)
    return known


def code_digest(function: types.FunctionType | types.CodeType) -> Digest:
    """Return the digest of a function's own code, wherever it stands and however it is formatted."""
    return code_facts(function if isinstance(function, types.CodeType) else function.__code__).digest


def _read(code: types.CodeType) -> CodeFacts:
    steps = [i for i in dis.get_instructions(code) if i.opname not in _SILENT]
    inner = [code_facts(c) for c in code.co_consts if isinstance(c, types.CodeType)]
    names = set(code.co_names)
    texts = [c for c in _constants(code.co_consts) if isinstance(c, str)]
    asked = {word for text in texts for word in _IDENTIFIER.findall(text)} if names & _ASKING else set()
    asked |= {word for text in texts if "@" in text for word in re.findall(r"@([^\W\d]\w*)", text)}
    return CodeFacts(
        digest=_digest(code, steps),
        reads=_union(_reads(steps), *(f.reads for f in inner)),
        imports=_union(_imports(steps), *(f.imports for f in inner)),
        environ=_union(_environ(steps), *(f.environ for f in inner)),
        strings=_union([t for t in texts if names_file(t)], *(f.strings for f in inner)),
        mentions=_union(sorted(asked), *(f.mentions for f in inner)),
        dynamic=_union(sorted(_dynamic(steps, names)), *(f.dynamic for f in inner)),
        stores=_union([s.argval for s in steps if s.opname in _STORING], *(f.stores for f in inner)),
        sets=_union(_sets(steps), *(f.sets for f in inner)),
        commands=_union(_commands(steps), *(f.commands for f in inner)),
    )


def _union(*groups: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(item for group in groups for item in group))


LONGEST_NAME = 1024
"""Characters of a text that may still name a file."""


def names_file(text: str) -> bool:
    """Tell whether a text may be the name of a file."""
    return 0 < len(text) <= LONGEST_NAME and "\n" not in text and "\0" not in text


def _constants(consts: Sequence[object]) -> Iterator[object]:
    for const in consts:
        if isinstance(const, tuple | frozenset):
            yield from _constants(tuple(const))
        else:
            yield const


def _digest(code: types.CodeType, steps: Sequence[dis.Instruction]) -> Digest:
    """Return the digest of a code object; jumps count by the number of their target, which NOPs do not move."""
    offsets = [i.offset for i in steps]
    numbers = {offset: n for n, offset in enumerate(offsets)}

    def number(offset: int) -> int:
        while offset not in numbers and offset <= (offsets[-1] if offsets else 0):
            offset += 2  # a NOP stood there: what follows it is the target
        return numbers.get(offset, len(offsets))

    jumps = {*dis.hasjrel, *dis.hasjabs}
    text = [f"{i.opname} {number(i.argval) if i.opcode in jumps else i.arg}" for i in steps]
    table = [
        f"{number(e.start)} {number(e.end)} {number(e.target)} {e.depth} {e.lasti}"
        for e in getattr(dis.Bytecode(code), "exception_entries", ())
    ]
    counts = f"{code.co_argcount} {code.co_posonlyargcount} {code.co_kwonlyargcount} {code.co_flags}"
    names = (code.co_names, code.co_varnames, code.co_cellvars, code.co_freevars)
    consts = [_constant(c) for c in code.co_consts]
    return combine("code", code.co_name, counts, "\n".join(text), "\n".join(table), *map(" ".join, names), *consts)


def _constant(value: object) -> Digest:
    if isinstance(value, types.CodeType):
        return code_facts(value).digest
    kind = leaves.code(value)
    if kind != leaves.COMPOUND:
        return leaves.leaf_digest(value, kind)
    if isinstance(value, frozenset):
        return combine("frozenset", *sorted(map(_constant, value)))
    if isinstance(value, slice):
        return combine("slice", *map(_constant, (value.start, value.stop, value.step)))
    return combine("tuple", *map(_constant, value))  # type: ignore[call-overload]


def _reads(steps: Sequence[dis.Instruction]) -> list[Read]:
    found: list[Read] = []
    for at, step in enumerate(steps):
        if step.opname in _GLOBAL_OPS:
            chain: list[str] = []
            for after in steps[at + 1 :]:
                if after.opname not in _ATTRIBUTE_OPS:
                    break
                chain.append(after.argval)
            stored = not chain and at + 1 < len(steps) and steps[at + 1].opname == "STORE_ATTR"
            found.append(Read(step.argval, (steps[at + 1].argval,) if stored else tuple(chain)))
    return found


def _sets(steps: Sequence[dis.Instruction]) -> list[str]:
    found: list[str] = []
    for at, step in enumerate(steps):
        if step.opname in {"STORE_ATTR", "DELETE_ATTR"}:
            words = [step.argval]
            before = itertools.takewhile(lambda s: s.opname in _ATTRIBUTE_OPS, reversed(steps[:at]))
            words += [s.argval for s in before]
            head = steps[at - len(words)]
            if head.opname in _GLOBAL_OPS:
                found.append(".".join([head.argval, *reversed(words)]))
    return found


def _imports(steps: Sequence[dis.Instruction]) -> list[Import]:
    found: list[Import] = []
    for at, step in enumerate(steps):
        if step.opname == "IMPORT_NAME":
            level, names = (s.argval for s in steps[at - 2 : at])
            found.append(Import(step.argval, level or 0, tuple(names or ())))
    return found


def _environ(steps: Sequence[dis.Instruction]) -> list[str]:
    found: list[str] = []
    for at, step in enumerate(steps):
        if step.argval in ("environ", "getenv") and step.opname in _GLOBAL_OPS | _ATTRIBUTE_OPS:
            consts = [s.argval for s in steps[at + 1 : at + 5] if s.opname == "LOAD_CONST"]
            found += [c for c in consts[:1] if isinstance(c, str)]
    return found


_SIGNS = {"run_line_magic": "%", "run_cell_magic": "%%"}


def _commands(steps: Sequence[dis.Instruction]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for at, step in enumerate(steps):
        if step.opname in _ATTRIBUTE_OPS and step.argval in _SIGNS:
            texts = [s.argval if s.opname == "LOAD_CONST" else "" for s in steps[at + 1 : at + 3]]
            magic, line = (text if isinstance(text, str) else "" for text in texts)
            found.append((f"{_SIGNS[step.argval]}{magic}", line))
    return found


def _dynamic(steps: Sequence[dis.Instruction], names: set[str]) -> set[str]:
    called = {s.argval for s in steps if s.opname in _GLOBAL_OPS and s.argval in _SEEING}
    reached = {s.argval for s in steps if s.opname in _ATTRIBUTE_OPS and s.argval in _FRAMES | {"import_module"}}
    return (called | reached) & names


# ------------------------------------------------------------------------------------------ functions


def home(function: types.FunctionType) -> str | None:
    """Return the module whose names a function sees; None where they are no loaded module's."""
    name = function.__globals__.get("__name__")
    module = sys.modules.get(name) if isinstance(name, str) else None
    return module.__name__ if module is not None and vars(module) is function.__globals__ else None


def function_shape(function: types.FunctionType, walk: Walk) -> Shape:
    """Return the shape of a function: its code and what it carries with it."""
    if importable(function):
        return by_name(function, walk)
    if is_dispatcher(function):
        return _dispatcher(function, walk)
    carried = list(_carried(function))
    steps = [step for step, _ in carried]
    module = home(function)
    own = module is None or modules.origin(module) == "local"
    if own:
        walk.met.function(function)
    elif module is not None:
        walk.met.package(module)
    marks = [f"{kind} {key}" for kind, key in steps]
    label = combine(
        "function", code_digest(function), function.__name__, function.__qualname__, str(function.__doc__), *marks
    )
    return Shape(
        label,
        [value for _, value in carried],
        steps,
        mutable=own,
        shareable=False,
        detail=lambda _: {"type": "function", "source": source_of(function)},
    )


def _carried(function: types.FunctionType) -> Iterator[tuple[Step, object]]:
    """Yield what a function carries with it: defaults, the cells of what it captured, attributes, annotations."""
    for number, value in enumerate(function.__defaults__ or ()):
        yield ("default", number), value
    for name, value in sorted((function.__kwdefaults__ or {}).items()):
        yield ("kwdefault", name), value
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        yield ("cell", name), cell
    for name, value in function.__dict__.items():
        yield ("attr", name), value
    if function.__annotations__:
        yield ("attr", "__annotations__"), function.__annotations__


def _dispatcher(function: types.FunctionType, walk: Walk) -> Shape:
    """Return the shape of a ``functools.singledispatch`` function: its implementations; its cache follows from them."""
    registry: Mapping[type, Any] = function.registry  # type: ignore[attr-defined]
    pairs = sorted(registry.items(), key=lambda pair: kind_name(pair[0]))
    items = [item for pair in pairs for item in pair]
    shape = run("singledispatch", items, walk, mutable=True)
    shape.steps = [("part", f"implementation {i}") for _, i in shape.steps]
    shape.shareable = False
    return shape


def is_dispatcher(value: object) -> bool:
    """Tell whether this is a function made by ``functools.singledispatch``."""
    return type(value) is types.FunctionType and value.__code__.co_qualname == "singledispatch.<locals>.wrapper"


def source_of(function: types.FunctionType | type) -> str:
    """Return a function's source for people, where it is at hand; it never counts."""
    import inspect  # only details need it

    try:
        return truncated(inspect.getsource(function), 4000)
    except (OSError, TypeError):
        return ""


# ------------------------------------------------------------------------------------------ classes


_HEAP = 1 << 9
"""The flag of classes made at run time, by Python code or an extension; others are part of a binary."""
_FORGOTTEN = {
    *("__dict__", "__weakref__", "__module__", "__firstlineno__", "__static_attributes__", "_abc_impl", "__doc__"),
    "__slotnames__",  # what copyreg notes at the first copy or pickle of an instance
    # what pydantic derives from the annotations and other attributes
    *("__pydantic_core_schema__", "__pydantic_validator__", "__pydantic_serializer__", "__signature__"),
    *("__pydantic_parent_namespace__", "__pydantic_complete__", "__pydantic_fields_complete__"),
}
"""Attributes of classes that say nothing, or follow from others."""


def code_shape(code: types.CodeType, _walk: Walk) -> Shape:
    """Return the shape of a code object."""
    return Shape(code_facts(code).digest)


def class_shape(cls: type, walk: Walk) -> Shape:
    """Return the shape of a class: its name where it is installed, else its bases and all that it holds."""
    if not cls.__flags__ & _HEAP or importable(cls):
        return by_name(cls, walk)
    held = _members(cls)
    names = sorted(held)
    body = run("class", [held[n] for n in names], walk, mutable=True)
    bases = [b for b in cls.__bases__ if b is not object]
    kin = [*bases, type(cls)] if type(cls) is not type else bases
    label = combine("class", cls.__qualname__, str(cls.__doc__), len(bases), len(kin), body.label, *names)
    steps: list[Step] = [("made" if names[int(i)] in _RETOLD else "attr", names[int(i)]) for _, i in body.steps]
    steps += [("part", f"base {i}") for i in range(len(kin))]
    return Shape(
        label,
        [*body.children, *kin],
        steps,
        mutable=True,
        shareable=False,
        detail=lambda _: {"type": "class", "source": source_of(cls)},
    )


def _members(cls: type) -> dict[str, object]:
    held = {n: v for n, v in vars(cls).items() if n not in _FORGOTTEN}
    if registered := registered_with(cls):
        held["__registered__"] = registered
    if isinstance(cls, enum.EnumMeta):
        # members are instances of the class itself: their values in order are what it holds
        inner = {"_member_map_", "_value2member_map_", "_member_names_", "_hashable_values_", "_unhashable_values_"}
        inner |= {"_unhashable_values_map_", "__new__", "_new_member_", "_use_args_", "_inverted_"}
        members: Mapping[str, Any] = cls.__members__
        held = {n: v for n, v in held.items() if n not in inner and n not in members}
        held["__members__"] = tuple((name, member.value) for name, member in members.items())
    if "__dataclass_fields__" in held:
        held["__dataclass_fields__"] = tuple(map(_field, cls.__dataclass_fields__.values()))  # type: ignore[attr-defined]
    return held


def registered_with(cls: type) -> tuple[type, ...]:
    """Return the classes that an abstract base class was told of by its ``register``, sorted by name."""
    if not isinstance(cls, abc.ABCMeta):
        return ()
    registry = abc._get_dump(cls)[0]  # type: ignore[attr-defined]  # noqa: SLF001 - there is no public way
    return tuple(sorted((c for ref in registry if (c := ref()) is not None), key=kind_name))


_RETOLD = {"__members__", "__dataclass_fields__", "__registered__"}
"""Attributes of classes of which :func:`_members` tells in its own words."""


def _field(field: dataclasses.Field[Any]) -> tuple[object, ...]:
    """Return what a dataclass knows of a field beside its type; its own markers as text."""
    given = [(value is not dataclasses.MISSING) and (value,) for value in (field.default, field.default_factory)]
    rules = (field.init, field.repr, field.hash, field.compare, field.kw_only is True)
    return (field.name, *given, *rules, field.metadata, str(field._field_type))  # type: ignore[attr-defined]  # noqa: SLF001


# ------------------------------------------------------------------------------------------ modules


def module_shape(module: types.ModuleType, walk: Walk) -> Shape:
    """Return the shape of a module: its name; the package's version or the module's content is met."""
    name = module.__name__
    if name in ("__main__", "__mp_main__"):
        raise opaque(module, "the notebook itself")
    if modules.origin(name) == "local":
        walk.met.module(name)
    else:
        walk.met.package(name)
    return Shape(combine("module", name), detail=lambda _: {"type": "module", "value": name})


def package_part(module: str) -> Part | None:
    """Return the part for the package that an installed module belongs to; Python's own count by its version."""
    if modules.origin(module) != "installed":
        return None
    name, version = modules.distribution(modules.package_name(module))
    return Part("package", name, combine("package", name, version), version)


def module_parts(name: str, namespace: Mapping[str, object] | None = None) -> tuple[Part, ...]:  # noqa: ARG001
    """Return what an import of a module depends on, loaded or not; nothing is imported to find out.

    An installed package counts by its version, a module of the user's own by its source and by those of
    the modules that it imports. Whether a loaded module is what its source makes of it is for ``cells.loaded`` to say.
    """
    parts: dict[tuple[str, str], Part] = {}
    waiting = [name]
    done: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module in done:
            continue
        done.add(module)
        for part, further in _import_part(module):
            parts[part.kind, part.name] = part
            waiting += further
    return tuple(parts[key] for key in sorted(parts))


def _import_part(name: str) -> Iterator[tuple[Part, list[str]]]:
    where = modules.origin(name)
    if where == "installed":
        part = package_part(name)
        if part is not None:
            yield part, []
    elif where == "absent":
        yield Part("module", name, combine("absent module")), []
    elif where == "local":
        parent = name.rpartition(".")[0]
        source = module_source(name)
        detail: Json = {"type": "module", "source": truncated(source.decode("utf-8", "replace"), 4000)}
        yield Part("module", name, digest(source), detail), [*imported(name, source), *([parent] if parent else [])]


def module_file(name: str) -> str:
    """Return the source file of a module, "" where it has none."""
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if module is None:
        spec = modules.find(name)
        file = spec.origin if spec is not None and spec.has_location else None
    return str(file or "")


def module_source(name: str) -> bytes:
    """Return the bytes of a module's file, which may be an extension; nothing for a namespace package."""
    file = module_file(name)
    if not file:
        return b""
    try:
        return Path(file).read_bytes()
    except OSError:
        return b""


def imported(name: str, source: bytes) -> list[str]:
    """Return the modules that a module's source imports, of those that can be found."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return []  # an extension, or a file in mid-edit: its bytes count as they are
    package = _package_of(name)
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node.module or "", node.level, package)
            found += [base, *(f"{base}.{a.name}" for a in node.names if _is_module(f"{base}.{a.name}"))]
    return [m for m in dict.fromkeys(found) if m and modules.origin(m) != "absent"]


def _is_module(name: str) -> bool:
    return modules.origin(name.rpartition(".")[0]) == "local" and modules.origin(name) == "local"


def _package_of(name: str) -> str:
    module = sys.modules.get(name)
    if module is not None and getattr(module, "__package__", None) is not None:
        return str(module.__package__)
    spec = modules.find(name)
    return (spec.parent or "") if spec is not None else ""


def absolute(module: str, level: int, package: str) -> str:
    """Return the full name of a module that is imported relative to a package."""
    if not level:
        return module
    base = package.rsplit(".", level - 1)[0] if level > 1 else package
    return f"{base}.{module}" if module else base
