"""Functions, classes and modules by what they would do: edits far away part them, comments and formatting do not."""

from __future__ import annotations

import functools
import importlib
import sys
import textwrap

import pytest

from prefect_cache import modules
from prefect_cache.cells import code
from prefect_cache.cells.code import module_parts
from prefect_cache.cells.fingerprint import Fingerprinter, fingerprint, resolve
from prefect_cache.errors import Unfingerprintable


def notebook(*cells):
    """Return the namespace of a notebook in which some cells ran."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        exec(compile(textwrap.dedent(cell), f"<cell {number}>", "exec"), namespace)
    return namespace


def key(namespace, name="f"):
    """Return all that a key would hold of one input: its digest, and those of the parts behind it."""
    found = Fingerprinter(namespace)
    made = found.add(name)
    return made.digest, tuple((p.kind, p.name, p.digest) for p in found.parts())


def of(*cells, name="f"):
    return key(notebook(*cells), name)


SAME = {
    "comments": ("def f(x):\n    return x + 1", "def f(x):\n    # one more\n    return x + 1  # here"),
    "blank lines": ("def f(x):\n    y = x\n    return y", "\n\n\ndef f(x):\n\n    y = x\n\n    return y\n"),
    "formatting": ("def f(x): return g(x, 1)", "def f(\n    x,\n):\n    return (\n        g(x,\n 1)\n    )"),
    "quotes": ("f = lambda: 'a'", 'f = lambda: "a"'),
    "a pass more": ("def f(x):\n    return x", "def f(x):\n    pass\n    return x"),
    "a class, formatted": (
        "class f:\n    a = 1\n    def m(self): return 1",
        "class f:\n\n    a = 1  # one\n\n    def m(self):\n        return 1",
    ),
    "methods in another order": (
        "class f:\n    def a(self): pass\n    def b(self): pass",
        "class f:\n    def b(self): pass\n    def a(self): pass",
    ),
    "what nobody reads": ("k = 1\ndef f(): return 1", "k = 2\ndef f(): return 1"),
    "another helper's body": ("def g(): return 1\ndef f(): return 1", "def g(): return 2\ndef f(): return 1"),
    "branches, formatted": (
        "def f(x):\n    while x:\n        x -= 1\n    try:\n        g()\n    except E:\n        pass\n    return x",
        "def f(x):\n    while x:\n        x -= 1\n\n    try:\n        g()\n    except E:\n        pass\n    return x",
    ),
}


@pytest.mark.parametrize("pair", SAME.values(), ids=SAME)
def test_what_changes_nothing_leaves_no_trace(pair):
    one, other = pair
    assert of(one) == of(other)


DIFFERENT = {
    "bodies": [
        "def f(x): return x + 1",
        "def f(x): return x + 2",
        "def f(x): return x - 1",
        "def f(x): return x + 1.0",
        "def f(x): return x + True",
        "def f(x, y): return x + 1",
        "def f(*x): return x + 1",
        "async def f(x): return x + 1",
        "def f(x): yield x + 1",
        "def f(y): return y + 1",
        "f = lambda x: x + 1",
    ],
    "docstrings": ["def f():\n    'a'", "def f():\n    'b'", "def f():\n    pass"],
    "defaults": [
        "def f(x=1): return x",
        "def f(x=2): return x",
        "def f(x=[1]): return x",
        "def f(x=1.0): return x",
        "def f(*, x=1): return x",
        "def f(*, x=2): return x",
    ],
    "annotations": ["def f(x: int): pass", "def f(x: str): pass", "def f(x): pass"],
    "globals": [
        "k = 1\ndef f(): return k",
        "k = 2\ndef f(): return k",
        "k = 1.0\ndef f(): return k",
        "k = [1]\ndef f(): return k",
        "def f(): return k",
    ],
    "helpers": [
        "def g(): return 1\ndef f(): return g()",
        "def g(): return 2\ndef f(): return g()",
        "g = 1\ndef f(): return g()",
    ],
    "a deep chain": [
        f"k = {k}\ndef a(): return {r} + k\ndef b(): return a()\nclass C:\n    def m(self): return b()\ndef d(): return [C().m() for _ in ()]\ndef f(): return (lambda: d())()"  # noqa: E501 - a cell, or a case, in one line
        for k in (1, 2)
        for r in (1, 2)
    ],
    "mutual recursion": [
        f"def f(n): return g(n - 1) if n else {n}\ndef g(n): return f(n - 1) if n else {m}"
        for n in (1, 2)
        for m in (1, 2)
    ],
    "closures": [f"def make(n):\n    def f(): return n\n    return f\nf = make({n})" for n in ("1", "2", "[1]", "'1'")],
    "closures over functions": [
        f"def make(g):\n    def f(): return g()\n    return f\nf = make(lambda: {n})" for n in (1, 2)
    ],
    "a global of an inner function": [f"k = {k}\ndef f():\n    def g(): return k\n    return g" for k in (1, 2)],
    "decorators": [
        f"import functools\ndef wrap(g):\n    @functools.wraps(g)\n    def inner(*a): return g(*a) + {n}\n    return inner\n@wrap\ndef f(): return {m}"  # noqa: E501 - a cell, or a case, in one line
        for n in (1, 2)
        for m in (1, 2)
    ],
    "caches": [
        f"import functools\n@functools.lru_cache({size})\ndef f(): return {n}" for n in (1, 2) for size in (3, 4)
    ],
    "partials": [
        f"import functools\ndef g(a, b=0): return {n}\nf = functools.partial(g, {m}, b={m})"
        for n in (1, 2)
        for m in (1, 2)
    ],
    "bound methods": [
        f"class A:\n    def __init__(self, n): self.n = n\n    def m(self): return {n}\nf = A({m}).m"
        for n in (1, 2)
        for m in (1, 2)
    ],
    "single dispatch": [
        f"import functools\n@functools.singledispatch\ndef f(x): return {n}\n@f.register\ndef _(x: int): return {m}"
        for n in (1, 2)
        for m in (1, 2)
    ],
    "attributes of functions": [
        "def f(): pass",
        "def f(): pass\nf.a = 1",
        "def f(): pass\nf.a = 2",
        "def f(): pass\nf.b = 1",
    ],
    "classes": [
        "class f: pass",
        "class f: a = 1",
        "class f: a = 2",
        "class f: a = [1]",
        "class f(int): pass",
        "class f(Exception): pass",
        "class f:\n    def m(self): return 1",
        "class f:\n    def m(self): return 2",
        "class f:\n    @staticmethod\n    def m(self): return 1",
        "class f:\n    @classmethod\n    def m(self): return 1",
        "class f:\n    @property\n    def m(self): return 1",
        "class f:\n    __slots__ = ('a',)",
        "class f:\n    a: int",
        "class f:\n    a: str",
        "class f:\n    'doc'",
    ],
    "base classes": [f"class B:\n    def m(self): return {n}\nclass f(B): pass" for n in (1, 2)],
    "metaclasses": [f"class M(type):\n    def m(cls): return {n}\nclass f(metaclass=M): pass" for n in (1, 2)],
    "super": [
        f"class B:\n    def m(self): return {n}\nclass f(B):\n    def m(self): return super().m() + {m}"
        for n in (1, 2)
        for m in (1, 2)
    ],
    "dataclasses": [
        f"import dataclasses\n@dataclasses.dataclass({options})\nclass f:\n    x: int = {default}"
        for options in ("", "frozen=True", "order=True", "eq=False")
        for default in (
            "1",
            "2",
            "dataclasses.field(default_factory=list)",
            "dataclasses.field(default_factory=dict)",
            "dataclasses.field(default=1, metadata={'a': 1})",
        )
    ],
    "enums": [
        f"import enum\nclass f({base}):\n    A = {a}\n    B = {b}\n    def m(self): return {n}"
        for base in ("enum.Enum", "enum.IntEnum")
        for a, b, n in ((1, 2, 1), (2, 1, 1), (1, 2, 2))
    ],
    "named tuples": [
        "import collections\nf = collections.namedtuple('f', 'a b')",
        "import collections\nf = collections.namedtuple('f', 'b a')",
        "import collections\nf = collections.namedtuple('f', 'a b', defaults=[1])",
        "import typing\nclass f(typing.NamedTuple):\n    a: int\n    b: int",
    ],
    "instances by their class's code": [
        f"class A:\n    def m(self): return {n}\nf = A()\nf.x = {m}" for n in (1, 2) for m in (1, 2)
    ],
    "instances by what their methods call": [
        f"def g(): return {n}\nclass A:\n    def m(self): return g()\nf = [A()]" for n in (1, 2)
    ],
    "functions in containers": [f"def g(): return {n}\nf = {{'a': [g]}}" for n in (1, 2)],
    "descriptors": [f"class D:\n    def __get__(self, o, t): return {n}\nclass f:\n    x = D()" for n in (1, 2)],
    "cached properties": [
        f"import functools\nclass f:\n    @functools.cached_property\n    def x(self): return {n}" for n in (1, 2)
    ],
    "environment": [
        f"import os\nos.environ['FINGERPRINT'] = '{n}'\ndef f(): return os.environ['FINGERPRINT']" for n in (1, 2)
    ],
    "environment, asked": [
        f"import os\nos.environ['FINGERPRINT'] = '{n}'\ndef f(): return os.getenv('FINGERPRINT', 'x')" for n in (1, 2)
    ],
    "names in queries": [f"limit = {n}\ndef f(df): return df.query('a > @limit')" for n in (1, 2)],
    "names in f-strings": [f"k = {n}\ndef f(): return f'{{k:>{{k}}}}'" for n in (1, 2)],
    "a global that a function binds": [
        "n = 1\ndef f():\n    global n\n    n += 1",
        "n = 2\ndef f():\n    global n\n    n += 1",
    ],
    "tables of constants": [
        "def f(x): return x in {1, 2}",
        "def f(x): return x in {1, 3}",
        "def f(x): return x in (1, 2)",
        "def f(x): return x in [1, 2.0]",
    ],
    "pydantic models": [
        f"import pydantic\nclass f(pydantic.BaseModel):\n    x: {kind} = {n}\n    def m(self): return {m}"
        for kind in ("int", "float")
        for n in (1, 2)
        for m in (1, 2)
    ],
}


@pytest.mark.parametrize("cells", DIFFERENT.values(), ids=DIFFERENT)
def test_what_changes_a_result_changes_the_key(cells):
    keys = [of(cell) for cell in cells]
    assert len(set(keys)) == len(keys)
    assert [of(cell) for cell in cells] == keys


def test_what_two_processes_make_of_a_class_is_the_same():
    cell = "import dataclasses, enum\n@dataclasses.dataclass\nclass A:\n    x: list = dataclasses.field(default_factory=list)\n    tags: set = frozenset({'a', 'b', 'c'})\nf = [A, A([1])]"  # noqa: E501 - a cell, or a case, in one line
    assert of(cell) == of(cell)


def test_the_parts_name_the_helper_that_changed():
    one, other = (notebook(f"def g(): return {n}\ndef f(): return g()") for n in (1, 2))
    (digest, parts), (other_digest, other_parts) = key(one), key(other)
    assert digest == other_digest
    assert [p[:2] for p in parts] == [("function", "g")] == [p[:2] for p in other_parts]
    assert parts != other_parts


def test_public_fingerprints_follow_helpers():
    one, other = (notebook(f"def g(): return {n}\ndef f(): return g()") for n in (1, 2))
    assert fingerprint(one["f"], one) != fingerprint(other["f"], other)
    assert fingerprint(one["f"], one) == fingerprint(notebook("def g(): return 1\ndef f(): return g()")["f"])


def test_names_reached_are_known():
    namespace = notebook("import numpy as np\nk = 1\ndef g(): return np.sum(k)\ndef f():\n    global n\n    n = g()")
    found = Fingerprinter(namespace)
    found.add("f")
    assert found.names == {"f", "g", "k", "np"}
    assert found.stores == {"n"}
    assert [(p.kind, p.name) for p in found.parts()] == [
        ("function", "g"),
        ("input", "k"),
        ("input", "np"),
        ("package", "numpy"),
    ]


def test_ignored_names_are_left_out():
    namespace = notebook("import threading\nlock = threading.Lock()\ndef f():\n    with lock: return 1")
    with pytest.raises(Unfingerprintable) as caught:
        Fingerprinter(namespace).add("f")
    assert caught.value.name == "lock"
    assert Fingerprinter(namespace, ignore=["lock"]).add("f")


@pytest.mark.parametrize(
    "body",
    ["eval('k')", "exec('k = 1')", "globals()['k']", "__import__('os')", "__import__('importlib').import_module('x')"],
)
def test_what_cannot_be_seen_is_said(body):
    found = Fingerprinter(notebook(f"def f(): return {body}"))
    found.add("f")
    assert found.dynamic
    assert found.dynamic[0].startswith("f uses ")


def test_what_a_frame_evaluates_is_no_eval():
    found = Fingerprinter(notebook("def f(df): return df.eval('a + 1')"))
    found.add("f")
    assert found.dynamic == []


def test_texts_in_code_may_name_files():
    found = Fingerprinter(notebook("def g(): return open('data.csv')\ndef f(): return g()"))
    found.add("f")
    assert "data.csv" in found.strings


def test_what_a_closure_counts_is_a_node_that_is_found_again():
    namespace = notebook(
        "def make():\n    n = 0\n    def up():\n        nonlocal n\n        n += 1\n        return n\n    return up\nf = make()"  # noqa: E501 - a cell, or a case, in one line
    )
    found = Fingerprinter(namespace)
    found.add("f")
    before = found.nodes
    namespace["f"]()
    now = Fingerprinter({})
    changed = [n for n in before if now.digest_of(n.value) != n.digest]
    assert [n.path for n in changed] == [(("name", "f"),), (("name", "f"), ("cell", "n"))]
    assert resolve(changed[1].path, namespace) is changed[1].value


def test_a_function_is_unchanged_where_only_a_global_is():
    namespace = notebook("k = 1\ndef f(): return k")
    found = Fingerprinter(namespace)
    before = found.add("f").digest
    namespace["k"] = 2
    assert Fingerprinter(namespace).add("f").digest == before


def test_installed_functions_are_their_names():
    namespace = notebook("from textwrap import dedent as f\nfrom numpy.linalg import norm as g")
    assert key(namespace)[1] == ()
    assert [p[:2] for p in key(namespace, "g")[1]] == [("package", "numpy")]


# ------------------------------------------------------------------------------------------ modules of the user's own


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return a function that writes a module of the user's own; all of them are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(**sources):
        for name, source in sources.items():
            path = tmp_path / f"{name.replace('_of_', '/')}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(source))
        importlib.invalidate_caches()

    yield write
    for name in set(sys.modules) - before:
        if modules.origin(name) == "local":
            del sys.modules[name]


def fresh(*names):
    """Import modules anew, as a new kernel would."""
    for name in [n for n in sys.modules if n.partition(".")[0] in names]:
        del sys.modules[name]
    sys.dont_write_bytecode = True
    return [importlib.import_module(name) for name in names]


def test_functions_of_local_modules_count_by_their_code_and_what_they_read(project):
    def made(deep, limit, spare):
        project(
            deep=f"def leaf(): return {deep}\ndef spare(): return {spare}",
            helpers=f"import deep\nfrom deep import leaf\nLIMIT = {limit}\ndef clean(x): return leaf() + LIMIT\ndef other(): return deep.leaf()",  # noqa: E501 - a cell, or a case, in one line
        )
        fresh("deep", "helpers")
        return key(
            notebook(
                "import helpers\nfrom helpers import clean\ndef f(x): return clean(x)\ndef g(): return helpers.other()\nh = clean"  # noqa: E501 - a cell, or a case, in one line
            )
        ), of("import helpers\ndef f(): return helpers.other()")

    first = made(1, 1, 1)
    assert first == made(1, 1, 1) == made(1, 1, 2)
    assert first[0] != made(2, 1, 1)[0]
    assert first[1] != made(2, 1, 1)[1]
    assert first[0] != made(1, 2, 1)[0]
    assert first[1] == made(1, 2, 1)[1]


def test_the_code_in_memory_counts_and_not_the_file(project):
    project(helpers="def clean(): return 1")
    fresh("helpers")
    before = of("from helpers import clean\ndef f(): return clean()")
    project(helpers="def clean(): return 2")
    assert of("from helpers import clean\ndef f(): return clean()") == before
    fresh("helpers")
    assert of("from helpers import clean\ndef f(): return clean()") != before


def test_attributes_of_local_modules_count_by_value(project):
    project(cfg="LIMIT = 1\nOTHER = 1")
    (cfg,) = fresh("cfg")
    namespace = notebook("import cfg\ndef f(): return cfg.LIMIT")
    before = key(namespace)
    cfg.OTHER = 2
    assert key(namespace) == before
    cfg.LIMIT = 2
    assert key(namespace) != before


def test_a_module_used_as_a_whole_counts_as_a_whole(project):
    project(cfg="LIMIT = 1\nLOCK = __import__('threading').Lock()\ndef g(): return 1")
    (cfg,) = fresh("cfg")
    namespace = notebook("import cfg\nf = [cfg]")
    before = key(namespace)
    assert [p[:2] for p in before[1]] == [
        ("function", "cfg.g"),
        ("input", "cfg.LIMIT"),
        ("input", "cfg.LOCK"),
        ("module", "cfg"),
    ]
    cfg.LIMIT = 2
    assert key(namespace) != before


def test_the_cells_code_says_what_of_a_module_counts(project):
    project(cfg="LIMIT = 1\nLOCK = __import__('threading').Lock()\ndef g(): return 1")
    (cfg,) = fresh("cfg")
    using = compile("y = cfg.LIMIT + 1", "<cell>", "exec")

    def parts():
        found = Fingerprinter(notebook("import cfg"))
        found.add("cfg", using=using)
        return [(p.kind, p.name, p.digest) for p in found.parts()]

    before = parts()
    assert [p[:2] for p in before] == [("input", "cfg.LIMIT")]
    cfg.LIMIT = 2
    assert parts() != before


def test_imports_of_local_modules_count_by_source_loaded_or_not(project):
    project(
        app="import deep\nfrom pkg import inner\nimport numpy",
        deep="X = 1",
        pkg_of___init__="",
        pkg_of_inner="from . import other",
        pkg_of_other="Y = 1",
    )
    before = module_parts("app")
    assert [(p.kind, p.name) for p in before] == [
        ("module", n) for n in ("app", "deep", "pkg", "pkg.inner", "pkg.other")
    ] + [("package", "numpy")]
    fresh("app")
    assert module_parts("app") == before
    project(pkg_of_other="Y = 2")
    fresh("pkg", "app")
    assert [p.name for p, q in zip(module_parts("app"), before, strict=True) if p != q] == ["pkg.other"]


def test_imports_inside_functions_count(project):
    project(app="def g(): return 1")
    before = of("def f():\n    from app import g\n    return g()")
    project(app="def g(): return 2")
    assert of("def f():\n    from app import g\n    return g()") != before


def test_an_absent_module_is_a_part_too():
    assert [(p.kind, p.name) for p in module_parts("no_such_module")] == [("module", "no_such_module")]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sys", "python"),
        ("json.decoder", "python"),
        ("numpy.linalg", "installed"),
        ("no_such", "absent"),
        ("prefect_cache.model", "installed"),
    ],
)
def test_where_modules_come_from(name, expected):
    assert modules.origin(name) == expected


def test_distributions_are_found_by_module():
    assert modules.distribution("sklearn")[0] == "scikit-learn"
    assert modules.distribution("numpy")[0] == "numpy"
    assert modules.distribution("dateutil")[0] == "python-dateutil"


def test_looking_for_a_module_imports_none():
    before = set(sys.modules)
    assert modules.origin("wsgiref.simple_server") == "python"
    assert "wsgiref.simple_server" not in set(sys.modules) - before


def test_many_functions_that_call_each_other_are_quick():
    names = [f"f{i}" for i in range(40)]
    body = "\n".join(f"def {n}(): return ({', '.join(names)})" for n in names)
    assert len(of(body, name="f0")[1]) == 39


def test_code_digests_are_of_code_alone():
    one, other = (notebook(f"def f(x={n}): return x")["f"] for n in (1, 2))
    assert code.code_digest(one) == code.code_digest(other)
    assert code.code_digest(functools.partial(one).func) == code.code_digest(one.__code__)
